"""What functions of text noise share: their registry, and the record of what they damaged.

A function takes the words of a text, the level, and a seeded generator, and returns the places that it damages, in
any order and without overlap; none where it finds no word that it could damage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imc_lite.noise.registry import Registry


@dataclass(frozen=True)
class Edit:
    """One damaged place: words [start, stop) of the clean text became `damaged` ("" when dropped)."""

    start: int
    stop: int
    clean: str
    damaged: str


@dataclass(frozen=True)
class Damaged:
    """A damaged text and where it was damaged; words are what `str.split` gives of the clean text."""

    text: str
    edits: tuple[Edit, ...]


TextFunction = Callable[[list[str], float, np.random.Generator], list[Edit]]
TEXT_NOISE: Registry[TextFunction] = Registry("text")
SHARE = (0.10, 0.20, 0.30, 0.45, 0.60)
SHARE_MEASURE = "share of the words that it can damage, at least one"


def pick(eligible: list[int], share: float, rng: np.random.Generator) -> list[int]:
    """So large a share of these, at least one where there is any, in order."""
    if not eligible:
        return []
    count = max(1, round(share * len(eligible)))
    return sorted(int(i) for i in rng.choice(eligible, size=count, replace=False))
