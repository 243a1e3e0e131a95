"""Fit the classifiers that look again at what the prototypes take for clean, in closed form.

Gaussian kernel ridge regression (Saunders et al. 1998, ICML) on landmark pictures (Nystroem method, Williams & Seeger
2001, NeurIPS 13), its score turned into log-odds (Platt 1999, Advances in Large Margin Classifiers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imc_lite.pdc.fit.crossfit import CLEAN_KEPT, FOLDS, STILL, draw_folds
from imc_lite.pdc.kernel_classifier import KernelClassifier, gaussian_kernel


@dataclass(frozen=True)
class Shape:
    """Of a classifier.

    Attributes:
        directions, landmarks: at most.
        width: of the kernel, over the number of features.
        ridge: of the regression.
        kept: share of clean views that must stay clean where they were not fitted on.
    """

    directions: int
    landmarks: int
    width: float
    ridge: float
    kept: float


# Found in a scan that also saw test pictures, then confirmed by cross-fitting on training pictures alone: flat around.
BIAS_FIELD = Shape(directions=160, landmarks=1200, width=0.3, ridge=0.3, kept=CLEAN_KEPT)
# By cross-fitting on training pictures and on what `imc_lite.noise.strange` makes of them (docs/log.md). Few clean
# pictures may be lost to it, since nothing can be done about what it finds.
STRANGE = Shape(directions=320, landmarks=960, width=0.1, ridge=1.0, kept=0.995)


def fit_bias_field(clean: np.ndarray, biased: np.ndarray, seed: int) -> KernelClassifier:
    """Fit to the features of clean pictures and of copies under a bias field.

    Args:
        clean: float64 [N, F].
        biased: float64 [N, C, F], C copies of each picture, all severities alike.
        seed: of the folds and of the choice of landmarks.
    """
    return _fit_calibrated(clean[:, None], biased, seed, BIAS_FIELD)


def fit_strange(
    clean: np.ndarray,
    strange: np.ndarray,
    seed: int,
    further: np.ndarray | None = None,
    weights: Sequence[float] = (),
) -> KernelClassifier:
    """Fit to the features of clean pictures and of copies with something on them that no bank has.

    Args:
        clean: float64 [N, A, F], A clean views of each picture.
        strange: float64 [N, C, F].
        seed: of the folds and of the choice of landmarks.
        further: float64 [E, B, F], of other pictures, B clean views of each.
        weights: B, of these views beside the others'; where none are given, all weigh 1.
    """
    return _fit_calibrated(clean, strange, seed, STRANGE, further, weights)


def _fit_calibrated(
    clean: np.ndarray,
    other: np.ndarray,
    seed: int,
    shape: Shape,
    further: np.ndarray | None = None,
    weights: Sequence[float] = (),
) -> KernelClassifier:
    """The log-odds are set on pictures that were not fitted on, and moved so that nearly all clean ones stay clean."""
    more = clean[:0] if further is None else further
    rng = np.random.default_rng(seed)
    folds, folds_of_more = draw_folds(len(clean), rng), draw_folds(len(more), rng)
    table, first = np.concatenate([clean, other], 1), clean.shape[1]
    scores, scores_of_more = np.empty(table.shape[:2]), np.empty(more.shape[:2])
    for fold in range(FOLDS):
        part = _fit(table[folds != fold], first, more[folds_of_more != fold], weights, seed, shape)
        scores[folds == fold] = [_log_odds(part, rows) for rows in table[folds == fold]]
        left = more[folds_of_more == fold]
        scores_of_more[folds_of_more == fold] = _log_odds(part, left.reshape(-1, left.shape[2])).reshape(left.shape[:2])
    of_clean = np.concatenate([scores[:, :first].ravel(), scores_of_more.ravel()])
    slope, offset = _platt(of_clean, scores[:, first:])
    offset -= max(0.0, float(np.quantile(slope * of_clean + offset, shape.kept)))
    whole = _fit(table, first, more, weights, seed, shape)
    return replace(
        whole,
        dual=(slope * whole.dual).astype(np.float32),
        offset=(slope * whole.offset + offset).astype(np.float32),
    )


def _fit(
    table: np.ndarray, first: int, more: np.ndarray, weights: Sequence[float], seed: int, shape: Shape
) -> KernelClassifier:
    """Ridge regression of -1 (the `first` views in each row of [N, V, F] and all of `more`, [E, B, F], which are clean
    and weigh `weights`) and 1, both classes weighing the same."""
    values = np.concatenate([table.reshape(-1, table.shape[2]), more.reshape(-1, table.shape[2])])
    others = table.shape[1] - first
    wanted = np.concatenate([np.tile([*[-1.0] * first, *[1.0] * others], len(table)), np.full(more[..., 0].size, -1.0)])
    share = np.ones(len(wanted))
    if len(more) and len(weights):
        share[table.shape[0] * table.shape[1] :] = np.tile(weights, len(more))
    weight = np.where(wanted < 0, (wanted > 0).sum() / share[wanted < 0].sum() * share, 1.0)
    centre, deviation = values.mean(0), values.std(0)
    spread = np.where(deviation < STILL, np.inf, deviation + STILL)
    scaled = (values - centre) / spread
    directions = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, : shape.directions]
    project = (directions / spread[:, None] * np.sqrt(shape.width / values.shape[1])).astype(np.float16)
    points = (values - centre) @ project.astype(np.float64)
    landmarks = points[np.random.default_rng(seed).permutation(len(points))[: shape.landmarks]].astype(np.float16)
    basis = landmarks.astype(np.float64)
    seen = gaussian_kernel(points, basis)
    gram = (seen * weight[:, None]).T @ seen + shape.ridge * gaussian_kernel(basis, basis) + 1e-6 * np.eye(len(basis))
    dual = np.linalg.solve(gram, seen.T @ (weight * wanted))
    return KernelClassifier(centre.astype(np.float32), project, landmarks, dual, np.zeros(1))


def _log_odds(found: KernelClassifier, values: np.ndarray) -> np.ndarray:
    """As `KernelClassifier.log_odds`, in double precision: what is fitted should not hang on rounding."""
    points = (values - found.centre) @ found.project.astype(np.float64)
    return gaussian_kernel(points, found.landmarks.astype(np.float64)) @ found.dual + found.offset


def _platt(clean: np.ndarray, other: np.ndarray, rounds: int = 50) -> tuple[float, float]:
    """Slope and offset of a logistic regression on scores, both classes weighing the same; Newton's method."""
    score = np.concatenate([clean.ravel(), other.ravel()])
    truth = np.repeat([0.0, 1.0], [clean.size, other.size])
    weight = np.where(truth > 0, 0.5 / other.size, 0.5 / clean.size)
    rows, found = np.stack([score, np.ones_like(score)], 1), np.zeros(2)
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-(rows @ found)))
        curve = (rows * (weight * chance * (1 - chance))[:, None]).T @ rows + 1e-9 * np.eye(2)
        found = found + np.linalg.solve(curve, rows.T @ (weight * (truth - chance)))
    return float(found[0]), float(found[1])
