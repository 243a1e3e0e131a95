"""Build noise prototypes and remedies for an encoder from unlabelled clean pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
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
from imc_lite.pdc.features import QUADRANTS, features, noise_statistics
from imc_lite.pdc.fit.bias_field import fit_bias_field
from imc_lite.pdc.fit.crossfit import draw_folds
from imc_lite.pdc.fit.discriminant import (
    CLUSTERS,
    CONDITIONS,
    KNOWN,
    NAMED,
    OUT_OF_DISTRIBUTION,
    fit_matcher,
    simplest,
    tells_anything,
)
from imc_lite.pdc.fit.leading import COLUMNS
from imc_lite.pdc.fit.low_rank_map import (
    DEFAULT_RANK,
    DEFAULT_RIDGE,
    RESTORED,
    RIDGE,
    SHARED_RANK,
    fit_remedies,
)
from imc_lite.pdc.full_size import restore_for
from imc_lite.pdc.matcher import Matcher
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.restorers import RESTORERS_VERSION

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM, Perception
    from imc_lite.models.default.packaged import PackagedEncoder

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

    Of another model than the default one, noise is read from the default model's encoder where that names it better on
    pictures that it was not fitted on (`Prototypes.noise_encoder`), as it does where the model's own tower hardly sees
    noise. What is done about it is always fitted to the model's own tokens.

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
            encoder whose statistics are the same for all, or ONNX Runtime is not installed.
    """
    if len(images) < FEWEST:
        raise ImcError(f"too few pictures for prototypes ({len(images)}); give at least {FEWEST}")
    rng = np.random.default_rng(seed)
    chosen = [images[i] for i in sorted(rng.permutation(len(images))[:limit])]
    for path in chosen:  # nobody should wait for hours to hear that the last one cannot be read
        load_image(path, window=window)
    packaged = None
    if model.statistics != QUADRANTS:
        from imc_lite.models.default.packaged import PackagedEncoder

        packaged = PackagedEncoder()
    # Tokens of every picture under every condition are more than memory should hold.
    with tempfile.TemporaryFile() as scratch:
        seen = observe_all(model, chosen, seed, workers, window, scratch, packaged)
        return fit_prototypes(model, seen, seed, rng, window, packaged)


@dataclass(frozen=True)
class Observations:
    """What the encoder makes of P pictures under every condition; rows are pictures.

    Attributes:
        features: float64 [P, 52, F].
        biased: float64 [P, C, F].
        tokens: float16 [P, V, N, D]. See `Observed`.
        by_packaged: features and biased once more, by the default model's encoder; None where it is the model's own.
    """

    features: np.ndarray
    biased: np.ndarray
    tokens: np.ndarray
    by_packaged: tuple[np.ndarray, np.ndarray] | None = None


def observe_all(
    model: MLLM,
    images: list[Path],
    seed: int,
    workers: int,
    window: str | None,
    scratch: IO[bytes],
    packaged: PackagedEncoder | None = None,
) -> Observations:
    """Encode all pictures and their noisy copies, by `packaged` too; the tokens go into the file `scratch`.

    Raises:
        ImcError: as `build_prototypes`.
    """
    found, tokens = [], None
    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(lambda i: observe(model, images[i], seed + i, window, packaged), range(len(images)))
        for i, seen in enumerate(tqdm(jobs, total=len(images), unit="picture", disable=None)):
            if tokens is None:
                tokens = np.memmap(scratch, np.float16, "w+", shape=(len(images), *seen.tokens.shape))
            found.append((*seen.own, *(seen.by_packaged or ())))
            tokens[i] = seen.tokens
    assert tokens is not None, "there are pictures"
    features, biased, *more = (np.stack(part) for part in zip(*found, strict=True))
    return Observations(features, biased, tokens, (more[0], more[1]) if more else None)


def fit_prototypes(
    model: MLLM,
    seen: Observations,
    seed: int,
    rng: np.random.Generator,
    window: str | None = None,
    packaged: PackagedEncoder | None = None,
) -> Prototypes:
    """Matcher, bias-field classifier and remedies, fitted to what `model` made of clean pictures and noisy copies.

    Args:
        model: whose prototypes they are.
        seen: by it, and by `packaged`.
        seed: of the noise, and of the bias-field classifier.
        rng: draws folds and clusters.
        window: that pictures were shown with.
        packaged: the default model's encoder, to read noise from where it names it better.

    Raises:
        ImcError: the encoder's statistics are the same for all pictures.
    """
    default = model.statistics == QUADRANTS
    matcher, noise_encoder, facts = _fit_naming(model, seen, seed, rng, packaged)
    rank, ridge = (DEFAULT_RANK, DEFAULT_RIDGE) if default else (SHARED_RANK, RIDGE)
    remedies, maps, clean = fit_remedies(seen.tokens, draw_folds(len(seen.tokens), rng), rank, ridge, seed)
    facts |= {**model.identity, "bank": BANK_VERSION, "restorers": RESTORERS_VERSION, "seed": seed}
    facts |= {"images": len(seen.tokens), "model": model.id, "dtype": "float32"}
    if window is not None:
        facts["window"] = canonical(window)
    return Prototypes(matcher, remedies, maps, facts, clean, noise_encoder)


def _fit_naming(
    model: MLLM, seen: Observations, seed: int, rng: np.random.Generator, packaged: PackagedEncoder | None
) -> tuple[Matcher, PackagedEncoder | None, dict[str, object]]:
    """The matcher; the encoder that it reads noise from, None where that is the model's own; and how much the right
    kinds of noise surprise either, which decides between them."""
    default = model.statistics == QUADRANTS
    if packaged is None or seen.by_packaged is None:
        matcher, _ = fit_matcher(seen.features, rng, model.statistics, CLUSTERS if default else 1)
        if default:
            matcher = replace(matcher, bias_field=fit_bias_field(seen.features[:, 0], seen.biased, seed))
        return matcher, None, {}
    table, biased = seen.by_packaged
    theirs, surprise = fit_matcher(table, deepcopy(rng))  # both are compared on the same folds
    surprises: dict[str, float | None] = {"own": None, "packaged": float(surprise.mean())}
    if tells_anything(seen.features):
        # It is matched by a kernel that holds 64 prototypes, and so one cluster of 52 (`kernels.match`).
        own, surprise_of_own = fit_matcher(seen.features, rng, model.statistics, most=1)
        surprises["own"] = float(surprise_of_own.mean())
        if simplest(np.stack([surprise_of_own, surprise])) == 0:
            return own, None, {"cross_entropy": surprises}
    theirs = replace(theirs, bias_field=fit_bias_field(table[:, 0], biased, seed))
    return theirs, packaged, {"cross_entropy": surprises}


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
        own: the features by the model's encoder (`_shallow`).
        tokens: float16 [1 + 51 + restored ones, N, D] as `fit_remedies` takes them, N at most 256
            and fewer of a tower whose tokens are wide.
        by_packaged: the features by the default model's encoder; None where it is not asked, or is the model's own.
    """

    own: tuple[np.ndarray, np.ndarray]
    tokens: np.ndarray
    by_packaged: tuple[np.ndarray, np.ndarray] | None


def tokens_kept(count: int, width: int) -> int:
    """Of a picture's tokens so many are kept to fit the maps, of wide ones fewer, so that files and sums stay small."""
    return min(count, MOST_TOKENS, max(1, MOST_TOKENS * COLUMNS // width))


def observe(
    model: MLLM, path: Path, seed: int, window: str | None = None, packaged: PackagedEncoder | None = None
) -> Observed:
    """Encode a picture and its noisy copies.

    Raises:
        ImcError: the picture cannot be read, or the encoder's values for it are no numbers or beyond half precision.
    """

    def check(stats: np.ndarray, tokens: np.ndarray | float = 0.0) -> None:
        # In half precision, as the maps are fitted, one such value would be infinite and spoil every map.
        if not ((np.abs(tokens) <= HALF).all() and np.isfinite(stats).all()):
            raise ImcError(
                f"for {shown(path)} or a noisy copy of it the encoder gives values that are no numbers or beyond "
                f"{HALF:,.0f}, to which nothing can be fitted; leave that picture out"
            )

    def perceive(picture: np.ndarray) -> Perception:
        seen = model.perceive(picture)
        check(seen.stats, seen.tokens)
        return seen

    def statistics(picture: np.ndarray) -> np.ndarray:
        check(stats := noise_statistics(model, picture))
        return stats

    image = load_image(path, window=window)
    # Examples of what is out of distribution are made at the reference size, as they always were.
    small = resize_picture(image, size_within(image.shape, REFERENCE))
    met = [apply_as_met(image, kind, severity, seed) for kind, severity in NAMED]
    strange = [apply_to_image(small, kind, level, seed) for kind, level in OUT_OF_DISTRIBUTION]
    # A seed far from every other picture's, so that no two get the same field.
    biased = [
        apply_as_met(image, "bias_field", severity, seed + 1_000_000 * draw)
        for draw in range(1, FIELDS)
        for severity in range(1, 6)
    ]
    seen = [perceive(picture) for picture in (image, *met, *(restore_for(model, met[i], *NAMED[i]) for i in RESTORED))]
    known, others = [p.stats for p in seen[1 : 1 + len(KNOWN)]], biased if model.statistics == QUADRANTS else []
    own = _shallow([*known, *map(statistics, (*strange, *others))], model.statistics)
    by_packaged = None
    if packaged is not None:
        by_packaged = _shallow([packaged.stats(p) for p in (*met[: len(KNOWN)], *strange, *biased)], QUADRANTS)
    # The same places in every picture, strewn, so that rows and columns of the grid are all met.
    count, width = seen[0].tokens.shape
    places = np.sort(np.random.default_rng(0).permutation(count)[: tokens_kept(count, width)])
    return Observed(own, np.stack([p.tokens[places] for p in seen]).astype(np.float16), by_packaged)


def _shallow(stats: Sequence[np.ndarray], statistics: str) -> tuple[np.ndarray, np.ndarray]:
    """Statistics under every condition of `CONDITIONS`, then under further bias fields, to features: float64 [52, F],
    and of all bias fields [C, F]."""
    found = features(np.stack(stats), statistics)
    first = [i for i, (kind, _) in enumerate(KNOWN) if kind == "bias_field"]
    return found[: len(CONDITIONS)], np.concatenate([found[first], found[len(CONDITIONS) :]])
