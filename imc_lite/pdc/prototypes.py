"""The prototypes of an encoder, and the file that they are kept in.

safetensors: the arrays of the matcher, of its classifiers (`shading.*` of bias fields, `strange.*`), of the low-rank
maps and of the clean pictures that these lead back to (`clean.*`); all that is no array stands in the header as JSON.
The names in the file are those of its first version, so that old files read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imc_lite.errors import UNREADABLE, ImcError, shown
from imc_lite.files import write_atomically
from imc_lite.images.dicom.windows import OWN, canonical
from imc_lite.noise.registry import BANK_VERSION
from imc_lite.pdc.familiarity import Familiarity
from imc_lite.pdc.features import QUADRANTS, TOKENS
from imc_lite.pdc.fitting_together import check_fit
from imc_lite.pdc.kernel_classifier import KernelClassifier
from imc_lite.pdc.matcher import Matcher
from imc_lite.pdc.remedies import LowRankMap, Remedy
from imc_lite.pdc.restorers import RESTORERS_VERSION

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM
    from imc_lite.models.default.packaged import PackagedEncoder

FORMAT = 3
MATCHER_ARRAYS = ("mean", "whiten", "points", "bias", "precision", "reconstruct")
MAP_ARRAYS = ("down", "up", "offset", "shift")
CLASSIFIER_ARRAYS = ("centre", "project", "landmarks", "dual", "offset")
CLEAN_ARRAYS = ("centres", "directions")
REBUILD = "build them: imc-lite prototypes build"


@dataclass(frozen=True)
class Prototypes:
    """What `imc-lite prototypes build` writes: the matcher, the remedies, and what they belong to.

    Attributes:
        matcher: names the noise.
        remedies: what to do about it.
        maps: the low-rank maps, stacked: down float16 [M, D, r], up float16 [M, r, D], offset float32 [M, r], shift
            float32 [M, D].
        facts: encoder (SHA-256 of its weights), preprocessing (SHA-256), versions of the noise bank and of the
            restorers, seed, number of pictures, id of the model; the window that DICOM pictures were shown with, where
            one was asked for.
        clean: what clean pictures' tokens are like, by which is seen whether a map led back to them; None in files from
            before that was looked at.
        noise_encoder: the encoder that the matcher reads noise from, where it is not the model's own.
    """

    matcher: Matcher
    remedies: tuple[Remedy, ...]
    maps: dict[str, np.ndarray]
    facts: dict[str, object]
    clean: Familiarity | None = None
    noise_encoder: PackagedEncoder | None = None

    @property
    def borrowed(self) -> bool:
        """Whether these are the default model's, for want of ones that were built for the model itself."""
        return self.noise_encoder is not None and self.facts["encoder"] == self.noise_encoder.identity["encoder"]

    def remedy(self, kind: str, severity: int) -> Remedy | None:
        """What is done about a noise: nothing where no remedy pays. None for clean and unknown pictures: they are left
        alone."""
        found = next((r for r in self.remedies if (r.kind, r.severity) == (kind, severity)), None)
        if found is None or found.pays:
            return found
        return replace(found, restore=False, map_index=None, after=found.before)

    def low_rank_map(self, remedy: Remedy) -> LowRankMap | None:
        """The map of a remedy, in float32; None where it has none."""
        if remedy.map_index is None:
            return None
        return LowRankMap(**{n: self.maps[n][remedy.map_index].astype(np.float32) for n in MAP_ARRAYS})

    def leads_back(self, remedy: Remedy, moved: np.ndarray) -> bool:
        """Whether tokens that a remedy's map has moved, float32 [N, D], are like those of clean pictures now, as far as
        those of pictures that it was not fitted to mostly are. Of other kinds of picture they mostly are not."""
        if self.clean is None or remedy.farthest is None:
            return True
        return float(self.clean.distance(moved)) <= remedy.farthest

    def check_window(self, window: str | None) -> None:
        """Refuse a grey DICOM picture that is shown otherwise than the pictures that these were fitted to.

        Other pictures have no window and pass; so does everything where these were built without one.

        Args:
            window: of the picture, see `imc_lite.images.load.LoadedImage`.

        Raises:
            ImcError: it is another window.
        """
        fitted = self.facts.get("window")
        if fitted is None or window is None or window == fitted:
            return
        way = "the file's own window" if window == OWN else f"--window {window}"
        raise ImcError(
            f"the prototypes were built with --window {fitted} and this picture is shown with {way}; "
            f"give --window {fitted}, or other prototypes"
        )

    def digest(self) -> str:
        """SHA-256 of everything that the file holds."""
        return sha256(self._bytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, all or nothing.

        Raises:
            ImcError: it cannot be written.
        """
        data = self._bytes()
        write_atomically(path, lambda file: file.write(data))

    def _bytes(self) -> bytes:
        from safetensors.numpy import save

        arrays = {n: np.ascontiguousarray(getattr(self.matcher, n), np.float32) for n in MATCHER_ARRAYS}
        header = {
            "format": FORMAT,
            "kinds": self.matcher.kinds,
            "severities": self.matcher.severities,
            "novelty_limit": self.matcher.unknown_limit,
            "familiar_limit": self.matcher.in_distribution_limit,
            "statistics": self.matcher.statistics,
            "remedies": [_row(r) for r in self.remedies],
            **self.facts,
        }
        # safetensors writes an array's memory as it lies: only C order is read back as what it was.
        arrays |= {n: np.ascontiguousarray(a) for n, a in self.maps.items()}
        for name, found in (("shading", self.matcher.bias_field), ("strange", self.matcher.strange)):
            if found is not None:
                arrays |= {f"{name}.{n}": np.ascontiguousarray(getattr(found, n)) for n in CLASSIFIER_ARRAYS}
        if self.clean is not None:
            arrays |= {f"clean.{n}": np.ascontiguousarray(getattr(self.clean, n)) for n in CLEAN_ARRAYS}
            header["clean_variance"] = self.clean.variance
        if self.noise_encoder is not None:
            header["noise_encoder"] = self.noise_encoder.identity
        return save(arrays, {"imc_lite": json.dumps(header)})


def load_prototypes(path: Path, wanted: dict[str, str]) -> Prototypes:
    """Read prototypes.

    Args:
        path: a file of `Prototypes.save`.
        wanted: `MLLM.identity` of the model that they are to be used with.

    Raises:
        ImcError: unreadable, or built for another encoder, preprocessing, noise bank, set of restorers or format, or
            noise is to be read from another packaged encoder than this version's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["imc_lite"])
            if header.pop("format") != FORMAT:
                raise ImcError(f"the prototypes in {shown(path)} have another format; {REBUILD}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        # Files written before there was a choice hold no word on it, and are of the default encoder.
        statistics = header.pop("statistics", QUADRANTS)
        if statistics not in (QUADRANTS, TOKENS):
            raise ImcError(
                f"the prototypes in {shown(path)} are of statistics {shown(statistics)!r}, unknown here; {REBUILD}"
            )
        # Before there was a limit for the maps alone, everything that got a name was calibrated.
        unknown = header.pop("novelty_limit")
        matcher = Matcher(
            **{n: arrays[n] for n in MATCHER_ARRAYS},
            kinds=tuple(header.pop("kinds")),
            severities=tuple(header.pop("severities")),
            unknown_limit=unknown,
            in_distribution_limit=header.pop("familiar_limit", unknown),
            bias_field=_classifier(arrays, "shading", wanted=statistics == QUADRANTS),
            strange=_classifier(arrays, "strange"),
            statistics=statistics,
        )
        remedies = tuple(_remedy(row) for row in header.pop("remedies"))
        maps = {n: arrays[n] for n in MAP_ARRAYS}
        clean = None
        if "clean_variance" in header:
            centres, directions = (arrays[f"clean.{n}"] for n in CLEAN_ARRAYS)
            clean = Familiarity(centres, directions, float(header.pop("clean_variance")))
        named_by = header.pop("noise_encoder", None)
        if "window" in header and header["window"] != _window(header["window"]):
            raise ValueError("no window")
        check_fit(matcher, maps, clean)
    except (OSError, SafetensorError, *UNREADABLE) as error:
        raise ImcError(f"{shown(path)} holds no readable prototypes; {REBUILD}") from error
    for name, value in {**wanted, "bank": BANK_VERSION}.items():
        if header.get(name) != value:
            raise ImcError(f"the prototypes in {shown(path)} belong to another {name}; {REBUILD}")
    # Files written before the restorers had a version were built with the first.
    if header.get("restorers", "1") != RESTORERS_VERSION:
        raise ImcError(f"the prototypes in {shown(path)} belong to another version of the restorers; {REBUILD}")
    return Prototypes(matcher, remedies, maps, header, clean, _noise_encoder(named_by, path))


def prototypes_of(model: MLLM, file: Path | None = None) -> Prototypes | None:
    """Those of a file, else those that come with a model, else the default model's as far as they serve any model.

    Args:
        model: whose pictures they are for.
        file: of `Prototypes.save`.

    Returns:
        None where there are none and ONNX Runtime, which the default model's encoder needs, is not installed.

    Raises:
        ImcError: as `load_prototypes`.
    """
    found = file or model.prototypes_file()
    if found is not None:
        return load_prototypes(found, model.identity)
    return packaged_prototypes() if find_spec("onnxruntime") is not None else None


def packaged_prototypes() -> Prototypes:
    """For a model that none were built for: noise is named by the default model's encoder and pixels are restored where
    that serves the default model; tokens are left alone."""
    from imc_lite.models.default.packaged import PackagedEncoder

    encoder = PackagedEncoder()
    with resources.as_file(resources.files("imc_lite.assets") / "prototypes.safetensors") as file:
        known = load_prototypes(file, encoder.identity)
    remedies = tuple(replace(r, map_index=None, farthest=None) for r in known.remedies)
    maps = {name: array[:0] for name, array in known.maps.items()}
    return replace(known, remedies=remedies, maps=maps, clean=None, noise_encoder=encoder)


def _noise_encoder(identity: dict[str, str] | None, path: Path) -> PackagedEncoder | None:
    """The encoder that a file says noise is read from; None where it is the model's own."""
    if identity is None:
        return None
    from imc_lite.models.default.packaged import PackagedEncoder

    encoder = PackagedEncoder()
    if identity != encoder.identity:
        raise ImcError(f"the prototypes in {shown(path)} read noise from another version's encoder; {REBUILD}")
    return encoder


def _window(found: object) -> str | None:
    """The spelling that a file should have; None where it is no window."""
    try:
        return canonical(found) if isinstance(found, str) else None
    except ImcError:
        return None


def _classifier(arrays: dict[str, np.ndarray], name: str, wanted: bool = False) -> KernelClassifier | None:
    """One of a file's classifiers; None where the file has none of its arrays.

    Raises:
        KeyError: the file has some of them only, or none though it must, `wanted`.
    """
    if not wanted and not any(key.startswith(f"{name}.") for key in arrays):
        return None
    return KernelClassifier(**{n: arrays[f"{name}.{n}"] for n in CLASSIFIER_ARRAYS})


def _row(remedy: Remedy) -> dict[str, Any]:
    """A remedy as the file has it."""
    return {
        "kind": remedy.kind,
        "severity": remedy.severity,
        "restore": remedy.restore,
        "transport": remedy.map_index,
        "before": remedy.before,
        "after": remedy.after,
        "farthest": remedy.farthest,
    }


def _remedy(row: dict[str, Any]) -> Remedy:
    return Remedy(map_index=row.pop("transport"), **row)
