"""Percentile bootstrap over pictures: questions about one picture are not independent (Efron & Tibshirani 1993)."""

from __future__ import annotations

import numpy as np

DRAWS = 2000


def interval(hits: np.ndarray, owners: np.ndarray, rng: np.random.Generator, draws: int = DRAWS) -> list[float]:
    """95 % percentile interval of mean(hits), resampling the owners (pictures).

    Args:
        hits: float [Q].
        owners: int [Q], the picture of each.
        rng: draws the samples.
        draws: number of samples.
    """
    sums = np.bincount(owners, hits)
    counts = np.bincount(owners)
    keep = counts > 0
    sums, counts = sums[keep], counts[keep]
    picks = rng.integers(len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    return percentiles(means)


def percentiles(values: np.ndarray) -> list[float]:
    """The middle 95 %, rounded to four places; samples that hold no question are left out."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return [0.0, 0.0]
    return [round(float(v), 4) for v in np.percentile(kept, (2.5, 97.5))]


class Bootstrap:
    """One set of resampled pictures for every figure of a run, so that all differences are paired."""

    def __init__(self, pictures: int, seed: int, draws: int = DRAWS) -> None:
        """`pictures` in all; the same seed draws the same samples."""
        picks = np.random.default_rng(seed).integers(pictures, size=(draws, pictures))
        self.weights = np.stack([np.bincount(row, minlength=pictures) for row in picks]).astype(np.float64)

    def means(self, hits: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Mean of hits float [Q] in every sample, float64 [draws]; NaN where a sample holds no question."""
        size = self.weights.shape[1]
        counts = self.weights @ np.bincount(owners, minlength=size)
        sums = self.weights @ np.bincount(owners, hits, minlength=size)
        with np.errstate(invalid="ignore"):
            return sums / counts
