"""Image noises that prototypes and remedies are built for beside those of the benchmark, which keeps to its seven.

Their order is that of the prototypes: new ones go last. `spike` is told by the pixels (`imc_lite.pdc.waves`) and has no
prototypes.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from imc_lite.images.resize import resize_planes
from imc_lite.noise.image_bank import IMAGENET_C
from imc_lite.noise.planes import IMAGE_NOISE, REFERENCE, as_picture, as_planes, convolve, grid

SLOWEST = 16  # waves across a picture; of slower ones most are as broad as what the picture shows


@IMAGE_NOISE.register(
    "defocus",
    "further",
    levels=(1.5, 2.2, 3.0, 4.0, 5.0),
    measure="radius of a disk in pixels",
    source=IMAGENET_C,
    differs="radii for 320 pixels",
)
def _defocus(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return convolve(planes, disk(planes, level))


@IMAGE_NOISE.register(
    "jpeg",
    "further",
    levels=(25, 18, 15, 10, 7),
    measure="quality",
    source=IMAGENET_C,
    differs="same values; blocks of 8 pixels of the reference size",
)
def _jpeg(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return compressed(planes, int(level))


@IMAGE_NOISE.register(
    "spike",
    "further",
    levels=(0.15, 0.25, 0.40, 0.65, 1.00),
    measure="what is added to one point of k-space, as a share of the largest value there",
    source="TorchIO RandomSpike, arXiv 2003.04696",
    differs="a point that 320 pixels hold, at least 16 waves a picture from the centre; with a phase",
)
def _spike(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes + level * planes.mean() * wave(planes.shape[:2], grid(planes), rng)[..., None]


def disk(planes: np.ndarray, level: float) -> np.ndarray:
    """The kernel of a lens out of focus, whose radius is `level` pixels of the reference: float64 [n, n], sum 1."""
    radius = max(0.5, level * max(planes.shape[:2]) / REFERENCE)
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return kernel / kernel.sum()


def compressed(planes: np.ndarray, quality: int) -> np.ndarray:
    """Compressed at the reference size, and the error scaled up, so that large pictures show the same blocks."""
    small, buffer = np.clip(resize_planes(planes, grid(planes), Image.Resampling.BOX), 0, 1), io.BytesIO()
    as_picture(small).save(buffer, "JPEG", quality=quality)
    error = as_planes(Image.open(buffer)) - small
    return planes + resize_planes(error, planes.shape[:2], Image.Resampling.BILINEAR)


def wave(size: tuple[int, int], finest: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A cosine over a picture of this size, float64 [H, W], of any frequency that so many pixels hold."""
    height, width = finest
    down, across = rng.uniform(-height / 2, height / 2), rng.uniform(0, width / 2)
    slowest = min(SLOWEST, max(finest) / 4)
    if (length := np.hypot(down, across)) < slowest:
        down, across = (n * slowest / max(length, 1e-9) for n in (down, across))
    y, x = (2 * np.pi * n * np.arange(m) / m for n, m in zip((down, across), size, strict=True))
    return np.cos(y[:, None] + x + rng.uniform(0, 2 * np.pi))
