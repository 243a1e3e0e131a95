"""Build noise prototypes and remedies for an encoder from unlabelled clean pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imc_lite.errors import ImcError, shown
from imc_lite.images.dicom.file import is_dicom
from imc_lite.images.dicom.windows import canonical
from imc_lite.images.load import load_image
from imc_lite.noise.registry import BANK_VERSION
from imc_lite.pdc.features import QUADRANTS
from imc_lite.pdc.fit.crossfit import draw_folds
from imc_lite.pdc.fit.discriminant import (
    CLUSTERS,
    fit_matcher,
    simplest,
    tells_anything,
)
from imc_lite.pdc.fit.kernel_classifier import fit_bias_field, fit_strange
from imc_lite.pdc.fit.low_rank_map import (
    DEFAULT_RANK,
    DEFAULT_RIDGE,
    RIDGE,
    SHARED_RANK,
    fit_remedies,
)
from imc_lite.pdc.fit.observe import WEIGHTS, Observations, Shallow, observe_all, observe_clean
from imc_lite.pdc.matcher import Matcher
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.restorers import RESTORERS_VERSION

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM
    from imc_lite.models.default.packaged import PackagedEncoder

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FEWEST = 16


def build_prototypes(
    model: MLLM,
    images: list[Path],
    seed: int = 0,
    limit: int | None = None,
    workers: int = 1,
    window: str | None = None,
    further: Sequence[Path] = (),
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
        further: clean pictures that are looked at without noise, also in panels, which takes four passes each: what is
            rare among clean ones should not be called strange. Of use where noise is read from the default model's
            encoder.

    Raises:
        ImcError: too few pictures, one that cannot be read or for which the encoder's values are out of range, or an
            encoder whose statistics are the same for all, or ONNX Runtime is not installed.
    """
    if len(images) < FEWEST:
        raise ImcError(f"too few pictures for prototypes ({len(images)}); give at least {FEWEST}")
    rng = np.random.default_rng(seed)
    chosen = [images[i] for i in sorted(rng.permutation(len(images))[:limit])]
    for path in (*chosen, *further):  # nobody should wait for hours to hear that the last one cannot be read
        load_image(path, window=window)
    packaged = None
    if model.statistics != QUADRANTS:
        from imc_lite.models.default.packaged import PackagedEncoder

        packaged = PackagedEncoder()
    # Tokens of every picture under every condition are more than memory should hold.
    with tempfile.TemporaryFile() as scratch:
        seen = observe_all(model, chosen, seed, workers, window, scratch, packaged)
        if further:
            seen = replace(seen, further=observe_clean(model, list(further), seed, workers, window, packaged))
        return fit_prototypes(model, seen, seed, rng, window, packaged)


def fit_prototypes(
    model: MLLM,
    seen: Observations,
    seed: int,
    rng: np.random.Generator,
    window: str | None = None,
    packaged: PackagedEncoder | None = None,
) -> Prototypes:
    """Matcher, its classifiers and remedies, fitted to what `model` made of clean pictures and noisy copies.

    Args:
        model: whose prototypes they are.
        seen: by it, and by `packaged`.
        seed: of the noise, and of the classifiers.
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
        matcher, _ = fit_matcher(seen.own.known, rng, model.statistics, CLUSTERS if default else 1)
        return _looking_again(matcher, seen.own, seen.further, seed) if default else matcher, None, {}
    theirs, surprise = fit_matcher(seen.by_packaged.known, deepcopy(rng))  # both are compared on the same folds
    surprises: dict[str, float | None] = {"own": None, "packaged": float(surprise.mean())}
    if tells_anything(seen.own.known):
        # It is matched by a kernel that holds 64 prototypes, and so one cluster of 52 (`kernels.match`).
        own, surprise_of_own = fit_matcher(seen.own.known, rng, model.statistics, most=1)
        surprises["own"] = float(surprise_of_own.mean())
        if simplest(np.stack([surprise_of_own, surprise])) == 0:
            return own, None, {"cross_entropy": surprises}
    return _looking_again(theirs, seen.by_packaged, seen.further, seed), packaged, {"cross_entropy": surprises}


def _looking_again(matcher: Matcher, seen: Shallow, further: np.ndarray | None, seed: int) -> Matcher:
    """With what looks again at pictures that the prototypes take for clean."""
    bias_field = fit_bias_field(seen.known[:, 0], seen.biased, seed)
    strange = fit_strange(seen.clean, seen.strange, seed, further, WEIGHTS)
    return replace(matcher, bias_field=bias_field, strange=strange)


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
