"""Which noise does a picture carry? Read from shallow statistics of the encoder pass it needs anyway.

Prototypes of every kind and severity, for each cluster of clean pictures (films, slices, cells …), lie in a
whitened space. Evidence about the noise is taken from the few directions that separate them; how foreign a
picture is, is judged in the rest, so that a strange picture does not pass for a noise. The formulas are those of
`imc_lite.kernels.match.reference.match_stats`, which is the specification; this is numpy, so that a CPU needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imc_lite.pdc.bias_field import Shading
from imc_lite.results import Noise

CHANNELS = (32, 16, 24, 48, 88)  # stem and blocks 0, 2, 5, 10 of the default encoder


QUADRANTS, TOKENS = "quadrants", "tokens"  # what an encoder's statistics are, and so how features are made of them


def features(stats: np.ndarray, statistics: str = QUADRANTS) -> np.ndarray:
    """Statistics of an encoder pass -> float64 features that noise moves more than content does.

    Args:
        stats: float32 [..., S].
        statistics: "quadrants", the default encoder's moments by quadrant, [..., 1664] -> [..., 832]; or "tokens",
            means and deviations over the tokens of early hidden states, as many features as statistics, on the
            signed log scale of `imc_lite.kernels.match.reference.pool`.
    """
    if statistics == TOKENS:
        values = stats.astype(np.float64)
        return np.sign(values) * np.log1p(np.abs(values))
    return _quadrants(stats)


def _quadrants(stats: np.ndarray) -> np.ndarray:
    """Quadrant moments float32 [..., 1664] -> float64 [..., 832].

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
class Matcher:
    """Whitened noise prototypes; K of them, R directions, F features.

    Attributes:
        mean: float32 [F].
        whiten: float32 [F, R]; divided by the square root of the temperature, so that evidence is calibrated.
        points: float32 [K, R]; the prototypes.
        bias: float32 [K]; evidence added, above zero for clean (do no harm first).
        precision: float32 [F]; inverse variance of what the directions leave unexplained.
        reconstruct: float32 [R, F]; back from the directions to features.
        kinds: K names; severities: K integers, 0 for clean.
        novelty_limit: above this a picture is unknown.
        familiar_limit: above this its noise is named, but its tokens are not what the maps were fitted on.
        shading: decides between clean and shaded pictures; None leaves that to the prototypes.
        statistics: how `features` makes F of what the encoder gives.
    """

    mean: np.ndarray
    whiten: np.ndarray
    points: np.ndarray
    bias: np.ndarray
    precision: np.ndarray
    reconstruct: np.ndarray
    kinds: tuple[str, ...]
    severities: tuple[int, ...]
    novelty_limit: float
    familiar_limit: float
    shading: Shading | None = None
    statistics: str = QUADRANTS

    def match(self, stats: np.ndarray, evidence: Evidence | None = None) -> tuple[Noise, bool]:
        """Verdict on one picture's statistics, float32 [S], and whether it is a familiar kind of picture.

        "unknown" when it lies farther from every prototype than clean and noisy pictures of the known kinds do.
        `evidence` is where it is computed, `MLLM.evidence`; here by default.
        """
        values = features(stats, self.statistics)[None]
        probabilities, novelty = self.evidence(values) if evidence is None else evidence(self, values)
        return self.verdict(probabilities[0], float(novelty[0]), values)

    def verdict(self, probabilities: np.ndarray, novelty: float, values: np.ndarray) -> tuple[Noise, bool]:
        """From the probabilities of the prototypes, float [K], the novelty, and the features [1, F]."""
        if not novelty <= self.novelty_limit:
            # The farther beyond the limit, the surer.
            return Noise("unknown", 0, float(1 - 0.5 * self.novelty_limit / novelty)), False
        by_kind: dict[str, float] = {}
        for kind, probability in zip(self.kinds, probabilities, strict=True):
            by_kind[kind] = by_kind.get(kind, 0.0) + float(probability)
        kind = max(by_kind, key=by_kind.__getitem__)
        if self.shading is not None and kind in ("clean", "bias_field"):
            both = by_kind["clean"] + by_kind["bias_field"]
            shaded = 1 / (1 + np.exp(-float(self.shading.log_odds(values)[0])))
            kind, by_kind["clean"] = ("bias_field" if shaded > 0.5 else "clean"), both * (1 - shaded)
            by_kind["bias_field"] = both * shaded
        inside = np.where([k == kind for k in self.kinds], probabilities, 0)
        severity = round(float(inside @ np.array(self.severities) / inside.sum()))
        return Noise(kind, severity, min(1.0, by_kind[kind])), novelty <= self.familiar_limit

    def evidence(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities [B, K] of the prototypes, novelty [B]."""
        apart = values - self.mean
        z = apart @ self.whiten
        logits = self.bias - 0.5 * ((z[:, None] - self.points) ** 2).sum(2)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        novelty = (self.precision * (apart - z @ self.reconstruct) ** 2).mean(1)
        return weights / weights.sum(1, keepdims=True), novelty


Evidence = Callable[[Matcher, np.ndarray], tuple[np.ndarray, np.ndarray]]
