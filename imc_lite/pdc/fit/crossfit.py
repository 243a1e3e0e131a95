"""What all fits share: folds, so that a limit is set on pictures that were not fitted on, and two thresholds."""

from __future__ import annotations

import numpy as np

FOLDS = 4
# Standard deviation of a feature below which it is left out: channels that never fire, or always fully. What little
# they show is rounding, which is another on every processor.
STILL = 1e-3
CLEAN_KEPT = 0.985  # share of clean pictures that must still be called clean where they were not fitted on


def draw_folds(count: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of each of so many pictures, integers [count] below `FOLDS`, as even as they can be."""
    return rng.permutation(count) % FOLDS
