"""What training asks of the packaged templates: pairs at random, and classes of a blood film's counts."""

from __future__ import annotations

import numpy as np

from imc_lite.bench.templates import CELL, ask, truths


def image_questions(source: str, labels: dict, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` template pairs that the image's labels can answer, for any source."""
    truth = truths(source, labels)
    pairs = []
    for _ in range(count):
        kind = list(truth)[rng.integers(len(truth))]
        pairs.append(ask(kind, truth[kind], rng))
    return pairs


def cell_truths(boxes: list) -> dict[str, str]:
    """Classes of a blood film's counts, for the auxiliary heads."""
    number = {kind: sum(b[0] == kind for b in boxes) for kind in CELL}
    return {
        "wbc": str(min(number["wbc"], 2)),
        "platelets": str(min(number["platelets"], 2)),
        "rbc": str(int(np.searchsorted((3, 6, 10, 15), number["rbc"]))),
    }
