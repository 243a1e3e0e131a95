"""Fit low-rank maps from noisy to clean tokens, in closed form, and choose the remedy of each noise."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from imc_lite.pdc.fit.crossfit import FOLDS
from imc_lite.pdc.fit.discriminant import KNOWN
from imc_lite.pdc.prototypes import MAP_ARRAYS
from imc_lite.pdc.remedies import LowRankMap, Remedy
from imc_lite.pdc.restorers import RESTORERS

RANK = 64
RIDGE = 0.3  # times the mean variance; cross-fitted error is flat from 0.1 to 1
GAIN = 0.01  # a remedy that saves less than this share of the clean variance is not kept: do no harm first
RESTORED = tuple(i for i, (kind, _) in enumerate(KNOWN) if kind in RESTORERS)


def fit_remedies(
    tokens: np.ndarray, folds: np.ndarray, rank: int = RANK
) -> tuple[tuple[Remedy, ...], dict[str, np.ndarray]]:
    """Choose for each noise and severity among nothing, restoring, a map, and both; by cross-fitted error.

    Args:
        tokens: float16 [P, 36 + restored, N, D]: P pictures under every condition of `KNOWN`, then under those of
            `RESTORED` with their pixels restored.
        folds: integers [P]; a picture's error is measured by maps fitted on the other folds.
        rank: of the maps.

    Returns:
        The remedies, and the maps stacked as `Prototypes.maps`.
    """
    clean = tokens[:, 0].astype(np.float32)
    variance = float(((clean - clean.mean((0, 1))) ** 2).mean())
    remedies: list[Remedy] = []
    maps: list[LowRankMap] = []
    for i, (kind, severity) in enumerate(tqdm(KNOWN, unit="noise", desc="remedies", disable=None)):
        if kind == "clean":
            continue
        views = [(False, tokens[:, i].astype(np.float32))]
        if i in RESTORED:
            views.append((True, tokens[:, len(KNOWN) + RESTORED.index(i)].astype(np.float32)))
        options: list[tuple[float, bool, np.ndarray | None]] = [
            (float(((view - clean) ** 2).mean()) / variance, restored, None) for restored, view in views
        ]
        before = options[0][0]
        options += [(cross_error(view, clean, folds, rank) / variance, restored, view) for restored, view in views]
        # The simplest remedy within the gain of the best.
        best = min(error for error, _, _ in options)
        after, restored, view = next(o for o in options if o[0] <= best + GAIN)
        index = None
        if view is not None:
            index = len(maps)
            maps.append(fit_low_rank_map(view.reshape(-1, view.shape[2]), clean.reshape(-1, view.shape[2]), rank))
        remedies.append(Remedy(kind, severity, restored, index, round(before, 4), round(after, 4)))
    return tuple(remedies), _stack(maps, tokens.shape[3], rank)


def cross_error(view: np.ndarray, clean: np.ndarray, folds: np.ndarray, rank: int) -> float:
    """Mean squared error of mapped tokens [P, N, D] where their picture was not fitted on."""
    total = 0.0
    for fold in range(FOLDS):
        held = folds == fold
        x, y = (a[~held].reshape(-1, a.shape[2]) for a in (view, clean))
        mapped = fit_low_rank_map(x, y, rank).apply(view[held])
        total += float(((mapped - clean[held]) ** 2).sum())
    return total / clean.size


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
    else:
        gram = centred.T @ centred
        ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
        weights = np.linalg.solve(gram + ridge, centred.T @ (y - y_mean) - gram)
        directions = np.linalg.eigh(weights.T @ gram @ weights)[1][:, : -rank - 1 : -1]
        down = weights @ directions
    # Rounded as stored, so that the offset takes away exactly what `down` lets through.
    down = down.astype(np.float16).astype(np.float32)
    up = directions.T.astype(np.float16).astype(np.float32)
    return LowRankMap(down, up, offset=x_mean @ down, shift=y_mean - x_mean)


def _stack(maps: list[LowRankMap], width: int, rank: int) -> dict[str, np.ndarray]:
    """As stored, also where there is none."""
    single = {"down": np.float16, "up": np.float16, "offset": np.float32, "shift": np.float32}
    empty = {"down": (0, width, rank), "up": (0, rank, width), "offset": (0, rank), "shift": (0, width)}
    stacked = {n: np.stack([getattr(m, n) for m in maps]) if maps else np.empty(empty[n]) for n in MAP_ARRAYS}
    return {n: a.astype(single[n]) for n, a in stacked.items()}
