"""Build noise prototypes for an encoder from unlabelled clean pictures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.errors import ImcError
from imc_lite.images import load_image
from imc_lite.models.ort import OrtMLLM
from imc_lite.noise import BANK_VERSION
from imc_lite.noise.image import IMAGE_KINDS, apply
from imc_lite.perception import Prototypes, features

CONDITIONS = (("clean", 0), *((kind, severity) for kind in IMAGE_KINDS for severity in range(1, 6)))
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FEWEST = 8
SHRINKAGE = 0.02
CLEAN_KEPT = 0.985  # share of clean pictures that cross-fitting must leave clean
KNOWN_KEPT = 0.985  # share of pictures of known conditions that must not be called unknown


def build_prototypes(
    model: OrtMLLM, images: list[Path], seed: int = 0, limit: int | None = None, workers: int = 1
) -> tuple[Prototypes, dict[str, object]]:
    """Fit prototypes to clean pictures and their noisy copies.

    Args:
        model: its encoder is what the prototypes are for.
        images: clean pictures, at least 8.
        seed: of the noise and of the choice of pictures.
        limit: use at most so many pictures, chosen at random.
        workers: pictures encoded at once.

    Returns:
        The prototypes and the facts to store with them.

    Raises:
        ImcError: too few pictures, or one cannot be read.
    """
    if len(images) < FEWEST:
        raise ImcError(f"{len(images)} pictures are too few for prototypes; give at least {FEWEST}")
    rng = np.random.default_rng(seed)
    chosen = [images[i] for i in sorted(rng.permutation(len(images))[:limit])]
    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(lambda i: condition_features(model, load_image(chosen[i]), seed + i), range(len(chosen)))
        table = np.stack(list(tqdm(jobs, total=len(chosen), unit="picture", desc="prototypes", disable=None)))
    fitted = calibrate(table, model.encoder_sha256, rng)
    facts = {"bank": BANK_VERSION, "seed": seed, "images": len(chosen), "model": model.id, "dtype": "float32"}
    return fitted, facts


def find_images(folder: Path) -> list[Path]:
    """The pictures below a folder, in a fixed order."""
    if not folder.is_dir():
        raise ImcError(f"{folder} is not a folder; name one that holds clean pictures")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def condition_features(model: OrtMLLM, image: np.ndarray, seed: int) -> np.ndarray:
    """Features of a picture under every condition: float64 [36, 832]."""
    return np.stack(
        [
            features(model.perceive(image if kind == "clean" else apply(image, kind, severity, seed)).stats)
            for kind, severity in CONDITIONS
        ]
    )


def calibrate(table: np.ndarray, encoder: str, rng: np.random.Generator) -> Prototypes:
    """Fit on all pictures; set temperature, clean bias and novelty limit where a fold was not fitted on.

    Args:
        table: float64 [N, K, F], every picture under every condition.
    """
    folds = np.arange(len(table)) % 4
    folds = folds[rng.permutation(len(folds))]
    white_points, residuals = [], []
    for fold in range(4):
        part = fit(table[folds != fold], encoder)
        flat = table[folds == fold].reshape(-1, table.shape[2])
        inside = ((flat - part.centre) @ part.whiten) @ part.basis
        white_points.append(((inside[:, None] - part.points) ** 2).sum(2).reshape(-1, len(CONDITIONS), len(CONDITIONS)))
        residuals.append(part.evidence(flat)[1].reshape(-1, len(CONDITIONS)))
    distances, residual = np.concatenate(white_points), np.concatenate(residuals)
    fitted = fit(table, encoder)
    temperature = min(np.geomspace(0.5, 60, 40), key=lambda t: _cross_entropy(distances, t))
    limit = max(np.quantile(residual[:, 0], KNOWN_KEPT), np.quantile(residual, KNOWN_KEPT))
    # The smallest bias towards clean that leaves enough clean pictures clean: do no harm first.
    clean = distances[:, 0]
    bias = 0.0
    while _clean_rate(clean, temperature, bias) < CLEAN_KEPT and bias < 20:
        bias += 0.1
    return replace(fitted, temperature=float(temperature), clean_bias=float(bias), novelty_limit=float(limit))


def fit(table: np.ndarray, encoder: str) -> Prototypes:
    """Whitening, separating directions and condition means of features [N, K, F]."""
    means = table.mean(0)
    within = (table - means).reshape(-1, table.shape[2])
    # Double precision throughout: hundreds of correlated channels leave tiny eigenvalues.
    covariance = within.T @ within / len(within)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(values)
    white = (means - means[0]) @ whiten
    basis = np.linalg.svd(white - white.mean(0), full_matrices=False)[2][: len(CONDITIONS) - 1].T
    return Prototypes(
        centre=means[0],
        whiten=whiten,
        basis=basis,
        points=white @ basis,
        kinds=tuple(k for k, _ in CONDITIONS),
        severities=tuple(s for _, s in CONDITIONS),
        temperature=1.0,
        clean_bias=0.0,
        novelty_limit=np.inf,
        encoder=encoder,
    )


def _by_kind(distances: np.ndarray, temperature: float, bias: float) -> np.ndarray:
    """Probability of each of the 8 kinds (clean first): [..., 36] -> [..., 8]."""
    logits = -0.5 * distances / temperature
    logits[..., 0] += bias
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    noisy = weights[..., 1:].reshape(*weights.shape[:-1], len(IMAGE_KINDS), 5).sum(-1)
    return np.concatenate([weights[..., :1], noisy], -1)


def _cross_entropy(distances: np.ndarray, temperature: float) -> float:
    probabilities = _by_kind(distances, temperature, 0.0)
    truth = np.array([0, *np.repeat(np.arange(1, len(IMAGE_KINDS) + 1), 5)])
    right = np.take_along_axis(probabilities, np.broadcast_to(truth[None, :, None], (len(distances), 36, 1)), 2)
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def _clean_rate(clean: np.ndarray, temperature: float, bias: float) -> float:
    return float((_by_kind(clean, temperature, bias).argmax(-1) == 0).mean())
