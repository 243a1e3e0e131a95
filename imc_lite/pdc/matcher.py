"""Which noise does a picture carry? Read from shallow statistics of the encoder pass it needs anyway.

Every kind and severity has a prototype, one for each cluster of clean pictures (films, slices, cells …), in a whitened
space of few directions: those that separate the prototypes. Only these directions say which noise it is. All others
say how far the picture lies from what the prototypes were fitted to, its out-of-distribution score; kept apart, a
picture of another kind is not mistaken for a noisy one. The formulas are those of
`imc_lite.kernels.match.reference.match_stats`, which is the specification; this is numpy, so that a CPU needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from imc_lite.pdc.features import QUADRANTS, features
from imc_lite.pdc.kernel_classifier import KernelClassifier
from imc_lite.results import Noise


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
        unknown_limit: a picture with a higher out-of-distribution score is called unknown.
        in_distribution_limit: a picture with a higher score keeps the name of its noise, but does not count as
            in-distribution: its tokens are not like those that the low-rank maps were fitted on.
        bias_field: decides between a clean picture and a bias field; None leaves that to the prototypes.
        strange: tells a picture that is neither clean nor under a noise of the bank; None has none.
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
    unknown_limit: float
    in_distribution_limit: float
    bias_field: KernelClassifier | None = None
    strange: KernelClassifier | None = None
    statistics: str = QUADRANTS

    def match(self, stats: np.ndarray, evidence: Evidence | None = None) -> tuple[Noise, bool]:
        """The verdict on one picture, and whether the picture is in-distribution.

        Args:
            stats: float32 [S], of the encoder's pass.
            evidence: where it is computed, `MLLM.evidence`; here by default.
        """
        return self.examine(stats, evidence)[:2]

    def examine(self, stats: np.ndarray, evidence: Evidence | None = None) -> tuple[Noise, bool, float]:
        """Like `match`, and with it the out-of-distribution score. What is strange is unknown whatever its score."""
        values = features(stats, self.statistics)[None]
        probabilities, scores = self.evidence(values) if evidence is None else evidence(self, values)
        score = float(scores[0])
        return *self.verdict(probabilities[0], score, values), score

    def verdict(self, probabilities: np.ndarray, score: float, values: np.ndarray) -> tuple[Noise, bool]:
        """Like `match`, from the probabilities of the prototypes, float [K], the out-of-distribution score, and the
        features, float64 [1, F]."""
        if not score <= self.unknown_limit:
            # The farther beyond the limit, the surer.
            return Noise("unknown", 0, float(1 - 0.5 * self.unknown_limit / score), 0.0), False
        by_kind: dict[str, float] = {}
        for kind, probability in zip(self.kinds, probabilities, strict=True):
            by_kind[kind] = by_kind.get(kind, 0.0) + float(probability)
        kind = max(by_kind, key=by_kind.__getitem__)
        if self.bias_field is not None and kind in ("clean", "bias_field"):
            both = by_kind["clean"] + by_kind["bias_field"]
            biased = self.bias_field.probability(values)
            kind, by_kind["clean"] = ("bias_field" if biased > 0.5 else "clean"), both * (1 - biased)
            by_kind["bias_field"] = both * biased
        if kind == "clean" and self.strange is not None:
            clean, strange = by_kind["clean"], self.strange.probability(values)
            by_kind["clean"] = clean * (1 - strange)
            if strange > 0.5:
                return Noise("unknown", 0, min(1.0, by_kind.get("unknown", 0.0) + clean * strange), 0.0), False
        inside = np.where([k == kind for k in self.kinds], probabilities, 0)
        # The expectation over the severities of that kind.
        strength = float(inside @ np.array(self.severities) / inside.sum())
        return Noise(kind, round(strength), min(1.0, by_kind[kind]), strength), score <= self.in_distribution_limit

    def evidence(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features [B, F] -> probabilities [B, K] of the prototypes, out-of-distribution scores [B]."""
        whiten, points, reconstruct = self._double
        apart = values - self.mean
        z = apart @ whiten
        logits = self.bias - 0.5 * ((z[:, None] - points) ** 2).sum(2)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        score = (self.precision * (apart - z @ reconstruct) ** 2).mean(1)
        return weights / weights.sum(1, keepdims=True), score

    @cached_property
    def _double(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What features, which are float64, are multiplied by or compared with: widened once, not for every picture."""
        return self.whiten.astype(np.float64), self.points.astype(np.float64), self.reconstruct.astype(np.float64)


Evidence = Callable[[Matcher, np.ndarray], tuple[np.ndarray, np.ndarray]]
