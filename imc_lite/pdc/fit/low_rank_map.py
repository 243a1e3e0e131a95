"""Fit low-rank maps from noisy to clean tokens, in closed form, and choose the remedy of each noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from imc_lite.pdc.familiarity import CLUSTERS, Familiarity, cluster, fit_clusters, pooled
from imc_lite.pdc.fit.crossfit import FOLDS
from imc_lite.pdc.fit.discriminant import NAMED
from imc_lite.pdc.fit.leading import leading_directions
from imc_lite.pdc.prototypes import MAP_ARRAYS
from imc_lite.pdc.remedies import WORTH, LowRankMap, Remedy
from imc_lite.pdc.restorers import RESTORERS

RANK = 64  # of a map for one kind and severity
RIDGE = 0.3  # times the mean variance; cross-fitted error is flat from 0.1 to 1
SHARED_RANK = 128  # of one for all severities of a family, which has more to undo; the kernels hold no higher rank
# Those of the default encoder, which needs no kernel. A weaker ridge leaves the error as it is and answers are better
# for it: a strong one draws tokens towards their mean (docs/log.md). Of other encoders this is not known.
DEFAULT_RANK, DEFAULT_RIDGE = 256, 0.03
# Share of the pictures of known kinds whose tokens a map may move, where it was not fitted on them.
MOVED = 0.95
PER_CLUSTER = 8  # pictures at least that a cluster of them has on average
GAIN = 0.01  # a remedy that saves less than this share of the clean variance is not kept: do no harm first
RESTORED = tuple(i for i, (kind, _) in enumerate(NAMED) if kind in RESTORERS)
# Kinds that are taken for each other, and moved alike: whichever of them is named, the map is fitted to all.
FAMILIES = {"speckle": "gaussian"}

View = tuple[int, bool]  # index of a condition in `NAMED`, and whether its pixels are restored
Family = tuple[str, bool]  # the kind that it is named after, and the same


class Sums:
    """What a map is fitted from: tokens can be added part by part, and need not be kept.

    Attributes:
        count: of tokens.
        x, y: their sums, noisy and clean, float64 [D].
        xx, xy: sums of the outer products x x and x y, float64 [D, D].
    """

    def __init__(self, width: int) -> None:
        """Of no tokens yet, `width` wide."""
        self.count = 0
        self.x, self.y = np.zeros(width), np.zeros(width)
        self.xx, self.xy = np.zeros((width, width)), np.zeros((width, width))

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Noisy tokens and the clean ones they came from, float32 [..., D] each."""
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        self.count += len(x)
        self.x += x.sum(0, dtype=np.float64)
        self.y += y.sum(0, dtype=np.float64)
        self.xx += x.T @ x
        self.xy += x.T @ y

    def __iadd__(self, other: Sums) -> Sums:
        self.count += other.count
        for name in ("x", "y", "xx", "xy"):
            getattr(self, name).__iadd__(getattr(other, name))
        return self

    def fit(self, rank: int, ridge: float = RIDGE, inside: np.ndarray | None = None) -> LowRankMap:
        """The map of all that was added, as `fit_low_rank_map` finds it; `inside`: the directions, float32 [W, D], that
        what was added is along (`leading_directions`), beside which the map leaves tokens as they are."""
        x_mean, y_mean = self.x / self.count, self.y / self.count
        gram = self.xx - self.count * np.outer(x_mean, x_mean)
        toward = self.xy - self.count * np.outer(x_mean, y_mean) - gram
        return _widest(gram.astype(np.float32), toward.astype(np.float32), x_mean, y_mean, rank, ridge, inside)


def fit_remedies(
    tokens: np.ndarray, folds: np.ndarray, rank: int = SHARED_RANK, ridge: float = RIDGE, seed: int = 0
) -> tuple[tuple[Remedy, ...], dict[str, np.ndarray], Familiarity]:
    """Choose for each noise and severity among nothing, restoring, a map, and both; by cross-fitted error.

    A map is fitted to all severities of a family of kinds: what is met seldom has just the strength of one of them. It
    is kept where over all of them it saves a tenth (`WORTH`) of the error that is there without it.

    Args:
        tokens: float16 [P, 1 + 51 + restored, N, D]: P clean pictures, then under every condition of `NAMED`, then
            under those of `RESTORED` with their pixels restored.
        folds: integers [P]; a picture's error is measured by maps fitted on the other folds.
        rank: of the maps.
        ridge: of their regression, times the mean variance.
        seed: of the clusters of clean pictures.

    Returns:
        The remedies, the maps stacked as `Prototypes.maps`, and what clean pictures' tokens are like.
    """
    clean = tokens[:, 0].astype(np.float32)
    variance = float(((clean - clean.mean((0, 1))) ** 2).mean())
    conditions = [i for i, (kind, _) in enumerate(NAMED) if kind != "clean"]
    where = {(i, False): 1 + i for i in conditions}
    where |= {(i, True): 1 + len(NAMED) + n for n, i in enumerate(RESTORED)}
    pictures = pooled(clean)
    known = [_clean_clusters(pictures[folds != fold], seed) for fold in range(FOLDS)]
    inside = leading_directions(tokens, seed)
    bare, mapped, left, fitted = _fit_families(tokens, where, folds, rank, ridge, known, inside)
    bare, mapped = ({view: error / variance for view, error in errors.items()} for errors in (bare, mapped))
    worth = {family for family, views in _families(where).items() if _saved(views, bare, mapped) >= WORTH}
    remedies: list[Remedy] = []
    used: list[Family] = []
    for i in conditions:
        kind, severity = NAMED[i]
        ways = [(i, restored) for restored in (False, True) if (i, restored) in where]
        # A map comes behind the restorer wherever that alone brings tokens nearer. The error with the map does not
        # decide it: under strong noise all that a map can do is to draw tokens towards their mean, which makes the
        # error small and answers no better (docs/log.md).
        way = ways[-1] if bare[ways[-1]] < bare[ways[0]] - GAIN else ways[0]
        family = FAMILIES.get(kind, kind), way[1]
        options = [(bare[w], w[1], False) for w in ways] + [(mapped[way], way[1], True)] * (family in worth)
        # The simplest remedy within the gain of the best.
        best = min(error for error, _, _ in options)
        after, restored, with_map = next(o for o in options if o[0] <= best + GAIN)
        index = farthest = None
        if with_map:
            used += [family] if family not in used else []
            index, farthest = used.index(family), round(float(np.quantile(left[way], MOVED)), 4)
        remedies.append(Remedy(kind, severity, restored, index, round(bare[i, False], 4), round(after, 4), farthest))
    maps = _stack([fitted[family] for family in used], tokens.shape[3], rank)
    return tuple(remedies), maps, _clean_clusters(pictures, seed)


def _clean_clusters(values: np.ndarray, seed: int) -> Familiarity:
    """Of pooled clean pictures, float64 [P, 2 D]."""
    count = max(1, min(CLUSTERS, len(values) // PER_CLUSTER))
    return fit_clusters(values, cluster(values, count, np.random.default_rng(seed)))


def _fit_families(
    tokens: np.ndarray,
    where: dict[View, int],
    folds: np.ndarray,
    rank: int,
    ridge: float,
    known: list[Familiarity],
    inside: np.ndarray | None,
) -> tuple[dict[View, float], dict[View, float], dict[View, np.ndarray], dict[Family, LowRankMap]]:
    """Mean squared error of every view, as it is and with the map of its family where its picture was not fitted on;
    how far from clean pictures the map leaves its tokens there, float64 [P]; and the maps. `where`: the place of each
    view in `tokens`; `known`: the clean pictures outside each fold; `inside`: directions [D, K] that maps are fitted
    in, None for all."""
    clean = tokens[:, 0].astype(np.float32)
    truth = clean if inside is None else clean @ inside
    families = _families(where)
    bare: dict[View, float] = {}
    mapped: dict[View, float] = dict.fromkeys(where, 0.0)
    left = {view: np.empty(len(tokens)) for view in where}
    fitted: dict[Family, LowRankMap] = {}
    for family, views in tqdm(families.items(), unit="map", desc="remedies", disable=None):
        parts = [Sums(truth.shape[2]) for _ in range(FOLDS)]
        for view in views:
            seen = tokens[:, where[view]].astype(np.float32)
            bare[view] = float(((seen - clean) ** 2).mean())
            shown = seen if inside is None else seen @ inside
            for fold, part in enumerate(parts):
                part.add(shown[folds == fold], truth[folds == fold])
        for fold in range(FOLDS):
            held = folds == fold
            cross = _together([part for other, part in enumerate(parts) if other != fold]).fit(rank, ridge, inside)
            for view in views:
                seen = tokens[held, where[view]].astype(np.float32)
                moved = cross.apply(seen)
                mapped[view] += float(((moved - clean[held]) ** 2).sum()) / clean.size
                left[view][held] = known[fold].distance(moved)
        fitted[family] = _together(parts).fit(rank, ridge, inside)
    return bare, mapped, left, fitted


def _families(views: Iterable[View]) -> dict[Family, list[View]]:
    """Which views one map serves."""
    families: dict[Family, list[View]] = {}
    for view in views:
        kind = NAMED[view[0]][0]
        families.setdefault((FAMILIES.get(kind, kind), view[1]), []).append(view)
    return families


def _saved(views: list[View], bare: dict[View, float], mapped: dict[View, float]) -> float:
    """The share of the error of these views that their map saves, used where it saves any."""
    without = sum(bare[view] for view in views)
    return 1 - sum(min(bare[view], mapped[view]) for view in views) / without if without else 0.0


def _together(parts: Sequence[Sums]) -> Sums:
    whole = Sums(len(parts[0].x))
    for part in parts:
        whole += part
    return whole


def fit_low_rank_map(x: np.ndarray, y: np.ndarray, rank: int) -> LowRankMap:
    """Reduced-rank ridge regression of y - x on x, float32 [T, D] each (Mukherjee & Zhu 2011,
    https://doi.org/10.1002/sam.10138)."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    # The fitted values' widest directions are the best subspace of that rank. Few tokens: the same in their own, small
    # space (the dual form), where nothing as large as the width squared is computed.
    if len(x) < x.shape[1]:
        gram = centred @ centred.T
        ridge = RIDGE * np.trace(gram) / x.shape[1] * np.eye(len(gram), dtype=np.float32)
        dual = np.linalg.solve(gram + ridge, y - y_mean - centred)
        fitted = gram @ dual
        widest = np.linalg.eigh(fitted @ fitted.T)[1][:, : -rank - 1 : -1]
        directions = np.linalg.qr(fitted.T @ widest)[0]
        directions = np.pad(directions, ((0, 0), (0, rank - directions.shape[1])))
        down = centred.T @ (dual @ directions)
        return _rounded(down, directions, x_mean, y_mean)
    gram = centred.T @ centred
    return _widest(gram, centred.T @ (y - y_mean) - gram, x_mean, y_mean, rank, RIDGE)


def _widest(
    gram: np.ndarray,
    toward: np.ndarray,
    x_mean: np.ndarray,
    y_mean: np.ndarray,
    rank: int,
    ridge: float,
    inside: np.ndarray | None = None,
) -> LowRankMap:
    """From the centred x x and x (y - x), float32 [D, D], and the means; all are along `inside` where that is given."""
    width = len(gram) if inside is None else len(inside)
    steadied = gram + ridge * np.trace(gram) / width * np.eye(len(gram), dtype=np.float32)
    weights = np.linalg.solve(steadied, toward)
    directions = np.linalg.eigh(weights.T @ gram @ weights)[1][:, : -rank - 1 : -1]
    down = weights @ directions
    if inside is not None:
        down, directions, x_mean, y_mean = inside @ down, inside @ directions, inside @ x_mean, inside @ y_mean
    return _rounded(down, directions, x_mean, y_mean)


def _rounded(down: np.ndarray, directions: np.ndarray, x_mean: np.ndarray, y_mean: np.ndarray) -> LowRankMap:
    """As stored, so that the offset takes away exactly what `down` lets through."""
    down = down.astype(np.float16).astype(np.float32)
    up = directions.T.astype(np.float16).astype(np.float32)
    return LowRankMap(down, up, offset=x_mean.astype(np.float32) @ down, shift=(y_mean - x_mean).astype(np.float32))


def _stack(maps: list[LowRankMap], width: int, rank: int) -> dict[str, np.ndarray]:
    """As stored, also where there is none."""
    single = {"down": np.float16, "up": np.float16, "offset": np.float32, "shift": np.float32}
    empty = {"down": (0, width, rank), "up": (0, rank, width), "offset": (0, rank), "shift": (0, width)}
    stacked = {n: np.stack([getattr(m, n) for m in maps]) if maps else np.empty(empty[n]) for n in MAP_ARRAYS}
    return {n: a.astype(single[n]) for n, a in stacked.items()}
