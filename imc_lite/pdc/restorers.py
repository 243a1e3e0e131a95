"""Pixel restoration, matched to the noise that was found, for the kinds where it pays.

Calibration alone cannot bring back what the encoder never passed on; the pixels still hold it. Whether a restorer
pays is decided for each kind and severity when prototypes are built, on the encoder's own tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from imc_lite.errors import ImcError, shown
from imc_lite.images.grey import is_grey
from imc_lite.images.resize import resize_planes, shrink_planes, size_within
from imc_lite.noise.image import IMAGE_NOISE
from imc_lite.noise.planes import REFERENCE
from imc_lite.pdc.waves import shrink_without_waves

# Remedies are chosen for one version. A restorer that gives other pixels needs another, and prototypes fitted to it.
RESTORERS_VERSION = "3"
MAX_GAIN = 25.0
BLOCK, STRIDE = 8, 4  # of the sliding cosine transform
THRESHOLD = 2.4  # times the noise's deviation, in the first of two passes
COARSEST = 1.5  # times the finest detail's deviation
MIDDLE, ENOUGH = (0.1, 0.9), 0.05  # grey levels at which noise is measured, and the share of a picture that they need


def restore(image: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """A picture without its noise as far as the pixels allow, its longer side at most 320.

    At that size the noise is as strong as its level says (`imc_lite.noise`), and most encoders see no more.

    Args:
        image: uint8 [H, W, 3].
        kind: one of `RESTORERS`.
        severity: 1-5, as found.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ImcError: there is no restorer for this kind, or no such severity.
    """
    if kind not in RESTORERS:
        raise ImcError(f"no restorer for {shown(kind)!r}: choose one of {', '.join(RESTORERS)}")
    restored = RESTORERS[kind](image[..., :1] if is_grey(image) else image, IMAGE_NOISE.find(kind).level(severity))
    return np.ascontiguousarray(np.broadcast_to(np.rint(restored).clip(0, 255), (*restored.shape[:2], 3)), np.uint8)


def _impulse(image: np.ndarray, level: float) -> np.ndarray:
    """Fill black and white pixels from their other neighbours; where all are extreme (a black background), by the
    median (Toh & Isa 2010, noise adaptive switching median, https://doi.org/10.1109/LSP.2009.2038769)."""
    good = ((image > 0) & (image < 255)).astype(np.float32)
    size = size_within(image.shape, REFERENCE)
    # Averaging only good pixels while shrinking: an impulse smaller than a target pixel vanishes here.
    weight = shrink_planes(good, size)
    values = shrink_planes(image * good, size) / np.maximum(weight, 1e-6)
    plain = shrink_planes(image.astype(np.float32), size)
    padded = np.pad(plain, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = plain.shape[:2]
    median = np.median(
        [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0, overwrite_input=True
    )
    around_weight, around = _blur(weight), _blur(weight * values)
    mended = np.where(around_weight > 0.25, around / np.maximum(around_weight, 1e-6), median)
    return np.where(weight > 0.3, values, mended)


def _low_contrast(image: np.ndarray, level: float) -> np.ndarray:
    small = shrink_planes(image.astype(np.float32), size_within(image.shape, REFERENCE))
    mean, gain = stretch(small)
    return (small - mean) * gain + mean


def stretch(planes: np.ndarray) -> tuple[np.ndarray, float]:
    """Each channel's mean [1, 1, C], and the gain that widens the grey levels around it until the first of them reaches
    black or white."""
    mean = planes.mean((0, 1), keepdims=True)
    below, above = (mean - planes).max((0, 1)), (planes - mean).max((0, 1))
    room = np.concatenate([mean.ravel() / np.maximum(below, 1e-3), (255 - mean.ravel()) / np.maximum(above, 1e-3)])
    return mean, float(np.clip(room.min(), 1, MAX_GAIN))


def _gaussian(image: np.ndarray, level: float) -> np.ndarray:
    return _threshold(image, relative=False)


def _speckle(image: np.ndarray, level: float) -> np.ndarray:
    return _threshold(image, relative=True)


def _threshold(image: np.ndarray, relative: bool) -> np.ndarray:
    """Sliding cosine transform, over the channels too: a first pass drops coefficients below the noise, a second one
    weighs each by what the first has left of it, as Wiener's filter does; for speckle the noise follows each block's
    mean (Pierazzo et al. 2017, Multi-scale DCT denoising, https://doi.org/10.5201/ipol.2017.201, without its scales;
    blocks weigh by sparsity). How strong the noise is, is measured: a name and a severity say that less well."""
    small = shrink_planes(image.astype(np.float32) / 255, size_within(image.shape, REFERENCE))
    level = _deviation(small, relative)
    # A field in each channel of a grey picture lies in what these planes hold of colour, where nothing else is.
    across = _cosines(small.shape[2])
    planes = np.moveaxis(np.pad(small @ across.T, ((BLOCK, BLOCK), (BLOCK, BLOCK), (0, 0)), mode="symmetric"), 2, 0)
    clean = _pass(planes, _pass(planes, None, level, relative), level, relative)
    return 255 * (np.moveaxis(clean[:, BLOCK:-BLOCK, BLOCK:-BLOCK], 0, 2) @ across)


def _pass(planes: np.ndarray, guide: np.ndarray | None, level: float, relative: bool) -> np.ndarray:
    """Blocks of planes, float32 [C, H, W], shrunk towards smooth ones: by `guide`, what the first pass has made of the
    same planes, or by a threshold."""
    basis, deviation = _cosines(BLOCK), np.float32(level)
    total, weight = np.zeros_like(planes), np.zeros_like(planes)
    for top in range(0, BLOCK, STRIDE):
        for left in range(0, BLOCK, STRIDE):
            rows, columns = ((n - s) // BLOCK for n, s in zip(planes.shape[1:], (top, left), strict=True))
            where = np.s_[:, top : top + rows * BLOCK, left : left + columns * BLOCK]
            seen, guess = (
                basis @ p[where].reshape(-1, rows, BLOCK, columns, BLOCK).swapaxes(2, 3) @ basis.T
                for p in (planes, planes if guide is None else guide)
            )
            noise = deviation
            if relative:
                mean = guess[:1, ..., :1, :1] / np.float32(BLOCK * np.sqrt(len(planes)))
                noise = deviation * np.maximum(mean, np.float32(4 / 255))
            if guide is None:
                kept = (np.abs(guess) > np.float32(THRESHOLD) * noise).astype(np.float32)
            else:
                kept = guess**2 / np.maximum(guess**2 + noise**2, np.float32(1e-12))
            kept[0, ..., 0, 0] = 1
            trust = 1 / np.maximum((kept**2).sum((-1, -2), keepdims=True), 1)
            smooth = (basis.T @ (seen * kept) @ basis) * trust
            total[where] += smooth.swapaxes(2, 3).reshape(planes[where].shape)
            weight[where] += np.broadcast_to(trust, smooth.shape).swapaxes(2, 3).reshape(planes[where].shape)
    return total / np.maximum(weight, np.float32(1e-6))


def _cosines(count: int) -> np.ndarray:
    """The orthonormal cosine transform, float32 [count, count]; its first row is the mean's."""
    k = np.arange(count)
    basis = np.sqrt(2 / count) * np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * count))
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def _deviation(planes: np.ndarray, relative: bool) -> float:
    """Standard deviation of the noise in planes, float32 [H, W, C] within 0-1; as a share of the pixel if `relative`.

    By the median of the finest diagonal detail (Donoho & Johnstone 1994, https://doi.org/10.1093/biomet/81.3.425), and
    of the next coarser one: the same for white noise, and between them lies what a coarser grain has.
    """
    fine = _detail_deviation(planes, relative)
    height, width = (max(1, n // 2) for n in planes.shape[:2])
    coarse = 2 * _detail_deviation(shrink_planes(planes, (height, width)), relative)
    # Beyond so much it is the picture's own detail that is measured.
    return float(np.sqrt((fine**2 + min(coarse, COARSEST * fine) ** 2) / 2))


def _detail_deviation(planes: np.ndarray, relative: bool) -> float:
    """Of places that are neither black nor white, where noise is cut off; of all, where nearly all are."""
    height, width = (n // 2 * 2 for n in planes.shape[:2])
    if 0 in (height, width):
        return 0.0
    a, b = planes[:height:2, :width:2], planes[:height:2, 1:width:2]
    c, d = planes[1:height:2, :width:2], planes[1:height:2, 1:width:2]
    detail, mean = np.abs(a - b - c + d) / 2, (a + b + c + d) / 4
    inside = (mean > MIDDLE[0]) & (mean < MIDDLE[1])
    if inside.mean() > ENOUGH:
        detail, mean = detail[inside], mean[inside]
    return float(np.median(detail / np.maximum(mean, 4 / 255) if relative else detail)) / 0.6745


def _pixelation(image: np.ndarray, level: float) -> np.ndarray:
    """Back to the coarse grid and up again with a smooth kernel: blocks have edges that no scanner makes."""
    small = shrink_planes(image.astype(np.float32), size_within(image.shape, REFERENCE))
    size = small.shape[:2]
    coarse = shrink_planes(small, (max(1, round(size[0] * level)), max(1, round(size[1] * level))))
    return resize_planes(coarse, size, Image.Resampling.LANCZOS)


def _spike(image: np.ndarray, level: float) -> np.ndarray:
    return shrink_without_waves(image)


def _blur(planes: np.ndarray) -> np.ndarray:
    """3x3 binomial mean, edges replicated."""
    padded = np.pad(planes, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


RESTORERS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "gaussian": _gaussian,
    "speckle": _speckle,
    "impulse": _impulse,
    "low_contrast": _low_contrast,
    "pixelation": _pixelation,
    "spike": _spike,
}
