"""Put noisy tokens back where clean ones lie: per noise kind and severity, what helps, and how much it leaves.

A `Remedy` says whether to restore the pixels first and which low-rank map to apply afterwards; both were kept only
where cross-fitting on clean pictures and their noisy copies showed a gain. The map is the one of
`imc_lite.kernels.calibrate.reference.calibrate`, exported to ONNX for hosts without torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.pdc.bias_field import Shading
from imc_lite.pdc.matcher import QUADRANTS, TOKENS, Matcher

FORMAT = 3
# A judgement: beyond this share of the tokens' variance (strong gaussian noise and motion blur) the default model's
# answers stay 2 to 4 points below clean ones after calibration (recipes/results/bench/results.json).
GRADABLE_LIMIT = 0.55
MATCHER_ARRAYS = ("mean", "whiten", "points", "bias", "precision", "reconstruct")
TRANSPORT_ARRAYS = ("down", "up", "offset", "shift")
SHADING_ARRAYS = ("centre", "project", "landmarks", "dual", "offset")


@dataclass(frozen=True)
class Transport:
    """x' = x + (x - m) V U + (c - m): V down [D, r], U up [r, D], m V offset [r], c - m shift [D], all float32."""

    down: np.ndarray
    up: np.ndarray
    offset: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Remedy:
    """What to do about one noise at one severity.

    `before` and `after` are the expected squared error of the tokens without and with the remedy, as shares of the
    variance of clean tokens. `transport` indexes the file's maps; None where none helps.
    """

    kind: str
    severity: int
    restore: bool
    transport: int | None
    before: float
    after: float

    @property
    def gradable(self) -> bool:
        """Whether enough of the picture is expected to reach the language model."""
        return self.after <= GRADABLE_LIMIT


@dataclass(frozen=True)
class Prototypes:
    """What `imc-lite prototypes build` writes: the matcher, the remedies, and what they belong to.

    `facts` holds encoder (SHA-256 of its weights), preprocessing (SHA-256), bank version, seed, number of pictures,
    and whether the model passed the self-test of rewriting questions.
    """

    matcher: Matcher
    remedies: tuple[Remedy, ...]
    maps: dict[str, np.ndarray]
    facts: dict[str, object]

    def remedy(self, kind: str, severity: int) -> Remedy | None:
        """None for clean and unknown pictures: they are left alone."""
        return next((r for r in self.remedies if (r.kind, r.severity) == (kind, severity)), None)

    def transport(self, remedy: Remedy) -> Transport | None:
        """The map of a remedy, in float32."""
        if remedy.transport is None:
            return None
        return Transport(**{n: self.maps[n][remedy.transport].astype(np.float32) for n in TRANSPORT_ARRAYS})

    def digest(self) -> str:
        """SHA-256 of everything that decides on a picture."""
        return sha256(self._bytes()).hexdigest()

    def save(self, path: Path) -> None:
        """Write safetensors; everything that is no array goes into its JSON header."""
        from imc_lite.files import write_atomically

        data = self._bytes()
        write_atomically(path, lambda file: file.write(data))

    def _bytes(self) -> bytes:
        from safetensors.numpy import save

        arrays = {n: np.ascontiguousarray(getattr(self.matcher, n), np.float32) for n in MATCHER_ARRAYS}
        header = {
            "format": FORMAT,
            "kinds": self.matcher.kinds,
            "severities": self.matcher.severities,
            "novelty_limit": self.matcher.novelty_limit,
            "familiar_limit": self.matcher.familiar_limit,
            "statistics": self.matcher.statistics,
            "remedies": [asdict(r) for r in self.remedies],
            **self.facts,
        }
        # safetensors writes an array's memory as it lies: only C order is read back as what it was.
        arrays |= {n: np.ascontiguousarray(a) for n, a in self.maps.items()}
        shading = self.matcher.shading
        if shading is not None:
            arrays |= {f"shading.{n}": np.ascontiguousarray(getattr(shading, n)) for n in SHADING_ARRAYS}
        return save(arrays, {"imc_lite": json.dumps(header)})


def load_prototypes(path: Path, wanted: dict[str, str]) -> Prototypes:
    """Read prototypes built for the encoder and preprocessing with these SHA-256 (`MLLM.identity`).

    Raises:
        ImcError: unreadable, or built for another encoder, preprocessing, noise bank or format.
    """
    from safetensors import SafetensorError, safe_open

    from imc_lite.noise import BANK_VERSION

    remedy = "build them: imc-lite prototypes build"
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["imc_lite"])
            if header.pop("format") != FORMAT:
                raise ImcError(f"the prototypes in {path} have another format; {remedy}")
            arrays = {name: file.get_tensor(name) for name in (*MATCHER_ARRAYS, *TRANSPORT_ARRAYS)}
            # Files written before there was a choice hold no word on it, and are of the default encoder.
            statistics = header.pop("statistics", QUADRANTS)
            if statistics not in (QUADRANTS, TOKENS):
                raise ImcError(f"the prototypes in {path} are of statistics {statistics!r}, unknown here; {remedy}")
            shading = None
            if statistics == QUADRANTS or "shading.centre" in set(file.keys()):
                shading = Shading(**{name: file.get_tensor(f"shading.{name}") for name in SHADING_ARRAYS})
        names = {"kinds": tuple(header.pop("kinds")), "severities": tuple(header.pop("severities"))}
        limits = {"novelty_limit": header.pop("novelty_limit")}
        # Files written before maps had a limit of their own: that of the default model's pictures lies above.
        limits["familiar_limit"] = header.pop("familiar_limit", limits["novelty_limit"])
        remedies = tuple(Remedy(**r) for r in header.pop("remedies"))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ImcError(f"{path} holds no readable prototypes; {remedy}") from error
    for name, value in {**wanted, "bank": BANK_VERSION}.items():
        if header.get(name) != value:
            raise ImcError(f"the prototypes in {path} belong to another {name}; {remedy}")
    matcher = Matcher(
        **{n: arrays[n] for n in MATCHER_ARRAYS}, **names, **limits, shading=shading, statistics=statistics
    )
    return Prototypes(matcher, remedies, {n: arrays[n] for n in TRANSPORT_ARRAYS}, header)
