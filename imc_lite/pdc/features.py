"""Features of a picture, by which its noise is told: made of the encoder's statistics, moved by noise more than by
what the picture shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.models.default.spec import ENCODER

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM

QUADRANTS, TOKENS = "quadrants", "tokens"  # what an encoder's statistics are, and so how features are made of them


def noise_statistics(model: MLLM, image: np.ndarray) -> np.ndarray:
    """`Perception.stats` of an image, uint8 [H, W, 3] RGB, alone: sooner than by `perceive` where the model can."""
    # Of its class: one that hands on what it lacks to a model inside it may encode otherwise than that.
    alone: Callable[[MLLM, np.ndarray], np.ndarray] | None = getattr(type(model), "noise_statistics", None)
    return model.perceive(image).stats if alone is None else alone(model, image)


def features(stats: np.ndarray, statistics: str = QUADRANTS) -> np.ndarray:
    """Statistics of an encoder pass -> float64 features.

    Args:
        stats: float32 [..., S].
        statistics: "quadrants", the default encoder's moments by quadrant, [..., 1664] -> [..., 832]; or "tokens",
            means and deviations over the tokens of early hidden states, as many features as statistics, on the
            signed log scale of `imc_lite.kernels.match.reference.pool`.
    """
    if statistics == TOKENS:
        values = stats.astype(np.float64)
        return np.sign(values) * np.log1p(np.abs(values))
    return _of_quadrants(stats)


def _of_quadrants(stats: np.ndarray) -> np.ndarray:
    """Moments by quadrant float32 [..., 1664] -> float64 [..., 832].

    For each channel: mean, standard deviation, and the deviation of either between the quadrants, because a bias
    field that brightens one side and darkens the other leaves the mean as it is. All on a signed log scale, because
    channels differ by orders of magnitude.
    """
    parts, at = [], 0
    for channels in ENCODER.tap_channels:
        block = stats[..., at : at + 8 * channels].reshape(*stats.shape[:-1], 2, 4, channels).astype(np.float64)
        at += 8 * channels
        mean, square = block[..., 0, :, :], block[..., 1, :, :]
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        whole_mean, whole_square = _mean(mean), _mean(square)
        whole_spread = np.sqrt(np.maximum(whole_square - whole_mean**2, 0))
        parts += [whole_mean, whole_spread, _deviation(mean), _deviation(spread)]
    values = np.concatenate(parts, -1)
    return np.sign(values) * np.log1p(20 * np.abs(values))


# As NumPy's `mean` and `std`, to the last bit, without what these prepare on every call: the arrays are small.
def _mean(quadrants: np.ndarray) -> np.ndarray:
    """float64 [..., 4, C] -> [..., C]."""
    return np.add.reduce(quadrants, axis=-2) / 4


def _deviation(quadrants: np.ndarray) -> np.ndarray:
    """float64 [..., 4, C] -> [..., C]."""
    apart = quadrants - _mean(quadrants)[..., None, :]
    return np.sqrt(_mean(apart * apart))
