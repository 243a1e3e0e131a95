"""The bank's noises as pictures elsewhere carry them: drawn anew for every picture, where the bank has one of each.

Prototypes that are fitted to the bank alone know its grain, one pixel of a 320-pixel picture, and no other. Here size,
strength, grain, channels and shape are drawn, and a light JPEG may follow. Severities stay named points.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from imc_lite.errors import ImcError, shown
from imc_lite.images.grey import is_grey
from imc_lite.images.resize import resize_picture, resize_planes, shrink_planes, size_filling, size_within
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.image_bank import enlarged, polynomial, shaded
from imc_lite.noise.image_further import disk, wave
from imc_lite.noise.planes import IMAGE_NOISE, REFERENCE, as_picture, as_planes, convolve, grid

SIDES = 224, 900  # pixels of the longer side
AS_THE_BANK = 0.25  # share of pictures whose noise is the bank's own, at the size that was drawn
STRENGTH = 0.2  # levels are drawn within so much of the severity's, on a log scale
OWN_FIELDS = 0.5  # share of grey pictures whose channels get a field each, as libraries for colour pictures do
COMPRESSED, QUALITY = 0.25, (75, 96)  # share of pictures that are JPEG files afterwards
STRONGEST = 0.5  # deviation of a field before it is averaged: stronger ones are black and white

Draw = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def apply_as_met(image: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """A noisy copy of a picture, of a size and with noise of a shape that are drawn.

    Args:
        image: uint8 [H, W, 3].
        kind: "clean", or one of `IMAGE_KINDS` or `FURTHER_KINDS`.
        severity: 1 (mild) to 5 (severe), 0 for clean: how strong the noise is where the longer side has 320 pixels.
        seed: any non-negative integer; every kind and severity draws for itself.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ImcError: unknown kind, or no such severity.
    """
    if kind not in ("clean", *DRAWN):
        raise ImcError(f"unknown image noise {shown(kind)!r}: choose clean or one of {', '.join(DRAWN)}")
    level = 0.0 if kind == "clean" else IMAGE_NOISE.find(kind).level(severity)
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), severity])
    met = resize_picture(image, size_filling(image.shape, between(*SIDES, rng)))
    if kind != "clean" and rng.random() < AS_THE_BANK:
        met = apply_to_image(met, kind, severity, int(rng.integers(2**31)))
    elif kind != "clean":
        level *= float(np.exp(rng.uniform(-STRENGTH, STRENGTH)))
        shared = is_grey(met) and rng.random() >= OWN_FIELDS
        planes = (met[..., :1] if shared else met).astype(np.float64) / 255
        noisy = np.rint(255 * np.clip(DRAWN[kind](planes, level, rng), 0, 1))
        met = np.ascontiguousarray(np.broadcast_to(noisy, met.shape), np.uint8)
    return _compressed(met, int(rng.integers(*QUALITY))) if rng.random() < COMPRESSED else met


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """Read back from a JPEG file; a grey picture from a grey one."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if is_grey(image) else image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _gaussian(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes + _field(planes, level, rng)


def _speckle(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes * (1 + _field(planes, level, rng))


def _impulse(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Of any grain; salt alone, pepper alone, or both; in all channels at once or in each by itself."""
    height, width = _grain(planes, rng)
    draw = rng.random((height, width, planes.shape[2] if rng.random() < 0.5 else 1))
    if draw.shape[:2] != planes.shape[:2]:
        draw = resize_planes(draw, planes.shape[:2], Image.Resampling.NEAREST)
    black = rng.choice([0.5, 0.5, 0.0, 1.0]) * level
    return np.where(draw < black, 0.0, np.where(draw > 1 - (level - black), 1.0, planes))


def _motion_blur(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Along a line or an arc, at an even pace or a changing one."""
    length, angle = level * max(planes.shape[:2]) / REFERENCE, rng.uniform(0, 2 * np.pi)
    bend, hurry = rng.uniform(-1, 1), rng.uniform(0, 2)
    t = np.linspace(-0.5, 0.5, 8 * int(np.ceil(length)) + 9)
    heading = angle + bend * t
    x, y = (np.cumsum(way) * length / len(t) for way in (np.cos(heading), np.sin(heading)))
    x, y = x - (x.max() + x.min()) / 2, y - (y.max() + y.min()) / 2
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.histogram2d(y, x, bins=2 * reach + 1, range=[[-reach - 0.5, reach + 0.5]] * 2,
                            weights=np.exp(-hurry * (t + 0.5)))[0]  # fmt: skip
    return convolve(planes, kernel / kernel.sum())


def _bias_field(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """A polynomial of order two to four, or a bright spot with a soft edge."""
    if rng.random() < 0.25:
        y, x = (np.linspace(-1, 1, n) for n in planes.shape[:2])
        near = np.hypot(*np.meshgrid(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)))
        log = rng.choice([-1.0, 1.0]) * np.exp(-((near / rng.uniform(0.5, 1.5)) ** 2))
    else:
        log = polynomial(planes.shape[:2], int(rng.integers(2, 5)), rng)
    return shaded(planes, log, level)


def _low_contrast(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Towards the picture's mean, towards a grey, or with each channel towards its own mean."""
    mean = planes.mean((0, 1), keepdims=True)
    towards = [mean, np.full_like(mean, mean.mean()), np.full_like(mean, rng.uniform(0.2, 0.8))][rng.integers(3)]
    return (planes - towards) * level + towards


def _pixelation(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Fewer pixels, by averaging or by leaving out, and back by blocks or smoothly."""
    height, width = (max(1, round(n * level)) for n in grid(planes))
    down = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.NEAREST)[rng.choice(3, p=[0.6, 0.3, 0.1])]
    up = (Image.Resampling.NEAREST, Image.Resampling.BOX)[rng.integers(2)]
    coarse = resize_planes(planes, (height, width), down)
    return resize_planes(coarse, planes.shape[:2], up)


def _defocus(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """By a lens, or by a Gaussian kernel about as wide."""
    kernel = disk(planes, level)
    if rng.random() >= 0.5:
        deviation = max(0.5, level * max(planes.shape[:2]) / REFERENCE) / 2
        reach = int(np.ceil(3 * deviation))
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        kernel = np.exp(-(x * x + y * y) / (2 * deviation**2))
        kernel /= kernel.sum()
    return convolve(planes, kernel)


def _jpeg(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Blocks of eight pixels, each between one of the picture and one of the reference."""
    size = _grain(planes, rng) if rng.random() < 0.7 else planes.shape[:2]
    whole = size == planes.shape[:2]
    small = np.clip(planes if whole else shrink_planes(planes.astype(np.float32), size), 0, 1)
    buffer = io.BytesIO()
    as_picture(small).save(buffer, "JPEG", quality=int(np.clip(round(level), 2, 40)))
    error = as_planes(Image.open(buffer)) - small
    return planes + (error if whole else resize_planes(error, planes.shape[:2], Image.Resampling.BILINEAR))


def _spike(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """One wave or two, as fine as the pixels hold, each channel with a strength of its own."""
    finest = planes.shape[:2] if rng.random() < 0.5 else grid(planes)
    count = int(rng.integers(1, 3))
    waves = np.mean([wave(planes.shape[:2], finest, rng) for _ in range(count)], 0)[..., None]
    strength = planes.mean((0, 1)) if rng.random() < 0.5 else planes.mean()
    return planes + level * strength * waves


def _grain(planes: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in grains, each between a pixel of the picture and one of the reference."""
    return size_within(planes.shape, between(max(grid(planes)), max(planes.shape[:2]), rng))


def between(low: int, high: int, rng: np.random.Generator) -> int:
    """A whole number, even on a log scale."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _field(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Normal noise, the shape of `planes`, whose deviation is `level` where it is averaged over reference pixels."""
    coarsest = max(grid(planes))
    height, width = _grain(planes, rng)
    finest = max(coarsest, round(coarsest * STRONGEST / level))
    if max(height, width) > finest:
        height, width = size_within((height, width), finest)
    grain = rng.standard_normal((height, width, planes.shape[2])) * (level * max(1.0, max(height, width) / coarsest))
    return enlarged(grain, planes.shape[:2])


DRAWN: dict[str, Draw] = {
    "gaussian": _gaussian,
    "speckle": _speckle,
    "impulse": _impulse,
    "motion_blur": _motion_blur,
    "bias_field": _bias_field,
    "low_contrast": _low_contrast,
    "pixelation": _pixelation,
    "defocus": _defocus,
    "jpeg": _jpeg,
    "spike": _spike,
}
"""How each kind that has a remedy is drawn: planes, float64 [H, W, C] within 0-1; level; generator."""
