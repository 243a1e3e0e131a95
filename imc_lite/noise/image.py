"""Image noise: seven kinds that prototypes are built for, and four unseen ones for tests.

Values are on a 0-1 scale, lengths in pixels of a picture whose longer side has 320 (larger pictures get
proportionally coarser grain and longer blurs, so that a severity means the same at every size).

| kind | severity 1-5 | source, and how this differs |
|---|---|---|
| gaussian | sigma .08 .12 .18 .26 .38 | ImageNet-C, arXiv 1903.12261; the same values |
| speckle | sigma .15 .20 .35 .45 .60, times the pixel | ImageNet-C (extra); the same values |
| impulse | share .03 .06 .09 .17 .27, half black, half white | ImageNet-C; the same values |
| motion_blur | length 7 11 15 20 26, any direction | MedMNIST-C, arXiv 2406.17536; a uniform line kernel |
| bias_field | RMS of the log field .12 .20 .30 .45 .60 | TorchIO RandomBiasField (order 3); scaled to a fixed RMS |
| low_contrast | factor .40 .30 .20 .10 .05 around the mean | ImageNet-C; the same values |
| pixelation | scale .60 .50 .40 .30 .25, box filter | ImageNet-C; the same values |
| jpeg | quality 25 18 15 10 7 | ImageNet-C; the same values |
| ghosting | weight .25 .40 .55 .75 1.0 of every 4th to 8th k-space line | TorchIO RandomGhosting |
| occlusion | area .05 .10 .15 .22 .30, one grey rectangle | DeVries & Taylor, arXiv 1708.04552 |
| defocus | disk radius 1.5 2.2 3.0 4.0 5.0 | ImageNet-C; radii scaled to 320 pixels |
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from imc_lite.errors import ImcError

IMAGE_KINDS = ("gaussian", "speckle", "impulse", "motion_blur", "bias_field", "low_contrast", "pixelation")
UNSEEN_IMAGE_KINDS = ("jpeg", "ghosting", "occlusion", "defocus")
REFERENCE = 320

LEVELS: dict[str, tuple[float, ...]] = {
    "gaussian": (0.08, 0.12, 0.18, 0.26, 0.38),
    "speckle": (0.15, 0.20, 0.35, 0.45, 0.60),
    "impulse": (0.03, 0.06, 0.09, 0.17, 0.27),
    "motion_blur": (7, 11, 15, 20, 26),
    "bias_field": (0.12, 0.20, 0.30, 0.45, 0.60),
    "low_contrast": (0.40, 0.30, 0.20, 0.10, 0.05),
    "pixelation": (0.60, 0.50, 0.40, 0.30, 0.25),
    "jpeg": (25, 18, 15, 10, 7),
    "ghosting": (0.25, 0.40, 0.55, 0.75, 1.0),
    "occlusion": (0.05, 0.10, 0.15, 0.22, 0.30),
    "defocus": (1.5, 2.2, 3.0, 4.0, 5.0),
}


def apply(image: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """A noisy copy of a picture; the same arguments give the same pixels.

    A colour picture whose three channels are equal stays grey: a grey sensor has one noise.

    Args:
        image: uint8, or float within 0-1; [H, W] or [H, W, 3], any size.
        kind: one of `IMAGE_KINDS` or `UNSEEN_IMAGE_KINDS`.
        severity: 1 (mild) to 5 (severe).
        seed: any non-negative integer.

    Returns:
        An array of the same shape and dtype.

    Raises:
        ImcError: unknown kind, severity outside 1-5, or an array that is no picture.
    """
    if kind not in LEVELS:
        raise ImcError(f"unknown image noise {kind!r}: choose one of {', '.join(LEVELS)}")
    if severity not in range(1, 6):
        raise ImcError(f"severity {severity!r} is out of range: choose 1 (mild) to 5 (severe)")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise ImcError(f"a picture must be [H, W] or [H, W, 3], not {list(image.shape)}; convert it first")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ImcError(f"a picture must be uint8 or float within 0-1, not {image.dtype}; convert it first")
    values = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    planes = values[..., None] if values.ndim == 2 else values
    if planes.shape[2] == 3 and (planes[..., :1] == planes).all():
        planes = planes[..., :1]
    # Severity stays out of the seed: the same grain, angle or place, only stronger.
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    noisy = np.clip(_MAKERS[kind](planes, LEVELS[kind][severity - 1], rng), 0, 1)
    noisy = np.broadcast_to(noisy, values.shape) if values.ndim == 3 else noisy[..., 0]
    return np.rint(noisy * 255).astype(np.uint8) if image.dtype == np.uint8 else noisy.astype(image.dtype)


def _scale(planes: np.ndarray) -> float:
    """Pixels of this picture per pixel of the reference; small pictures are not made finer than they are."""
    return max(1.0, max(planes.shape[:2]) / REFERENCE)


def _grid(planes: np.ndarray) -> tuple[int, int]:
    scale = _scale(planes)
    return max(1, round(planes.shape[0] / scale)), max(1, round(planes.shape[1] / scale))


def _resize(planes: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """float [h, w, C] -> float [*size, C]."""
    layers = [
        np.asarray(Image.fromarray(planes[..., c].astype(np.float32)).resize(size[::-1], method))
        for c in range(planes.shape[2])
    ]
    return np.stack(layers, axis=2).astype(np.float64)


def _field(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit normal noise whose grain is one reference pixel, the shape of `planes`."""
    grain = rng.standard_normal((*_grid(planes), planes.shape[2]))
    if grain.shape == planes.shape:
        return grain
    field = _resize(grain, planes.shape[:2], Image.Resampling.BICUBIC)
    return field * (grain.std() / max(field.std(), 1e-9))  # interpolation takes some of the variance


def _gaussian(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes + level * _field(planes, rng)


def _speckle(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes * (1 + level * _field(planes, rng))


def _impulse(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    draw = rng.random((*_grid(planes), planes.shape[2]))
    if draw.shape != planes.shape:
        draw = _resize(draw, planes.shape[:2], Image.Resampling.NEAREST)
    return np.where(draw < level / 2, 0.0, np.where(draw > 1 - level / 2, 1.0, planes))


def _motion_blur(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    length, angle = level * max(planes.shape[:2]) / REFERENCE, rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for t in np.linspace(-length / 2, length / 2, 4 * reach):  # a line, shared out between its four neighbours
        x, y = reach + t * np.cos(angle), reach + t * np.sin(angle)
        x0, y0 = int(x), int(y)
        for dy, wy in ((0, 1 - (y - y0)), (1, y - y0)):
            for dx, wx in ((0, 1 - (x - x0)), (1, x - x0)):
                kernel[min(y0 + dy, 2 * reach), min(x0 + dx, 2 * reach)] += wy * wx
    return _convolve(planes, kernel / kernel.sum())


def _defocus(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    radius = max(0.5, level * max(planes.shape[:2]) / REFERENCE)
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return _convolve(planes, disk / disk.sum())


def _convolve(planes: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Same-size convolution with replicated edges, by FFT."""
    reach = kernel.shape[0] // 2
    padded = np.pad(planes, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, s=shape)[..., None]
    full = np.fft.irfft2(spectrum, s=shape, axes=(0, 1))
    return full[2 * reach :, 2 * reach :] if reach else full


def _bias_field(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    y, x = (np.linspace(-1, 1, n) for n in planes.shape[:2])
    log = np.zeros(planes.shape[:2])
    for i in range(4):
        for j in range(4 - i):
            if i + j:
                log += rng.uniform(-1, 1) * np.outer(y**i, x**j)
    log -= log.mean()
    spread = np.sqrt((log**2).mean())
    return planes * np.exp(log * (level / spread if spread > 1e-12 else 0))[..., None]


def _low_contrast(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    mean = planes.mean((0, 1), keepdims=True)
    return (planes - mean) * level + mean


def _pixelation(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    grid = _grid(planes)
    coarse = _resize(planes, tuple(max(1, round(n * level)) for n in grid), Image.Resampling.BOX)
    return _resize(_resize(coarse, grid, Image.Resampling.BOX), planes.shape[:2], Image.Resampling.BOX)


def _jpeg(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Compressed at the reference size and the error scaled up, so that large pictures show the same blocks."""
    small = np.clip(_resize(planes, _grid(planes), Image.Resampling.BOX), 0, 1)
    pixels = np.rint(small * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "JPEG", quality=int(level))
    coded = np.asarray(Image.open(buffer), np.float64).reshape(pixels.shape) / 255
    return planes + _resize(coded - small, planes.shape[:2], Image.Resampling.BILINEAR)


def _ghosting(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    ghosts = int(rng.integers(4, 9))
    spectrum = np.fft.fft(planes, axis=0)
    # Lines are counted from the centre of k-space, in cycles a picture, so that every size ghosts alike.
    line = np.abs(np.rint(np.fft.fftfreq(planes.shape[0]) * planes.shape[0]))
    hit = (line % ghosts == ghosts // 2) & (line > 1)  # the centre carries the brightness and is kept
    return np.fft.ifft(spectrum * np.where(hit, 1 - level, 1.0)[:, None, None], axis=0).real


def _occlusion(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = planes.shape[:2]
    aspect = rng.uniform(0.6, 1.6)
    h = max(1, min(height, round(np.sqrt(level * aspect) * height)))
    w = max(1, min(width, round(np.sqrt(level / aspect) * width)))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    covered = planes.copy()
    covered[top : top + h, left : left + w] = rng.uniform(0, 0.6)
    return covered


_MAKERS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian": _gaussian,
    "speckle": _speckle,
    "impulse": _impulse,
    "motion_blur": _motion_blur,
    "bias_field": _bias_field,
    "low_contrast": _low_contrast,
    "pixelation": _pixelation,
    "jpeg": _jpeg,
    "ghosting": _ghosting,
    "occlusion": _occlusion,
    "defocus": _defocus,
}
