"""Resizing, for all who need it: pictures as uint8, planes as floats, and the size that fits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imc_lite.images.grey import is_grey


def resize_picture(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at another size, by bicubic interpolation.

    A much larger picture is first reduced by averaging whole pixels, to twice the size wanted at least, which is
    many times faster (Pillow's `reducing_gap`).

    Args:
        image: uint8 [H, W, 3].
        size: height and width.

    Returns:
        uint8 [*size, 3].
    """
    grey = is_grey(image)
    picture = Image.fromarray(image[..., 0] if grey else image)
    resized = np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=2.0))
    return np.ascontiguousarray(np.broadcast_to(resized[..., None], (*size, 3))) if grey else resized


def resize_planes(planes: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """Planes at another size, each by itself and in float32.

    Args:
        planes: float [H, W, C].
        size: height and width.
        method: of Pillow.

    Returns:
        [*size, C], of the same dtype.
    """
    layers = [Image.fromarray(planes[..., c].astype(np.float32)) for c in range(planes.shape[2])]
    return np.stack([np.asarray(layer.resize(size[::-1], method)) for layer in layers], 2).astype(planes.dtype)


def shrink_planes(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Planes, float [H, W, C], at a smaller size: each new pixel is the mean of what it covers."""
    return planes if planes.shape[:2] == size else resize_planes(planes, size, Image.Resampling.BOX)


def size_within(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of a picture of this shape [H, W, …] once its longer side is at most `side`; a smaller picture
    keeps its size."""
    scale = max(1.0, max(shape[:2]) / side)
    return max(1, round(shape[0] / scale)), max(1, round(shape[1] / scale))


def size_filling(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of a picture of this shape [H, W, …] once its longer side is exactly `side`."""
    longest = max(shape[:2])
    # Not the formula above: that one rounds a few sizes otherwise, and what the encoder is shown is fixed.
    return max(1, round(shape[0] * side / longest)), max(1, round(shape[1] * side / longest))
