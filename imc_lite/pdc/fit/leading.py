"""Towers whose tokens are wide: maps are fitted in the leading directions, so that time does not grow with the cube.

Where several projectors take what the tower gives, their tokens stand side by side: those of Qwen3-VL are four times as
wide as its tower. A map moves tokens along few directions, and ridge regression hardly trusts the narrow ones, so the
widest of them are enough to find it in.
"""

from __future__ import annotations

import numpy as np

COLUMNS = 1280  # that maps are fitted in: those of the default encoder, and more than most towers have
SAMPLE = 4096  # tokens that the directions are found from


def leading_directions(tokens: np.ndarray, seed: int) -> np.ndarray | None:
    """The directions in which tokens vary most, float32 [D, 1280], orthonormal; None where there are no more anyway.

    Args:
        tokens: float16 [P, V, N, D], of pictures under every condition.
        seed: of the sample that is looked at, of which every picture and condition is given the same share.
    """
    pictures, conditions, count, width = tokens.shape
    if width <= COLUMNS:
        return None
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(SAMPLE) % size for size in (pictures, conditions, count)]
    sample = np.stack([tokens[where] for where in zip(*drawn, strict=True)]).astype(np.float32)
    # Fewer tokens than columns: their products hold the same directions. The mean is one of them, as maps shift it.
    mixed = np.linalg.eigh(sample @ sample.T)[1][:, -COLUMNS:]
    return np.linalg.qr(sample.T @ mixed)[0]
