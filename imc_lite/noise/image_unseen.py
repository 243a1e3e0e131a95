"""Image noises for tests alone: no prototype is built from them, so that the verdict on them tells something."""

from __future__ import annotations

import numpy as np

from imc_lite.noise.planes import IMAGE_NOISE


@IMAGE_NOISE.register(
    "ghosting",
    "unseen",
    levels=(0.25, 0.40, 0.55, 0.75, 1.0),
    measure="share that every 4th to 8th k-space line loses",
    source="TorchIO RandomGhosting, arXiv 2003.04696",
    differs="lines are counted from the centre, which is kept",
)
def _ghosting(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    ghosts = int(rng.integers(4, 9))
    spectrum = np.fft.fft(planes, axis=0)
    # Lines are counted from the centre of k-space, in cycles a picture, so that every size ghosts alike.
    line = np.abs(np.rint(np.fft.fftfreq(planes.shape[0]) * planes.shape[0]))
    hit = (line % ghosts == ghosts // 2) & (line > 1)  # the centre carries the brightness
    return np.fft.ifft(spectrum * np.where(hit, 1 - level, 1.0)[:, None, None], axis=0).real


@IMAGE_NOISE.register(
    "occlusion",
    "unseen",
    levels=(0.05, 0.10, 0.15, 0.22, 0.30),
    measure="share of the area under a grey rectangle",
    source="Cutout, arXiv 1708.04552",
    differs="one rectangle of any grey below 0.6 and any shape near a square",
)
def _occlusion(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = planes.shape[:2]
    aspect = rng.uniform(0.6, 1.6)
    h = max(1, min(height, round(np.sqrt(level * aspect) * height)))
    w = max(1, min(width, round(np.sqrt(level / aspect) * width)))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    covered = planes.copy()
    covered[top : top + h, left : left + w] = rng.uniform(0, 0.6)
    return covered
