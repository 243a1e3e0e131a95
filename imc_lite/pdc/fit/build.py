"""Build noise prototypes and remedies for an encoder from unlabelled clean pictures."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.errors import ImcError
from imc_lite.images.dicom.file import is_dicom
from imc_lite.images.load import load_image
from imc_lite.models.base import MLLM
from imc_lite.noise import BANK_VERSION
from imc_lite.noise.artefacts import FOREIGN, spoil
from imc_lite.noise.image import apply
from imc_lite.pdc.bias_field import fit_shading
from imc_lite.pdc.fit.discriminant import CLUSTERS, FOLDS, KNOWN, fit_matcher
from imc_lite.pdc.matcher import QUADRANTS, features
from imc_lite.pdc.prototypes import TRANSPORT_ARRAYS, Prototypes, Remedy
from imc_lite.pdc.restorers import RESTORERS, restore
from imc_lite.sms.selftest import can_rewrite

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FEWEST = 16
RANK = 64
RIDGE = 0.3  # times the mean variance; cross-fitted error is flat from 0.1 to 1
GAIN = 0.01  # a remedy that saves less than this share of the clean variance is not kept: do no harm first
TOKENS = 256  # of a picture that has more, so many are kept to fit the maps, which treat all alike
SHADED_DRAWS = 3  # fields of each severity that a picture is shaded by: their directions differ
RESTORED = tuple(i for i, (kind, _) in enumerate(KNOWN) if kind in RESTORERS)


def build_prototypes(
    model: MLLM, images: list[Path], seed: int = 0, limit: int | None = None, workers: int = 1
) -> Prototypes:
    """Fit prototypes and remedies to clean pictures and their noisy copies.

    Args:
        model: its encoder is what the prototypes are for.
        images: clean pictures, at least 16.
        seed: of the noise and of the choice of pictures.
        limit: use at most so many pictures, chosen at random.
        workers: pictures encoded at once.

    Raises:
        ImcError: too few pictures, or one cannot be read.
    """
    if len(images) < FEWEST:
        raise ImcError(f"{len(images)} pictures are too few for prototypes; give at least {FEWEST}")
    rng = np.random.default_rng(seed)
    chosen = [images[i] for i in sorted(rng.permutation(len(images))[:limit])]
    # Tokens of every picture under every condition are more than memory should hold.
    with tempfile.TemporaryFile() as scratch, ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(lambda i: see(model, load_image(chosen[i]), seed + i), range(len(chosen)))
        table, shaded, tokens = [], [], None
        for i, (found, fields, seen) in enumerate(tqdm(jobs, total=len(chosen), unit="picture", disable=None)):
            if tokens is None:
                tokens = np.memmap(scratch, np.float16, "w+", shape=(len(chosen), *seen.shape))
            table.append(found)
            shaded.append(fields)
            tokens[i] = seen
        features_of = np.stack(table)
        default = model.statistics == QUADRANTS
        matcher = fit_matcher(features_of, rng, model.statistics, CLUSTERS if default else 1)
        if default:
            matcher = replace(matcher, shading=fit_shading(features_of[:, 0], np.stack(shaded), seed))
        remedies, maps = fit_remedies(tokens, rng.permutation(len(chosen)) % FOLDS)
    facts = {**model.identity, "bank": BANK_VERSION, "seed": seed, "images": len(chosen), "model": model.id}
    return Prototypes(matcher, remedies, maps, facts | {"dtype": "float32", "rewrites": can_rewrite(model)})


def find_images(folder: Path) -> list[Path]:
    """The pictures below a folder, in a fixed order."""
    if not folder.is_dir():
        raise ImcError(f"{folder} is not a folder; name one that holds clean pictures")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES or _is_dicom(p))


def _is_dicom(path: Path) -> bool:
    """DICOM files of an archive mostly have no suffix; their DICOMDIR has none either and is no picture."""
    if path.name == "DICOMDIR" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(132), path.name)
    except OSError:
        return False


def see(model: MLLM, image: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [48, F] of a picture under every condition and [5 or 15, F] of shaded ones; tokens float16
    [36 + restored ones, N, D], N at most 256."""
    known = [image if kind == "clean" else apply(image, kind, severity, seed) for kind, severity in KNOWN]
    restored = [restore(known[i], *KNOWN[i]) for i in RESTORED]
    seen = [model.perceive(picture) for picture in (*known, *restored)]
    foreign = [model.perceive(spoil(image, kind, level, seed)).stats for kind, level in FOREIGN]
    stats = features(np.stack([*(p.stats for p in seen[: len(known)]), *foreign]), model.statistics)
    first = [i for i, (kind, _) in enumerate(KNOWN) if kind == "bias_field"]
    # A seed far from every other picture's, so that no two are shaded alike.
    more = [
        model.perceive(apply(image, "bias_field", severity, seed + 1_000_000 * draw)).stats
        for draw in range(1, SHADED_DRAWS if model.statistics == QUADRANTS else 1)
        for severity in range(1, 6)
    ]
    shaded = np.concatenate([stats[first], *(features(s, model.statistics)[None] for s in more)])
    # The same places in every picture, strewn, so that rows and columns of the grid are all met.
    count = len(seen[0].tokens)
    places = np.sort(np.random.default_rng(0).permutation(count)[:TOKENS])
    return stats, shaded, np.stack([p.tokens[places] for p in seen]).astype(np.float16)


def fit_remedies(
    tokens: np.ndarray, folds: np.ndarray, rank: int = RANK
) -> tuple[tuple[Remedy, ...], dict[str, np.ndarray]]:
    """Choose for each noise and severity among nothing, restoring, a map, and both; by cross-fitted error.

    Args:
        tokens: [P, 36 + restored, N, D] as from `see`.
        folds: integers [P]; a picture's error is measured by maps fitted on the other folds.
    """
    clean = tokens[:, 0].astype(np.float32)
    variance = float(((clean - clean.mean((0, 1))) ** 2).mean())
    remedies, maps = [], []
    for i, (kind, severity) in enumerate(tqdm(KNOWN, unit="noise", desc="remedies", disable=None)):
        if kind == "clean":
            continue
        noisy = tokens[:, i].astype(np.float32)
        before = float(((noisy - clean) ** 2).mean()) / variance
        options = [(before, False, None)]
        views = [(False, noisy)]
        if i in RESTORED:
            views.append((True, tokens[:, len(KNOWN) + RESTORED.index(i)].astype(np.float32)))
            options.append((float(((views[1][1] - clean) ** 2).mean()) / variance, True, None))
        options += [(cross_error(view, clean, folds, rank) / variance, done, view) for done, view in views]
        # The simplest remedy within the gain of the best.
        best = min(error for error, _, _ in options)
        after, restored, view = next(o for o in options if o[0] <= best + GAIN)
        index = None
        if view is not None:
            index = len(maps)
            maps.append(fit_transport(view.reshape(-1, view.shape[2]), clean.reshape(-1, view.shape[2]), rank))
        remedies.append(Remedy(kind, severity, restored, index, round(before, 4), round(after, 4)))
    width, single = tokens.shape[3], {"down": np.float16, "up": np.float16, "offset": np.float32, "shift": np.float32}
    empty = {"down": (0, width, rank), "up": (0, rank, width), "offset": (0, rank), "shift": (0, width)}
    stacked = {n: np.stack([m[n] for m in maps]) if maps else np.empty(empty[n]) for n in TRANSPORT_ARRAYS}
    return tuple(remedies), {n: a.astype(single[n]) for n, a in stacked.items()}


def cross_error(view: np.ndarray, clean: np.ndarray, folds: np.ndarray, rank: int) -> float:
    """Mean squared error of mapped tokens [P, N, D] where their picture was not fitted on."""
    total = 0.0
    for fold in range(FOLDS):
        held = folds == fold
        x, y = (a[~held].reshape(-1, a.shape[2]) for a in (view, clean))
        mapped = transport(view[held], fit_transport(x, y, rank))
        total += float(((mapped - clean[held]) ** 2).sum())
    return total / clean.size


def transport(x: np.ndarray, fitted: dict[str, np.ndarray]) -> np.ndarray:
    """Tokens [..., D] through a map."""
    return x + (x @ fitted["down"] - fitted["offset"]) @ fitted["up"] + fitted["shift"]


def fit_transport(x: np.ndarray, y: np.ndarray, rank: int) -> dict[str, np.ndarray]:
    """Reduced-rank ridge regression of y - x on x, [T, D] each (Mukherjee & Zhu 2011, 10.1002/sam.10138)."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    # The fitted values' widest directions are the best subspace of that rank. Few tokens: the same in their own, small
    # space (the dual form).
    if len(x) < x.shape[1]:
        gram = centred @ centred.T
        ridge = RIDGE * np.trace(gram) / x.shape[1] * np.eye(len(gram), dtype=np.float32)
        dual = np.linalg.solve(gram + ridge, y - y_mean - centred)
        weights = centred.T @ dual
        directions = np.linalg.svd(gram @ dual, full_matrices=False)[2][:rank].T
        directions = np.pad(directions, ((0, 0), (0, rank - directions.shape[1])))
    else:
        gram = centred.T @ centred
        ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
        weights = np.linalg.solve(gram + ridge, centred.T @ (y - y_mean) - gram)
        directions = np.linalg.eigh(weights.T @ gram @ weights)[1][:, : -rank - 1 : -1]
    # Rounded as stored, so that the offset takes away exactly what `down` lets through.
    down = (weights @ directions).astype(np.float16)
    return {
        "down": down.astype(np.float32),
        "up": directions.T.astype(np.float16).astype(np.float32),
        "offset": x_mean @ down.astype(np.float32),
        "shift": y_mean - x_mean,
    }
