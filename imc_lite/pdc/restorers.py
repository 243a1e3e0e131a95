"""Pixel restoration, matched to the noise that was found, for the kinds where it pays.

Calibration alone cannot bring back what the encoder never passed on; the pixels still hold it. Whether a restorer
pays is decided per kind and severity when prototypes are built, on the encoder's own tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from imc_lite.errors import ImcError
from imc_lite.noise.image import LEVELS

SIDE = 320  # what the encoder sees; restoring more pixels than that would be wasted
MAX_GAIN = 25.0
BLOCK, STRIDE = 8, 3  # of the sliding cosine transform
THRESHOLD = 2.0  # times the noise's deviation; above 2.5 small structure goes with the noise


def restore(image: np.ndarray, kind: str, severity: int) -> np.ndarray:
    """A picture without its noise as far as the pixels allow, its longer side at most 320.

    Args:
        image: uint8 [H, W, 3].
        kind: one of `RESTORERS`.
        severity: 1-5, as found.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ImcError: there is no restorer for this kind.
    """
    if kind not in RESTORERS:
        raise ImcError(f"no restorer for {kind!r}: choose one of {', '.join(RESTORERS)}")
    grey = (image[..., :1] == image).all()
    restored = RESTORERS[kind](image[..., :1] if grey else image, LEVELS[kind][severity - 1])
    return np.ascontiguousarray(np.broadcast_to(np.rint(restored).clip(0, 255), (*restored.shape[:2], 3)), np.uint8)


def _impulse(image: np.ndarray, level: float) -> np.ndarray:
    """Fill black and white pixels from their other neighbours; where all are extreme (a black background), by the
    median (Toh & Isa 2010, noise adaptive switching median, https://doi.org/10.1109/LSP.2009.2038769)."""
    good = ((image > 0) & (image < 255)).astype(np.float32)
    size = _fit(image)
    # Averaging only good pixels while shrinking: an impulse smaller than a target pixel vanishes here.
    weight = _shrink(good, size)
    values = _shrink(image * good, size) / np.maximum(weight, 1e-6)
    plain = _shrink(image.astype(np.float32), size)
    padded = np.pad(plain, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = plain.shape[:2]
    median = np.median(
        [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0, overwrite_input=True
    )
    around_weight, around = _blur(weight), _blur(weight * values)
    mended = np.where(around_weight > 0.25, around / np.maximum(around_weight, 1e-6), median)
    return np.where(weight > 0.3, values, mended)


def _low_contrast(image: np.ndarray, level: float) -> np.ndarray:
    """Widen the grey levels around each channel's mean until the first of them reaches black or white."""
    small = _shrink(image.astype(np.float32), _fit(image))
    mean = small.mean((0, 1), keepdims=True)
    below, above = (mean - small).max((0, 1)), (small - mean).max((0, 1))
    room = np.concatenate([mean.ravel() / np.maximum(below, 1e-3), (255 - mean.ravel()) / np.maximum(above, 1e-3)])
    return (small - mean) * float(np.clip(room.min(), 1, MAX_GAIN)) + mean


def _gaussian(image: np.ndarray, level: float) -> np.ndarray:
    return _threshold(image, level, relative=False)


def _speckle(image: np.ndarray, level: float) -> np.ndarray:
    return _threshold(image, level, relative=True)


def _threshold(image: np.ndarray, level: float, relative: bool) -> np.ndarray:
    """Sliding cosine transform, coefficients below the noise dropped; for speckle the noise follows each block's
    mean (Yu & Sapiro 2011, DCT image denoising, https://doi.org/10.5201/ipol.2011.ys-dct; blocks weigh by sparsity)."""
    small = _shrink(image.astype(np.float32) / 255, _fit(image))
    planes = np.moveaxis(np.pad(small, ((BLOCK, BLOCK), (BLOCK, BLOCK), (0, 0)), mode="symmetric"), 2, 0)
    k = np.arange(BLOCK)
    basis = np.sqrt(2 / BLOCK) * np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * BLOCK))
    basis[0] /= np.sqrt(2)
    basis = basis.astype(np.float32)
    total, weight = np.zeros_like(planes), np.zeros_like(planes)
    for top in range(0, BLOCK, STRIDE):
        for left in range(0, BLOCK, STRIDE):
            rows, columns = ((n - s) // BLOCK for n, s in zip(planes.shape[1:], (top, left), strict=True))
            where = np.s_[:, top : top + rows * BLOCK, left : left + columns * BLOCK]
            blocks = planes[where].reshape(-1, rows, BLOCK, columns, BLOCK).swapaxes(2, 3)
            coefficients = basis @ blocks @ basis.T
            limit = np.float32(THRESHOLD * level)
            if relative:
                limit = limit * np.maximum(coefficients[..., :1, :1] / BLOCK, np.float32(4 / 255))
            kept = np.abs(coefficients) > limit
            kept[..., 0, 0] = True
            trust = 1 / kept.sum((-1, -2), keepdims=True, dtype=np.float32)
            smooth = (basis.T @ (coefficients * kept) @ basis) * trust
            total[where] += smooth.swapaxes(2, 3).reshape(planes[where].shape)
            weight[where] += np.broadcast_to(trust, smooth.shape).swapaxes(2, 3).reshape(planes[where].shape)
    clean = np.moveaxis((total / np.maximum(weight, 1e-6))[:, BLOCK:-BLOCK, BLOCK:-BLOCK], 0, 2)
    return 255 * clean


def _pixelation(image: np.ndarray, level: float) -> np.ndarray:
    """Back to the coarse grid and up again with a smooth kernel: blocks have edges that no scanner makes."""
    small = _shrink(image.astype(np.float32), _fit(image))
    size = small.shape[:2]
    coarse = _shrink(small, (max(1, round(size[0] * level)), max(1, round(size[1] * level))))
    return _resize(coarse, size, Image.Resampling.LANCZOS)


def _fit(image: np.ndarray) -> tuple[int, int]:
    scale = max(1.0, max(image.shape[:2]) / SIDE)
    return max(1, round(image.shape[0] / scale)), max(1, round(image.shape[1] / scale))


def _shrink(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [H, W, C] -> float32 [*size, C], each target pixel the mean of what it covers."""
    if planes.shape[:2] == size:
        return planes
    return _resize(planes, size, Image.Resampling.BOX)


def _resize(planes: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    layers = [Image.fromarray(planes[..., c]).resize(size[::-1], method) for c in range(planes.shape[2])]
    return np.stack([np.asarray(layer) for layer in layers], 2)


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
}
