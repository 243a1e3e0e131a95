"""Is one side of a picture brighter because of a bias field, or is the picture like that?

A bias field brightens here and darkens there, in any direction. It hardly moves the mean of the statistics, it spreads
them, and no linear discriminant sees that. So where the matcher finds a picture clean or under a bias field, a kernel
classifier decides between the two on the same features. `imc_lite.pdc.fit.bias_field` fits it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BiasFieldClassifier:
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
        """Features [B, F] -> natural log-odds [B] of a bias field against a clean picture."""
        points = (values - self.centre) @ self.project.astype(np.float64)
        return gaussian_kernel(points, self.landmarks.astype(np.float64)) @ self.dual + self.offset


def gaussian_kernel(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """exp(-squared distance) of points [B, P] to landmarks [M, P]: [B, M]."""
    distance = (points**2).sum(1)[:, None] + (landmarks**2).sum(1) - 2 * points @ landmarks.T
    return np.exp(-np.maximum(distance, 0))
