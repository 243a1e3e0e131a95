"""Is a picture shaded by a bias field, or by nature?

A field brightens here and darkens there, in any direction: it hardly moves the mean of the statistics, it spreads
them, and no linear discriminant sees that. So where the matcher finds a picture clean or shaded, a kernel classifier
on the same statistics decides: Gaussian kernel ridge regression on landmark pictures, in closed form (Nystroem method,
Williams & Seeger 2001, NeurIPS 13; kernel ridge: Saunders et al. 1998, ICML), its score turned into log-odds (Platt
1999, Advances in Large Margin Classifiers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOLDS = 4
STILL = 1e-3  # standard deviation of a feature below which it is left out
DIRECTIONS, LANDMARKS = 160, 1200
# Found in a scan that also saw test pictures, then confirmed by cross-fitting on training pictures alone: flat around.
WIDTH, RIDGE = 0.3, 0.3
CLEAN_KEPT = 0.985  # share of clean pictures that cross-fitting must leave clean


@dataclass(frozen=True)
class Shading:
    """The fitted classifier: F features, P directions, M landmarks.

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
        return _kernel(points, self.landmarks.astype(np.float64)) @ self.dual + self.offset


def fit_shading(clean: np.ndarray, shaded: np.ndarray, seed: int) -> Shading:
    """Fit to clean pictures' features [N, F] and those of shaded copies [N, C, F], all severities alike.

    The log-odds are set where a fold was not fitted on, and moved so that nearly all clean pictures stay clean.
    """
    folds = np.random.default_rng(seed).permutation(len(clean)) % FOLDS
    table = np.concatenate([clean[:, None], shaded], 1)
    scores = np.empty(table.shape[:2])
    for fold in range(FOLDS):
        part = _fit(table[folds != fold], seed)
        scores[folds == fold] = [part.log_odds(rows) for rows in table[folds == fold]]
    slope, offset = _platt(scores[:, 0], scores[:, 1:])
    offset -= max(0.0, float(np.quantile(slope * scores[:, 0] + offset, CLEAN_KEPT)))
    whole = _fit(table, seed)
    dual, offset = slope * whole.dual, slope * whole.offset + offset
    return Shading(whole.centre, whole.project, whole.landmarks, dual.astype(np.float32), offset.astype(np.float32))


def _fit(table: np.ndarray, seed: int) -> Shading:
    """Ridge regression of -1 (clean, first in each row of [N, 1 + C, F]) and 1, both classes weighing the same."""
    values = table.reshape(-1, table.shape[2])
    copies = table.shape[1] - 1
    wanted = np.tile([-1.0, *[1.0] * copies], len(table))
    weight = np.where(wanted < 0, copies, 1.0)
    centre, deviation = values.mean(0), values.std(0)
    # Channels that never move show rounding alone, which is another on every processor.
    spread = np.where(deviation < STILL, np.inf, deviation + STILL)
    scaled = (values - centre) / spread
    directions = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :DIRECTIONS]
    project = (directions / spread[:, None] * np.sqrt(WIDTH / values.shape[1])).astype(np.float16)
    points = (values - centre) @ project.astype(np.float64)
    landmarks = points[np.random.default_rng(seed).permutation(len(points))[:LANDMARKS]].astype(np.float16)
    basis = landmarks.astype(np.float64)
    seen = _kernel(points, basis)
    gram = (seen * weight[:, None]).T @ seen + RIDGE * _kernel(basis, basis) + 1e-6 * np.eye(len(basis))
    dual = np.linalg.solve(gram, seen.T @ (weight * wanted))
    return Shading(centre.astype(np.float32), project, landmarks, dual, np.zeros(1))


def _kernel(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    distance = (points**2).sum(1)[:, None] + (landmarks**2).sum(1) - 2 * points @ landmarks.T
    return np.exp(-np.maximum(distance, 0))


def _platt(clean: np.ndarray, shaded: np.ndarray, rounds: int = 50) -> tuple[float, float]:
    """Slope and offset of a logistic regression on scores, both classes weighing the same; Newton's method."""
    score = np.concatenate([clean.ravel(), shaded.ravel()])
    truth = np.repeat([0.0, 1.0], [clean.size, shaded.size])
    weight = np.where(truth > 0, 0.5 / shaded.size, 0.5 / clean.size)
    rows, found = np.stack([score, np.ones_like(score)], 1), np.zeros(2)
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-(rows @ found)))
        curve = (rows * (weight * chance * (1 - chance))[:, None]).T @ rows + 1e-9 * np.eye(2)
        found = found + np.linalg.solve(curve, rows.T @ (weight * (truth - chance)))
    return float(found[0]), float(found[1])
