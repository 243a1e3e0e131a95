"""Artefacts that are in no bank and in no test: examples of what is out of distribution.

A matcher that has only seen its own noises gives every other artefact the name of the nearest of them. Prototypes of a
few others take those pictures instead, and their verdict is "unknown" (outlier exposure, Hendrycks et al., arXiv
1812.04606). Their order is that of the prototypes: new ones go last.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from imc_lite.images.resize import resize_planes
from imc_lite.noise.planes import IMAGE_NOISE, grid, scale

OWN = "levels of our own"


@IMAGE_NOISE.register(
    "ringing",
    "out-of-distribution",
    levels=(0.5, 0.33, 0.2),
    measure="share of k-space that is kept along each axis",
    source="truncated k-space (Gibbs ringing)",
    differs=OWN,
)
def _ringing(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.fft2(planes, axes=(0, 1))
    kept = [np.abs(np.fft.fftfreq(n)) <= level / 2 / scale(planes) for n in planes.shape[:2]]
    return np.fft.ifft2(spectrum * np.outer(*kept)[..., None], axes=(0, 1)).real


@IMAGE_NOISE.register(
    "stripes",
    "out-of-distribution",
    levels=(0.04, 0.1, 0.22),
    measure="standard deviation of what is added to a line",
    source="line noise of scanners",
    differs=OWN,
)
def _stripes(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    lines = level * rng.standard_normal((grid(planes)[0], 1, 1))
    if len(lines) != len(planes):
        lines = resize_planes(lines, (len(planes), 1), Image.Resampling.NEAREST)
    return planes + lines
