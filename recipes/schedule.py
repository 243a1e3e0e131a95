"""What both training steps share: the order of pictures, a pace that ends in time, and files written whole."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

MOMENTS = (("m", "exp_avg"), ("v", "exp_avg_sq"))  # of AdamW
TEXT = -1  # in an order: no picture, skills on text alone


def order(strata: list[str], shares: Mapping[str, float], total: int, seed: int) -> np.ndarray:
    """Which row comes when, int [total]: strata by their shares, the rows of each in shuffled rounds.

    Args:
        strata: of every row.
        shares: by stratum; "text" stands for no row at all.
        total: rows wanted.
        seed: fixes the order.
    """
    rng = np.random.default_rng(seed)
    members = {s: np.flatnonzero([s == other for other in strata]) for s in shares}
    usable = [s for s in shares if s == "text" or len(members[s])]
    weights = np.array([shares[s] for s in usable])
    found = np.full(total, TEXT)
    picks = rng.choice(len(usable), size=total, p=weights / weights.sum())
    for number, stratum in enumerate(usable):
        places = np.flatnonzero(picks == number)
        if stratum != "text":
            mine = members[stratum]
            rounds = [rng.permutation(mine) for _ in range(-(-len(places) // len(mine)))]
            found[places] = np.concatenate(rounds or [mine])[: len(places)]
    return found


class Pace:
    """The learning rate over the steps that were planned, or over fewer where the time would not suffice.

    The cosine always comes to its end: as soon as the speed is known, the steps are cut to as many as fit.
    """

    def __init__(self, steps: int, warmup: int, deadline: float, reserve: float = 0.0) -> None:
        """`deadline` and `reserve` (for what follows the last step) in seconds from now."""
        self.began = time.monotonic()
        self.steps, self.warmup, self.planned = steps, min(warmup, max(1, steps // 4)), steps
        self.end = self.began + deadline - reserve
        self._mark: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def factor(self, step: int) -> float:
        """Of the peak learning rate: a straight rise, then half a cosine down to 1 %."""
        rise = min(1.0, (step + 1) / self.warmup)
        return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def fit(self, done: int) -> None:
        """After `done` steps, whose work is finished: as many steps in all as fit until the deadline."""
        now = time.monotonic()
        if self._mark is None or done <= self._mark[0]:
            self._mark = done, now
            return
        each = (now - self._mark[1]) / (done - self._mark[0])
        fits = done + max(0.0, self.end - now) / max(each, 1e-6)
        self.steps = max(done, min(self.planned, int(done + 0.98 * (fits - done))))
        if done - self._mark[0] >= 200:  # from here on, go by the recent speed
            self._mark = done, now

    def over(self, done: int) -> bool:
        return done >= self.steps or time.monotonic() >= self.end


def write_atomically(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> None:
    """A safetensors file that is there whole or not at all."""
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    part = path.with_suffix(".tmp")
    save_file(whole, part, dict(facts or {}))
    os.replace(part, path)


def say(row: dict) -> None:
    """A line of JSON on stdout."""
    print(json.dumps(row), flush=True)


def write_report(path: Path, report: dict) -> None:
    """A JSON file that is there whole or not at all."""
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(part, path)


def checkpoint(
    path: Path, step: int, log: list, params: list[nn.Parameter], extra: list[Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Everything that a run needs to go on after `step` steps; `extra` are tensors that follow the parameters."""
    tensors = {f"extra{i}": t for i, t in enumerate(extra)}
    for i, p in enumerate(params):
        state = optimizer.state[p]  # empty where nothing has asked for this parameter yet
        tensors |= {f"p{i}": p}
        tensors |= {f"{k}{i}": state.get(n, torch.zeros_like(p)) for k, n in MOMENTS}
    write_atomically(path, tensors, {"step": str(step), "log": json.dumps(log)})


def read_facts(path: Path) -> dict[str, str]:
    """What `write_atomically` was told to note in the file; nothing where there is none."""
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def resume(
    path: Path, params: list[nn.Parameter], extra: list[Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, list]:
    """Put a checkpoint back; steps done and log, (0, []) where there is none."""
    facts = read_facts(path)
    if not facts:
        return 0, []
    step, log = int(facts["step"]), json.loads(facts["log"])
    with safe_open(path, "pt") as file, torch.no_grad():
        for i, t in enumerate(extra):
            t.copy_(file.get_tensor(f"extra{i}"))
        for i, p in enumerate(params):
            p.copy_(file.get_tensor(f"p{i}"))
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                **{n: file.get_tensor(f"{k}{i}").to(p.device) for k, n in MOMENTS},
            }
    return step, log
