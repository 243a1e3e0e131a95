"""Artefacts that are in no bank and in no test: what "unknown" is learnt from.

A matcher that has only seen its own noises gives every strange picture the name of the nearest of them. Prototypes
of a few other artefacts take those pictures instead (outlier exposure, Hendrycks et al., arXiv 1812.04606).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

LEVELS: dict[str, tuple[float, float, float]] = {
    "gaussian_blur": (1.2, 2.2, 3.6),  # sigma in pixels of a picture whose longer side has 320
    "webp": (20, 6, 1),  # quality
    "ringing": (0.5, 0.33, 0.2),  # share of k-space kept along each axis
    "stripes": (0.04, 0.1, 0.22),  # deviation of a line's offset
}
FOREIGN = tuple((kind, level) for kind in LEVELS for level in range(3))
REFERENCE = 320


def spoil(image: np.ndarray, kind: str, level: int, seed: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [h, w, 3], longer side at most 320; `kind` of `LEVELS`, level 0-2."""
    picture = Image.fromarray(image)
    scale = max(1.0, max(picture.size) / REFERENCE)
    size = [max(1, round(edge / scale)) for edge in picture.size]
    small = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0) if scale > 1 else picture
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    return np.asarray(_MAKERS[kind](small, LEVELS[kind][level], rng).convert("RGB"))


def _gaussian_blur(picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(level))


def _webp(picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=int(level))
    return Image.open(buffer)


def _ringing(picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    planes = np.asarray(picture, np.float64)
    spectrum = np.fft.fft2(planes, axes=(0, 1))
    kept = [np.abs(np.fft.fftfreq(n)) <= level / 2 for n in planes.shape[:2]]
    cut = np.fft.ifft2(spectrum * np.outer(*kept)[..., None], axes=(0, 1)).real
    return Image.fromarray(np.rint(cut.clip(0, 255)).astype(np.uint8))


def _stripes(picture: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    planes = np.asarray(picture, np.float64)
    lines = 255 * level * rng.standard_normal((planes.shape[0], 1, 1))
    return Image.fromarray(np.rint((planes + lines).clip(0, 255)).astype(np.uint8))


_MAKERS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "gaussian_blur": _gaussian_blur,
    "webp": _webp,
    "ringing": _ringing,
    "stripes": _stripes,
}
