"""What the encoder learns to tell: targets of a view, heads that are thrown away afterwards, and their losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sets import Row
from templates import cell_truths
from torch import Tensor, nn

from imc_lite.bench.findings import CHILD, RANGES, TUMOUR, facts
from imc_lite.bench.templates import PLANES, truths
from imc_lite.models.default.spec import ENCODER

CLASSES: dict[str, tuple[str, ...]] = {
    "kind": ("ct", "mri", "x-ray", "microscopy", "dermoscopy", "photograph"),
    "organ": ("head", "chest", "abdomen", "blood", "skin", "foot", "cells"),
    "plane": PLANES,
    "projection": ("ap", "pa"),
    "child": tuple(CHILD.values()),
    "nih": ("normal", "pneumonia"),
    "tumour": tuple(TUMOUR.values()),
    "lesion": ("nevus", "melanoma"),
    "ulcer": ("no ulcer", "ulcer"),
    "height": ("upper", "lower"),
    "side": ("left", "right"),
    "size": ("small", "large"),
    "nuclei": RANGES,
    "stain": ("fluorescence", "stained", "brightfield"),
    "wbc": ("0", "1", "2"),
    "platelets": ("0", "1", "2"),
    "rbc": ("0", "1", "2", "3", "4"),
}
AMOUNTS = ("x", "y", "area", "count")  # all near 0 to 1
TASKS = (*CLASSES, *AMOUNTS)
# Where in the picture, or how many: read from the tokens in their places, not from their mean.
PLACED = ("height", "side", "size", "nuclei", "wbc", "platelets", "rbc", *AMOUNTS)
WEIGHTS = {"kind": 0.5, "organ": 0.5, "plane": 0.3, "projection": 0.5, "ulcer": 0.3, "side": 0.7, "size": 0.7}
WEIGHTS |= {"stain": 0.5, "wbc": 0.3, "platelets": 0.4, "rbc": 0.4, "area": 2.0, "count": 3.0, "x": 3.0, "y": 3.0}
# NIH labels are read from reports by a program and wrong in perhaps one of ten.
SMOOTHING = {"nih": 0.15}
FEWEST = 6  # rows that a task's mean is taken over at least, so that a lone row does not shout


def targets(source: str, labels: Mapping) -> dict[str, str | float]:
    """What is to be told about a view with these labels (`views.view_labels`), by task."""
    found: dict[str, str | float] = dict(facts(source, labels))
    if source in ("vqa_rad", "hannover_cxr"):
        known = truths(source, dict(labels))
        found |= {k: known[k] for k in ("plane", "projection") if k in known}
    pneumonia, cause = found.pop("pneumonia", None), found.pop("cause", None)
    if source == "child_cxr":
        found["child"] = str(cause)
    if source == "nih_cxr":
        found["nih"] = str(pneumonia)
    if source == "bccd":
        found |= cell_truths(labels["cells"])
    if labels.get("x") is not None:
        found |= {"x": labels["x"], "y": labels["y"], "area": (np.log(max(labels["area"], 1e-4)) + 9.2) / 9.2}
    if source == "nuclei":
        found["count"] = np.log1p(labels["count"]) / 6
    return found


def as_arrays(wanted: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Targets of a batch: int64 [B, tasks] with -1, and float32 [B, amounts] with NaN, for what is not said."""
    classes = [[CLASSES[t].index(w[t]) if t in w else -1 for t in CLASSES] for w in wanted]
    amounts = [[w.get(t, np.nan) for t in AMOUNTS] for w in wanted]
    return np.array(classes, np.int64), np.array(amounts, np.float32)


def class_weights(rows: Sequence[Row], order: np.ndarray) -> dict[str, list[float]]:
    """Weights that make the classes of a task count alike over the pictures in this order."""
    counts: dict[str, Counter] = {task: Counter() for task in CLASSES}
    for index, times in Counter(order.tolist()).items():
        row = rows[index]
        labels = {**row.labels, "cells": [(b[0],) for b in row.labels.get("boxes", ())]}
        for task, value in targets(row.source, labels).items():
            if task in CLASSES:
                counts[task][value] += times
    weights = {}
    for task, values in CLASSES.items():
        shares = np.array([max(counts[task][v], 1) for v in values], np.float64)
        weights[task] = np.clip(shares.mean() / shares, 0.2, 3.0).tolist()
    return weights


class Heads(nn.Module):
    """Tokens [B, 25, 1280] -> an output for every task; only there to teach the encoder."""

    def __init__(self, weights: Mapping[str, Sequence[float]], dropout: float = 0.2) -> None:
        super().__init__()
        near = 32
        self.place = nn.Linear(ENCODER.width, near)
        self.dropout = nn.Dropout(dropout)
        sizes = {task: len(values) for task, values in CLASSES.items()} | dict.fromkeys(AMOUNTS, 1)
        inputs = {False: 2 * ENCODER.width, True: 2 * ENCODER.width + ENCODER.tokens * near}
        self.out = nn.ModuleDict({task: nn.Linear(inputs[task in PLACED], n) for task, n in sizes.items()})
        for task in AMOUNTS:
            nn.init.constant_(self.out[task].bias, 0.5)
        for task, values in weights.items():
            self.register_buffer(f"weights_{task}", torch.tensor(values, dtype=torch.float32))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        tokens = tokens.float()
        # Brought to one scale without learning anything, so that no head's first steps are too long.
        pooled = torch.cat([F.layer_norm(part, part.shape[1:]) for part in (tokens.mean(1), tokens.amax(1))], 1)
        placed = torch.cat([pooled, F.gelu(self.place(tokens)).flatten(1)], 1)
        pooled, placed = self.dropout(pooled), self.dropout(placed)
        return {task: head(placed if task in PLACED else pooled) for task, head in self.out.items()}

    def loss(self, outputs: Mapping[str, Tensor], classes: Tensor, amounts: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum over the tasks, and of each task the summed loss and the rows, float32 [tasks, 2].

        Args:
            outputs: of `forward`.
            classes: int64 [B, tasks], -1 where a task says nothing about a view (`as_arrays`).
            amounts: float32 [B, amounts], NaN likewise.
        """
        total, parts = torch.zeros((), device=classes.device), []
        for i, task in enumerate(CLASSES):
            said, truth = classes[:, i] >= 0, classes[:, i].clamp(min=0)
            smooth, weight = SMOOTHING.get(task, 0.05), getattr(self, f"weights_{task}")
            losses = F.cross_entropy(outputs[task], truth, reduction="none", label_smoothing=smooth) * weight[truth]
            parts.append(torch.stack([(losses * said).sum(), said.sum()]))
        for i, task in enumerate(AMOUNTS):
            said = ~amounts[:, i].isnan()
            losses = F.smooth_l1_loss(outputs[task][:, 0], amounts[:, i].nan_to_num(), reduction="none", beta=0.1)
            parts.append(torch.stack([(losses * said).sum(), said.sum()]))
        for task, part in zip(TASKS, parts, strict=True):
            total = total + WEIGHTS.get(task, 1.0) * part[0] / part[1].clamp(min=FEWEST)
        return total, torch.stack(parts).detach()
