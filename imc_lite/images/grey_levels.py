"""Numbers to grey levels, a few rows at a time: a hundred million pixels fit beside their picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1 << 20  # pixels


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that hold about `BLOCK` pixels each, for arrays [H, W, ...]."""
    step = max(1, BLOCK // max(1, shape[1]))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def extent(values: np.ndarray, leave_out: np.ndarray | None = None) -> tuple[float, float] | None:
    """Darkest and brightest value, infinities and what is not a number left out; None where nothing is left.

    Args:
        values: any numbers.
        leave_out: bool of the same shape, or without its last axis; True where a value does not count.
    """
    kept = values if leave_out is None else values[~leave_out]
    if kept.dtype.kind == "f":
        kept = kept[np.isfinite(kept)]
    return (float(kept.min()), float(kept.max())) if kept.size else None


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8: `low` becomes 0 and `high` 255; where both are one, what lies above is 255. Not a number becomes 0."""
    if high <= low:
        return np.where(values > high, np.uint8(255), np.uint8(0))
    with np.errstate(all="ignore"):
        grey = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.nan_to_num(np.clip(grey, 0, 255))).astype(np.uint8)


def stretch(values: np.ndarray, leave_out: np.ndarray | None = None) -> np.ndarray | None:
    """Grey [H, W] or colour [H, W, C] as uint8 from its darkest to its brightest value; None without a number in it.

    Args:
        values: any numbers.
        leave_out: bool [H, W], True where a pixel does not count.
    """
    blocks = [(rows, None if leave_out is None else leave_out[rows]) for rows in row_blocks(values.shape)]
    found = [e for rows, left_out in blocks if (e := extent(values[rows], left_out))]
    if not found:
        return None
    low, high = min(e[0] for e in found), max(e[1] for e in found)
    grey = np.empty(values.shape, np.uint8)
    for rows, _ in blocks:
        grey[rows] = scale(values[rows], low, high)
    return grey
