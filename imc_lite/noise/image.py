"""Noise on pictures: `apply_to_image`, for every kind that is registered in `IMAGE_NOISE`."""

from __future__ import annotations

import zlib

import numpy as np

from imc_lite.images.arrays import check_array
from imc_lite.images.grey import is_grey

# Importing them registers their kinds, which are listed in this order.
# isort: off
from imc_lite.noise import image_bank, image_further, image_unseen, artefacts  # noqa: F401

# isort: on
from imc_lite.noise.planes import IMAGE_NOISE
from imc_lite.noise.registry import check_seed

IMAGE_KINDS = IMAGE_NOISE.names("bank")
FURTHER_KINDS = IMAGE_NOISE.names("further")


def apply_to_image(image: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """A noisy copy of a picture; the same arguments give the same pixels.

    A colour picture whose three channels are equal stays grey: a grey sensor has one noise.

    Args:
        image: uint8, or float within 0-1; [H, W] or [H, W, 3], any size.
        kind: one of `IMAGE_NOISE.names()`.
        severity: 1 (mild) to 5 (severe); out-of-distribution examples end at 3.
        seed: any non-negative integer.

    Returns:
        An array of the same shape and dtype.

    Raises:
        ImcError: unknown kind, no such severity or seed, or an array that is no picture.
    """
    noise = IMAGE_NOISE.find(kind)
    level = noise.level(severity)
    check_seed(seed)
    check_array(image)
    values = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    planes = values[..., None] if values.ndim == 2 else values
    if is_grey(planes):
        planes = planes[..., :1]
    # Severity stays out of the seed: the same grain, angle or place, only stronger.
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    noisy = np.clip(noise.function(planes, level, rng), 0, 1)
    noisy = np.broadcast_to(noisy, values.shape) if values.ndim == 3 else noisy[..., 0]
    return np.rint(noisy * 255).astype(np.uint8) if image.dtype == np.uint8 else noisy.astype(image.dtype)
