"""A second look at a picture that the prototypes take for clean: kernel classifiers on the same features.

Two things hardly move the means of the statistics, so that no linear discriminant sees them. A bias field brightens
here and darkens there, in any direction. And what is in no bank may lie over any part of a picture in any colour.
`imc_lite.pdc.fit.kernel_classifier` fits a classifier of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class KernelClassifier:
    """A Gaussian kernel machine on landmark pictures: F features, P directions, M landmarks.

    Attributes:
        centre: float32 [F].
        project: float16 [F, P]; widest directions of the standardized features, in units of the kernel's width.
        landmarks: float16 [M, P].
        dual: float32 [M]; the landmarks' weights, in units of log-odds.
        offset: float32 [1]; log-odds far from every landmark.
    """

    centre: np.ndarray
    project: np.ndarray
    landmarks: np.ndarray
    dual: np.ndarray
    offset: np.ndarray

    def log_odds(self, values: np.ndarray) -> np.ndarray:
        """Features float64 [B, F] -> natural log-odds float32 [B] of what it was fitted to tell against a clean
        picture."""
        project, landmarks, squares = self._wide
        points = (values - self.centre).astype(np.float32) @ project
        near = gaussian_kernel(points, landmarks, squares)
        return near @ self.dual.astype(np.float32) + self.offset.astype(np.float32)

    @cached_property
    def _wide(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both half-precision arrays in float32, and the landmarks' squared lengths: to compute these takes longer than
        to multiply by them."""
        landmarks = self.landmarks.astype(np.float32)
        return self.project.astype(np.float32), landmarks, (landmarks**2).sum(1)

    def probability(self, values: np.ndarray) -> float:
        """Of one picture, features [1, F]."""
        return float(1 / (1 + np.exp(-float(self.log_odds(values)[0]))))


def gaussian_kernel(points: np.ndarray, landmarks: np.ndarray, squares: np.ndarray | None = None) -> np.ndarray:
    """exp(-squared distance) of points [B, P] to landmarks [M, P], whose squared lengths may be known: [B, M]."""
    squares = (landmarks**2).sum(1) if squares is None else squares
    distance = (points**2).sum(1)[:, None] + squares - 2 * points @ landmarks.T
    return np.exp(-np.maximum(distance, 0))
