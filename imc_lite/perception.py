"""Which noise does a picture carry? Read from shallow statistics of the encoder pass it needs anyway.

Prototypes of every kind and severity lie in a whitened space. Evidence about the noise is taken from the few
directions that separate the prototypes; how far a picture lies outside all of them is judged in the rest, so
that a foreign picture does not pass for a noise (linear discriminant analysis, Fisher 1936; the split into
evidence and residual follows Lee et al., arXiv 1807.03888).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.results import Noise

CHANNELS = (32, 16, 24, 48, 88)  # stem and blocks 0, 2, 5, 10 of the default encoder
FORMAT = 1


def features(stats: np.ndarray) -> np.ndarray:
    """Quadrant moments float32 [..., 1664] -> float64 [..., 832] that noise moves more than content does.

    For each channel: mean, standard deviation, and how much either differs between the quadrants (a shading
    is invisible to the mean alone); all on a signed log scale, because channels differ by orders of magnitude.
    """
    parts, at = [], 0
    for channels in CHANNELS:
        block = stats[..., at : at + 8 * channels].reshape(*stats.shape[:-1], 2, 4, channels).astype(np.float64)
        at += 8 * channels
        mean, square = block[..., 0, :, :], block[..., 1, :, :]
        whole_mean, whole_square = mean.mean(-2), square.mean(-2)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        whole_spread = np.sqrt(np.maximum(whole_square - whole_mean**2, 0))
        parts += [whole_mean, whole_spread, mean.std(-2), spread.std(-2)]
    values = np.concatenate(parts, -1)
    return np.sign(values) * np.log1p(20 * np.abs(values))


@dataclass(frozen=True)
class Prototypes:
    """What `imc-lite prototypes build` writes.

    Attributes:
        centre: float32 [F]; features of clean pictures lie around it.
        whiten: float32 [F, F]; (f - centre) @ whiten has unit covariance within a condition.
        basis: float32 [F, R]; orthonormal directions that separate the conditions.
        points: float32 [K, R]; the conditions in that basis.
        kinds: K names, "clean" first; severities: K integers, 0 for clean.
        temperature: evidence is divided by it, so that probabilities are calibrated.
        clean_bias: added to the evidence for clean (what keeps clean pictures untouched).
        novelty_limit: residual distance beyond which a picture is unknown.
        encoder: SHA-256 of the encoder's weights that the statistics came from.
    """

    centre: np.ndarray
    whiten: np.ndarray
    basis: np.ndarray
    points: np.ndarray
    kinds: tuple[str, ...]
    severities: tuple[int, ...]
    temperature: float
    clean_bias: float
    novelty_limit: float
    encoder: str

    def match(self, stats: np.ndarray) -> Noise:
        """Verdict on one picture's statistics, float32 [1664].

        "unknown" when it lies farther from every condition than clean and noisy pictures of the known kinds do.
        Its probability then is that of being something else than the best-matching kind.
        """
        probabilities, novelty = self.evidence(features(stats)[None])
        by_kind = {k: float(probabilities[0, [n == k for n in self.kinds]].sum()) for k in dict.fromkeys(self.kinds)}
        kind = max(by_kind, key=by_kind.__getitem__)
        if novelty[0] > self.novelty_limit:
            return Noise("unknown", 0, float(1 - self.novelty_limit / novelty[0]))
        inside = np.where([n == kind for n in self.kinds], probabilities[0], 0)
        severity = round(float(inside @ np.array(self.severities) / inside.sum()))
        return Noise(kind, severity, by_kind[kind])

    def evidence(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities [B, K] of the conditions, residual distance [B]."""
        white = (values - self.centre) @ self.whiten
        inside = white @ self.basis
        distances = ((inside[:, None] - self.points) ** 2).sum(2)
        logits = -0.5 * distances / self.temperature
        logits[:, [k == "clean" for k in self.kinds]] += self.clean_bias
        logits -= logits.max(1, keepdims=True)
        weights = np.exp(logits)
        residual = (white**2).sum(1) - (inside**2).sum(1)
        return weights / weights.sum(1, keepdims=True), residual

    def save(self, path: Path, facts: dict[str, object]) -> None:
        """Write safetensors; everything that is no array goes into its JSON header, with the given facts."""
        from safetensors.numpy import save

        from imc_lite.files import write_atomically

        header = {
            "format": FORMAT,
            "kinds": self.kinds,
            "severities": self.severities,
            "temperature": self.temperature,
            "clean_bias": self.clean_bias,
            "novelty_limit": self.novelty_limit,
            "encoder": self.encoder,
            **facts,
        }
        arrays = {n: np.asarray(getattr(self, n), np.float32) for n in ("centre", "whiten", "basis", "points")}
        data = save(arrays, {"imc_lite": json.dumps(header)})
        write_atomically(path, lambda file: file.write(data))


def load_prototypes(path: Path, encoder: str) -> Prototypes:
    """Read prototypes built for the encoder with this SHA-256.

    Raises:
        ImcError: unreadable, or built for another encoder or format.
    """
    from safetensors import SafetensorError, safe_open

    remedy = "build them: imc-lite prototypes build"
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["imc_lite"])
            arrays = {name: file.get_tensor(name) for name in ("centre", "whiten", "basis", "points")}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ImcError(f"{path} holds no readable prototypes; {remedy}") from error
    if header.pop("format") != FORMAT:
        raise ImcError(f"the prototypes in {path} have another format; {remedy}")
    if header["encoder"] != encoder:
        raise ImcError(f"the prototypes in {path} belong to another encoder; {remedy}")
    known = ("temperature", "clean_bias", "novelty_limit", "encoder")
    lists = {"kinds": tuple(header["kinds"]), "severities": tuple(header["severities"])}
    return Prototypes(**arrays, **lists, **{k: header[k] for k in known})
