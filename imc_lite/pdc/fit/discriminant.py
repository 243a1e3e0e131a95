"""Fit a matcher to the features of clean pictures and their noisy copies: linear discriminants, no gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from imc_lite.noise.artefacts import FOREIGN
from imc_lite.noise.image import IMAGE_KINDS
from imc_lite.pdc.matcher import QUADRANTS, Matcher

KNOWN = (("clean", 0), *((kind, severity) for kind in IMAGE_KINDS for severity in range(1, 6)))
CONDITIONS = (*KNOWN, *(("unknown", 0) for _ in FOREIGN))
FOLDS = 4
CLUSTERS = 3  # x-ray films, slices and cells differ more than noise does; more clusters gained nothing
PER_CLUSTER = 40  # fewer pictures do not carry a cluster's 48 means
SHRINKAGE = 2e-4
CLEAN_KEPT = 0.985  # share of clean pictures that cross-fitting must leave clean
# Times the median novelty of known pictures. A quantile that nearly all stay below is decided by the oddest pictures,
# of few pictures by one or two (between 7 and 21 of 48, where the median is always 0.9); naming a noise survives
# that, a map of other pictures' tokens does harm (recipes/results/foreign.json).
FAMILIAR = 5.5
# Features that hardly move under any noise: channels that never fire, or always fully. What little they show is
# rounding, which is another on every processor, and weighed by its own tiny variance it would make all there unknown.
STILL = 1e-3  # standard deviation
KNOWN_KEPT = 0.998  # share of known pictures whose novelty cross-fitting must leave below the limit

_NAMES = ("clean", *IMAGE_KINDS, "unknown")
_KIND = np.array([_NAMES.index(kind) for kind, _ in CONDITIONS])


def fit_matcher(
    table: np.ndarray, rng: np.random.Generator, statistics: str = QUADRANTS, most: int = CLUSTERS
) -> Matcher:
    """Fit on all pictures; temperature, bias and novelty limit are set where a fold was not fitted on.

    Args:
        table: float64 [N, 48, F], every picture under every condition of `CONDITIONS`.
        rng: draws the folds and the clusters' seeds.
        statistics: how the features were made of an encoder's statistics (`imc_lite.pdc.matcher.features`).
        most: clusters at most, of 48 prototypes each.
    """
    folds = rng.permutation(len(table)) % FOLDS
    logits = np.empty((len(table), len(CONDITIONS), len(CONDITIONS)))
    novelty = np.empty((len(table), len(CONDITIONS)))
    seed = int(rng.integers(2**31))
    for fold in range(FOLDS):
        part = fit(table[folds != fold], seed, most)
        for i in np.flatnonzero(folds == fold):
            distance, novelty[i] = _distances(part, table[i])
            logits[i] = -0.5 * distance
    temperature = min(np.geomspace(0.5, 60, 50), key=lambda t: _cross_entropy(logits / t))
    bias, kept = 0.0, logits[:, 0] / temperature
    # The smallest bias that keeps enough clean pictures clean: it is taken from the mildest noise.
    while (_by_kind(kept + bias * (_KIND == 0)).argmax(-1) == 0).mean() < CLEAN_KEPT and bias < 50:
        bias += 0.1
    limit = float(np.quantile(novelty[:, : len(KNOWN)], KNOWN_KEPT))
    familiar = FAMILIAR * float(np.median(novelty[:, : len(KNOWN)]))
    whole = fit(table, seed, most)
    clean = np.array([k == "clean" for k in whole.kinds])
    return replace(
        whole,
        whiten=whole.whiten / np.sqrt(temperature),
        points=whole.points / np.sqrt(temperature),
        reconstruct=whole.reconstruct * np.sqrt(temperature),
        bias=bias * clean,
        novelty_limit=limit,
        familiar_limit=min(limit, familiar),
        statistics=statistics,
    )


def fit(table: np.ndarray, seed: int, most: int = CLUSTERS) -> Matcher:
    """Whitening, separating directions and prototypes of features [N, 48, F], not yet calibrated."""
    owner = clusters(table[:, 0], seed, most)
    means = np.stack([table[owner == c].mean(0) for c in range(owner.max() + 1)])
    within = (table - means[owner]).reshape(-1, table.shape[2])
    covariance = within.T @ within / len(within)
    covariance[np.diag_indices_from(covariance)] += SHRINKAGE * np.trace(covariance) / len(covariance)
    centre = means.mean((0, 1))
    apart = (means - centre).reshape(-1, table.shape[2])
    # The means span few directions: one linear solve finds them, where whitening all features first would take an
    # eigendecomposition, hours of it for a tower with ten thousand statistics.
    toward = np.linalg.solve(covariance, apart.T)
    values, vectors = np.linalg.eigh(apart @ toward)
    kept = np.flatnonzero(values > 1e-10 * values[-1])[::-1][: min(len(apart) - 1, 127)]
    spread, basis = np.sqrt(values[kept]), vectors[:, kept]
    whiten = toward @ (basis / spread)
    reconstruct = (basis / spread).T @ apart
    variance = ((within - within @ whiten @ reconstruct) ** 2).mean(0)
    still = table.reshape(-1, table.shape[2]).std(0) < STILL
    whiten[still] = 0
    names = [c for _ in means for c in CONDITIONS]
    return Matcher(
        mean=centre,
        whiten=whiten,
        points=basis * spread,
        bias=np.zeros(len(apart)),
        precision=np.where(still, 0, 1 / np.maximum(variance, STILL**2)),
        reconstruct=reconstruct,
        kinds=tuple(k for k, _ in names),
        severities=tuple(s for _, s in names),
        novelty_limit=np.inf,
        familiar_limit=np.inf,
    )


def clusters(clean: np.ndarray, seed: int, most: int = CLUSTERS, rounds: int = 30) -> np.ndarray:
    """k-means in the ten widest directions of standardized features [N, F]: integers [N], none left empty."""
    count = max(1, min(most, len(clean) // PER_CLUSTER))
    scaled = (clean - clean.mean(0)) / (clean.std(0) + 1e-3)
    inside = scaled @ np.linalg.svd(scaled, full_matrices=False)[2][:10].T
    centres = inside[np.random.default_rng(seed).permutation(len(inside))[:count]]
    for _ in range(rounds):
        owner = ((inside[:, None] - centres) ** 2).sum(2).argmin(1)
        sizes = np.bincount(owner, minlength=len(centres))
        # A handful of odd pictures is no cluster of its own.
        kept = np.flatnonzero(sizes >= 8) if len(centres) > 1 else np.arange(1)
        centres = np.stack([inside[owner == c].mean(0) for c in kept])
    return ((inside[:, None] - centres) ** 2).sum(2).argmin(1)


def _distances(matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [B, F] -> squared distance to each condition's nearest cluster [B, 48], novelty [B]."""
    apart = values - matcher.mean
    z = apart @ matcher.whiten
    distance = ((z[:, None] - matcher.points) ** 2).sum(2).reshape(len(values), -1, len(CONDITIONS)).min(1)
    return distance, (matcher.precision * (apart - z @ matcher.reconstruct) ** 2).mean(1)


def _by_kind(logits: np.ndarray) -> np.ndarray:
    """Probability of each kind (clean first, unknown last): [..., 48] -> [..., 9]."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ np.eye(len(_NAMES))[_KIND]


def _cross_entropy(logits: np.ndarray) -> float:
    right = np.take_along_axis(_by_kind(logits), np.broadcast_to(_KIND[None, :, None], (*logits.shape[:2], 1)), 2)
    return float(-np.log(np.maximum(right, 1e-12)).mean())
