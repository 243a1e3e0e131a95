"""Fit a matcher to the features of clean pictures and their noisy copies: linear discriminants, no gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.noise.image import IMAGE_NOISE
from imc_lite.noise.registry import Role
from imc_lite.pdc.features import QUADRANTS
from imc_lite.pdc.fit.crossfit import CLEAN_KEPT, FOLDS, STILL, draw_folds
from imc_lite.pdc.matcher import Matcher


def _conditions(role: Role) -> tuple[tuple[str, int], ...]:
    kinds = IMAGE_NOISE.kinds(role)
    return tuple((kind.name, severity) for kind in kinds for severity in range(1, len(kind.levels) + 1))


# Told by the pixels alone (`imc_lite.pdc.waves`), and so without prototypes.
BY_PIXELS = ("spike",)
# What every picture is looked at under: 46 conditions that have a name, 6 that are learnt as "unknown".
NAMED = (("clean", 0), *_conditions("bank"), *_conditions("further"))
KNOWN = tuple(condition for condition in NAMED if condition[0] not in BY_PIXELS)
OUT_OF_DISTRIBUTION = _conditions("out-of-distribution")
CONDITIONS = (*KNOWN, *(("unknown", 0) for _ in OUT_OF_DISTRIBUTION))
# Films, slices, cells and skin differ more than noise does; how many clusters of pictures that makes is chosen by
# cross-fitting, of so many at most.
CLUSTERS = 8
PER_CLUSTER = 40  # fewer pictures do not carry a cluster's 52 means
SHRINKAGE = 2e-4
KNOWN_KEPT = 0.998  # share of known pictures that must not be called unknown where they were not fitted on
# A picture counts as in-distribution up to so many times the median score of known pictures. Not up to a quantile: one
# that nearly all stay below is decided by the oddest pictures, of few pictures by one or two (between 7 and 21 of 48,
# where the median is always 0.9). Naming a noise survives that, a map of other pictures' tokens does harm
# (recipes/results/foreign.json).
IN_DISTRIBUTION = 5.5

_NAMES = (*dict.fromkeys(kind for kind, _ in KNOWN), "unknown")
_KIND = np.array([_NAMES.index(kind) for kind, _ in CONDITIONS])


def fit_matcher(
    table: np.ndarray, rng: np.random.Generator, statistics: str = QUADRANTS, most: int = CLUSTERS
) -> tuple[Matcher, np.ndarray]:
    """Fit on all pictures; the number of clusters, temperature, bias and limits are set on pictures that were not
    fitted on.

    Args:
        table: float64 [N, 52, F], every picture under every condition of `CONDITIONS`.
        rng: draws the folds and the clusters' seeds.
        statistics: how the features were made of an encoder's statistics (`imc_lite.pdc.features.features`).
        most: clusters at most, of 52 prototypes each.

    Returns:
        The matcher, and how much the right kinds surprise it on every picture where it was not fitted on it:
        cross-entropy in nats, mean over the conditions, [N].

    Raises:
        ImcError: the features are the same for every picture.
    """
    if not tells_anything(table):
        raise ImcError(
            "the encoder's statistics are the same for every picture and noise, so no noise can be told by them; "
            "take statistics of its early layers"
        )
    folds, seed = draw_folds(len(table), rng), int(rng.integers(2**31))
    counts = range(1, max(1, min(most, np.bincount(folds).min() * (FOLDS - 1) // PER_CLUSTER)) + 1)
    logits, scores = cross_fit(table, folds, seed, counts)
    temperatures = [min(np.geomspace(0.5, 60, 50), key=lambda t: _cross_entropy(found / t).mean()) for found in logits]
    losses = np.stack([_cross_entropy(f / t) for f, t in zip(logits, temperatures, strict=True)])
    chosen = simplest(losses)
    temperature = temperatures[chosen]
    bias, kept = 0.0, logits[chosen][:, 0] / temperature
    # The smallest bias that keeps enough clean pictures clean: it is taken from the mildest noise.
    while (_by_kind(kept + bias * (_KIND == 0)).argmax(-1) == 0).mean() < CLEAN_KEPT and bias < 50:
        bias += 0.1
    known = scores[chosen][:, : len(KNOWN)]
    unknown_limit = float(np.quantile(known, KNOWN_KEPT))
    whole = fit(table, seed, counts[chosen])
    clean = np.array([k == "clean" for k in whole.kinds])
    matcher = replace(
        whole,
        whiten=whole.whiten / np.sqrt(temperature),
        points=whole.points / np.sqrt(temperature),
        reconstruct=whole.reconstruct * np.sqrt(temperature),
        bias=bias * clean,
        unknown_limit=unknown_limit,
        in_distribution_limit=min(unknown_limit, IN_DISTRIBUTION * float(np.median(known))),
        statistics=statistics,
    )
    return matcher, losses[chosen]


def tells_anything(table: np.ndarray) -> bool:
    """Whether features [N, 52, F] differ between pictures and noises at all."""
    return bool((table.reshape(-1, table.shape[2]).std(0) >= STILL).any())


def cross_fit(table: np.ndarray, folds: np.ndarray, seed: int, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """What matchers with so many clusters say of pictures that they were not fitted on.

    Args:
        table: float64 [N, 52, F].
        folds: integers [N].
        seed: of the clusters.
        counts: C numbers of clusters.

    Returns:
        Logits of the conditions before calibration, [C, N, 52, 52], and out-of-distribution scores, [C, N, 52].
    """
    logits = np.empty((len(counts), len(table), len(CONDITIONS), len(CONDITIONS)))
    scores = np.empty(logits.shape[:3])
    for fold in range(FOLDS):
        part = table[folds != fold]
        second = second_moment(part) if len(counts) > 1 else None
        for c, count in enumerate(counts):
            matcher = fit(part, seed, count, second)
            for i in np.flatnonzero(folds == fold):
                distance, scores[c, i] = _distances(matcher, table[i])
                logits[c, i] = -0.5 * distance
    return logits, scores


def simplest(losses: np.ndarray) -> int:
    """Which of several matchers to take: the first within one standard error of the best (Breiman et al. 1984,
    Classification and Regression Trees, section 3.4.3), of the differences between the two picture by picture.

    Args:
        losses: float [C, N], of every candidate, the simplest first, on every picture.
    """
    excess = losses - losses[losses.mean(1).argmin()]
    error = excess.std(1, ddof=1) / np.sqrt(excess.shape[1])
    return int(np.flatnonzero(excess.mean(1) <= error)[0])


def second_moment(table: np.ndarray) -> np.ndarray:
    """Sum of the outer squares of features [N, 52, F]: [F, F]."""
    rows = table.reshape(-1, table.shape[2])
    return rows.T @ rows


def fit(table: np.ndarray, seed: int, count: int = 1, second: np.ndarray | None = None) -> Matcher:
    """Whitening, separating directions and prototypes of features, not yet calibrated.

    Args:
        table: float64 [N, 52, F].
        seed: of the clusters.
        count: of clusters.
        second: their `second_moment`, where it is known.
    """
    owner = clusters(table[:, 0], seed, count)
    means = np.stack([table[owner == c].mean(0) for c in range(owner.max() + 1)])
    covariance = _within(means, np.bincount(owner), second_moment(table) if second is None else second)
    own = covariance.diagonal().copy()
    ridge = SHRINKAGE * own.mean()
    covariance[np.diag_indices_from(covariance)] += ridge
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
    # Of what the directions leave: the diagonal of (1 - W R)' C (1 - W R).
    seen = covariance @ whiten - ridge * whiten
    variance = own - 2 * (seen * reconstruct.T).sum(1) + ((whiten.T @ seen) @ reconstruct * reconstruct).sum(0)
    # Weighed by its own tiny variance, the rounding of a still feature would make every picture unknown.
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
        unknown_limit=np.inf,
        in_distribution_limit=np.inf,
    )


def _within(means: np.ndarray, sizes: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Covariance [F, F] about the means [C, 52, F] of clusters of these sizes, from the second moment of all."""
    flat, weights = means.reshape(-1, means.shape[2]), np.repeat(sizes, means.shape[1])
    covariance = -(flat.T * weights) @ flat
    covariance += second
    covariance /= weights.sum()
    return covariance


def clusters(clean: np.ndarray, seed: int, count: int, rounds: int = 30) -> np.ndarray:
    """k-means in the ten widest directions of standardized features [N, F]: integers [N], none left empty."""
    if count == 1:
        return np.zeros(len(clean), int)
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
    """Features [B, F] -> squared distance to the prototype of each condition in the nearest cluster [B, 52],
    out-of-distribution scores [B]."""
    apart = values - matcher.mean
    z = apart @ matcher.whiten
    squared = (z**2).sum(1)[:, None] + (matcher.points**2).sum(1) - 2 * z @ matcher.points.T
    distance = squared.reshape(len(values), -1, len(CONDITIONS)).min(1)
    return distance, (matcher.precision * (apart - z @ matcher.reconstruct) ** 2).mean(1)


def _by_kind(logits: np.ndarray) -> np.ndarray:
    """Probability of each kind (clean first, unknown last): [..., 52] -> [..., 11]."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ np.eye(len(_NAMES))[_KIND]


def _cross_entropy(logits: np.ndarray) -> np.ndarray:
    """Mean over the conditions of how surprising the right kind is: [N, 52, 52] -> [N]."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    right = np.einsum("nij,ij->ni", weights, _KIND[:, None] == _KIND) / weights.sum(-1)
    return -np.log(np.maximum(right, 1e-12)).mean(1)
