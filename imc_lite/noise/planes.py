"""What functions of image noise share: their registry, the reference size, and convolution.

A function takes planes, float64 [H, W, C] within 0-1 with C one (grey) or three, the level, and a seeded generator,
and returns planes of the same size, which may lie outside 0-1. Lengths are in pixels of a picture whose longer side
has `REFERENCE`; a larger picture gets proportionally coarser grain and longer blurs, so that a severity means the
same at every size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from imc_lite.images.resize import size_within
from imc_lite.noise.registry import Registry

ImageFunction = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
IMAGE_NOISE: Registry[ImageFunction] = Registry("image")
# Levels are defined at this size. It is the default encoder's too, by choice, but noise knows of no encoder: with
# another one a severity has to mean the same.
REFERENCE = 320


def scale(planes: np.ndarray) -> float:
    """Pixels of this picture per pixel of the reference; at least 1, since a small picture cannot hold finer grain."""
    return max(1.0, max(planes.shape[:2]) / REFERENCE)


def grid(planes: np.ndarray) -> tuple[int, int]:
    """Height and width in pixels of the reference."""
    return size_within(planes.shape, REFERENCE)


def convolve(planes: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Same-size convolution with a square kernel of odd side, edges replicated, by FFT."""
    reach = kernel.shape[0] // 2
    padded = np.pad(planes, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, s=shape)[..., None]
    full = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    return full[2 * reach :, 2 * reach :] if reach else full


def as_picture(planes: np.ndarray) -> Image.Image:
    """Planes as an 8-bit Pillow picture, grey or RGB, for what only Pillow does."""
    pixels = np.rint(np.clip(planes, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def as_planes(picture: Image.Image) -> np.ndarray:
    """The way back: float64 [H, W, C] within 0-1."""
    pixels = np.asarray(picture, np.float64) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels
