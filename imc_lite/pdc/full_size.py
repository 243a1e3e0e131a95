"""Pixel restoration at a picture's own size, for models that are shown pixels and look closer than the restorers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imc_lite.images.grey import is_grey
from imc_lite.images.resize import resize_planes, shrink_planes
from imc_lite.pdc.features import QUADRANTS
from imc_lite.pdc.restorers import restore, stretch
from imc_lite.pdc.waves import remove_waves

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM

UNIVERSAL = 5.0  # deviations: the root of 2 ln N for N of 270,000 pixels


def restore_for(model: MLLM, image: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """A picture, uint8 [H, W, 3], without its noise, for an encoder: the default one sees 320 pixels and no more, so it
    is given what `restore` gives; others may look closer.

    Raises:
        ImcError: there is no restorer for this kind, or no such severity.
    """
    way = restore if model.statistics == QUADRANTS else restore_full_size
    return way(image, kind, severity)


def restore_full_size(image: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """A picture of its own size without its noise. One whose longer side is at most 320 is that of `restore`.

    A larger one is that, enlarged, with the detail finer than 320 pixels that the noise has left.

    Args:
        image: uint8 [H, W, 3].
        kind: one of `imc_lite.pdc.restorers.RESTORERS`.
        severity: 1-5, as found.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ImcError: there is no restorer for this kind, or no such severity.
    """
    restored = restore(image, kind, severity)
    if restored.shape == image.shape:
        return restored
    # Grey pictures stay grey, and cost a third.
    channels = 1 if is_grey(image) else 3
    full, small = image[..., :channels].astype(np.float32), restored[..., :channels].astype(np.float32)
    planes = CARRIED[kind](full, small)
    return np.ascontiguousarray(np.broadcast_to(np.rint(planes).clip(0, 255), image.shape), np.uint8)


def _gaussian(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    base = _enlarge(restored, full)
    return base + _above_noise(_detail(full, restored), np.float32(1))


def _speckle(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    base = _enlarge(restored, full)
    return base + _above_noise(_detail(full, restored), np.maximum(base, 4))


def _detail(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """What is finer than the pixels of the small picture."""
    return full - _enlarge(shrink_planes(full, restored.shape[:2]), full)


def _above_noise(detail: np.ndarray, scale: np.ndarray | np.float32) -> np.ndarray:
    """Detail that noise does not reach: beyond about the universal threshold of a large picture (Donoho & Johnstone
    1994, https://doi.org/10.1093/biomet/81.3.425); the noise's deviation, a multiple of `scale`, is taken from its
    median."""
    limit = UNIVERSAL * np.median(np.abs(detail) / scale) / 0.6745 * scale
    return np.where(np.abs(detail) > limit, detail, 0)


def _impulse(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Only pixels that are black or white are filled."""
    return np.where((full > 0) & (full < 255), full, _enlarge(restored, full))


def _low_contrast(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    mean, gain = stretch(shrink_planes(full, restored.shape[:2]))
    return (full - mean) * gain + mean


def _enlarge(planes: np.ndarray, full: np.ndarray) -> np.ndarray:
    return resize_planes(planes, full.shape[:2], Image.Resampling.BICUBIC)


def _pixelation(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """There is no detail finer than the blocks."""
    return _enlarge(restored, full)


def _spike(full: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Waves are taken away at any size; only where they were cut off is the rest needed."""
    planes, inside = remove_waves(full)
    return np.where(inside, planes, _enlarge(restored, full))


CARRIED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "gaussian": _gaussian,
    "speckle": _speckle,
    "impulse": _impulse,
    "low_contrast": _low_contrast,
    "pixelation": _pixelation,
    "spike": _spike,
}
"""How restoration is carried over; full and restored planes, float32 [H, W, C]."""
