"""Build noise prototypes and remedies for an encoder from unlabelled clean pictures."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from imc_lite.errors import ImcError, shown
from imc_lite.images.dicom.file import is_dicom
from imc_lite.images.dicom.windows import canonical
from imc_lite.images.load import load_image
from imc_lite.images.resize import resize_picture, size_within
from imc_lite.noise.as_met import apply_as_met
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.planes import REFERENCE
from imc_lite.noise.registry import BANK_VERSION
from imc_lite.pdc.features import QUADRANTS, features
from imc_lite.pdc.fit.bias_field import fit_bias_field
from imc_lite.pdc.fit.crossfit import draw_folds
from imc_lite.pdc.fit.discriminant import CLUSTERS, KNOWN, NAMED, OUT_OF_DISTRIBUTION, fit_matcher
from imc_lite.pdc.fit.leading import COLUMNS
from imc_lite.pdc.fit.low_rank_map import (
    DEFAULT_RANK,
    DEFAULT_RIDGE,
    RESTORED,
    RIDGE,
    SHARED_RANK,
    fit_remedies,
)
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.restorers import RESTORERS_VERSION, restore

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM, Perception

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FEWEST = 16
MOST_TOKENS = 256  # of a picture that has more, so many are kept to fit the maps, which treat all alike
HALF = float(np.finfo(np.float16).max)  # 65,504
FIELDS = 3  # bias fields of each severity that a picture is put under: their directions differ


def build_prototypes(
    model: MLLM,
    images: list[Path],
    seed: int = 0,
    limit: int | None = None,
    workers: int = 1,
    window: str | None = None,
) -> Prototypes:
    """Fit prototypes and remedies to clean pictures and their noisy copies.

    Args:
        model: its encoder is what the prototypes are for.
        images: clean pictures, at least 16.
        seed: of the noise and of the choice of pictures.
        limit: use at most so many pictures, chosen at random.
        workers: pictures encoded at once.
        window: show the pictures, which must be DICOM then, with this one (`imc_lite.images.load.load_image`); the
            prototypes are for DICOM pictures that are shown so.

    Raises:
        ImcError: too few pictures, one that cannot be read or for which the encoder's values are out of range, or an
            encoder whose statistics are the same for all.
    """
    if len(images) < FEWEST:
        raise ImcError(f"{len(images)} pictures are too few for prototypes; give at least {FEWEST}")
    rng = np.random.default_rng(seed)
    chosen = [images[i] for i in sorted(rng.permutation(len(images))[:limit])]
    # Tokens of every picture under every condition are more than memory should hold.
    with tempfile.TemporaryFile() as scratch:
        seen = observe_all(model, chosen, seed, workers, window, scratch)
        return fit_prototypes(model, seen, seed, rng, window)


@dataclass(frozen=True)
class Observations:
    """What the encoder makes of P pictures under every condition; rows are pictures.

    Attributes:
        features: float64 [P, 52, F].
        biased: float64 [P, C, F].
        tokens: float16 [P, V, N, D]. See `Observed`.
    """

    features: np.ndarray
    biased: np.ndarray
    tokens: np.ndarray


def observe_all(
    model: MLLM, images: list[Path], seed: int, workers: int, window: str | None, scratch: IO[bytes]
) -> Observations:
    """Encode all pictures and their noisy copies; the tokens go into the file `scratch`.

    Raises:
        ImcError: as `build_prototypes`.
    """
    table, biased, tokens = [], [], None
    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(lambda i: observe(model, images[i], seed + i, window), range(len(images)))
        for i, seen in enumerate(tqdm(jobs, total=len(images), unit="picture", disable=None)):
            if tokens is None:
                tokens = np.memmap(scratch, np.float16, "w+", shape=(len(images), *seen.tokens.shape))
            table.append(seen.features)
            biased.append(seen.biased)
            tokens[i] = seen.tokens
    assert tokens is not None, "there are pictures"
    return Observations(np.stack(table), np.stack(biased), tokens)


def fit_prototypes(
    model: MLLM, seen: Observations, seed: int, rng: np.random.Generator, window: str | None = None
) -> Prototypes:
    """Matcher, bias-field classifier and remedies, fitted to what `model` made of clean pictures and noisy copies.

    Args:
        model: whose prototypes they are.
        seen: by it.
        seed: of the noise, and of the bias-field classifier.
        rng: draws folds and clusters.
        window: that pictures were shown with.

    Raises:
        ImcError: the encoder's statistics are the same for all pictures.
    """
    default = model.statistics == QUADRANTS
    # Other models are matched by a kernel that holds 64 prototypes, and so one cluster of 52 (`kernels.match`).
    matcher = fit_matcher(seen.features, rng, model.statistics, CLUSTERS if default else 1)
    if default:
        matcher = replace(matcher, bias_field=fit_bias_field(seen.features[:, 0], seen.biased, seed))
    rank, ridge = (DEFAULT_RANK, DEFAULT_RIDGE) if default else (SHARED_RANK, RIDGE)
    remedies, maps, clean = fit_remedies(seen.tokens, draw_folds(len(seen.tokens), rng), rank, ridge, seed)
    facts = {**model.identity, "bank": BANK_VERSION, "restorers": RESTORERS_VERSION, "seed": seed}
    facts |= {"images": len(seen.tokens), "model": model.id, "dtype": "float32"}
    if window is not None:
        facts["window"] = canonical(window)
    return Prototypes(matcher, remedies, maps, facts, clean)


def find_images(folder: Path) -> list[Path]:
    """The pictures below a folder, in a fixed order."""
    if not folder.is_dir():
        raise ImcError(f"{shown(folder)} is not a folder; name one that holds clean pictures")
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


@dataclass(frozen=True)
class Observed:
    """What the encoder makes of one picture under every condition, as it is met (`imc_lite.noise.as_met`).

    Attributes:
        features: float64 [52, F], in the order of `CONDITIONS`.
        biased: float64 [15, F] under bias fields, [5, F] where no bias-field classifier is fitted.
        tokens: float16 [1 + 51 + restored ones, N, D] as `fit_remedies` takes them, N at most 256
            and fewer of a tower whose tokens are wide.
    """

    features: np.ndarray
    biased: np.ndarray
    tokens: np.ndarray


def tokens_kept(count: int, width: int) -> int:
    """Of a picture's tokens so many are kept to fit the maps, of wide ones fewer, so that files and sums stay small."""
    return min(count, MOST_TOKENS, max(1, MOST_TOKENS * COLUMNS // width))


def observe(model: MLLM, path: Path, seed: int, window: str | None = None) -> Observed:
    """Encode a picture and its noisy copies.

    Raises:
        ImcError: the picture cannot be read, or the encoder's values for it are no numbers or beyond half precision.
    """

    def perceive(picture: np.ndarray) -> Perception:
        seen = model.perceive(picture)
        # In half precision, as the maps are fitted, one such value would be infinite and spoil every map.
        if not ((np.abs(seen.tokens) <= HALF).all() and np.isfinite(seen.stats).all()):
            raise ImcError(
                f"for {shown(path)} or a noisy copy of it the encoder gives values that are no numbers or beyond "
                f"{HALF:,.0f}, to which nothing can be fitted; leave that picture out"
            )
        return seen

    image = load_image(path, window=window)
    # Examples of what is out of distribution are made at the reference size, as they always were.
    small = resize_picture(image, size_within(image.shape, REFERENCE))
    met = [apply_as_met(image, kind, severity, seed) for kind, severity in NAMED]
    seen = [perceive(picture) for picture in (image, *met, *(restore(met[i], *NAMED[i]) for i in RESTORED))]
    strange = [perceive(apply_to_image(small, kind, level, seed)).stats for kind, level in OUT_OF_DISTRIBUTION]
    found = features(np.stack([*(p.stats for p in seen[1 : 1 + len(KNOWN)]), *strange]), model.statistics)
    first = [i for i, (kind, _) in enumerate(KNOWN) if kind == "bias_field"]
    # A seed far from every other picture's, so that no two get the same field.
    more = [
        perceive(apply_as_met(image, "bias_field", severity, seed + 1_000_000 * draw)).stats
        for draw in range(1, FIELDS if model.statistics == QUADRANTS else 1)
        for severity in range(1, 6)
    ]
    biased = np.concatenate([found[first], *(features(stats, model.statistics)[None] for stats in more)])
    # The same places in every picture, strewn, so that rows and columns of the grid are all met.
    count, width = seen[0].tokens.shape
    places = np.sort(np.random.default_rng(0).permutation(count)[: tokens_kept(count, width)])
    return Observed(found, biased, np.stack([p.tokens[places] for p in seen]).astype(np.float16))
