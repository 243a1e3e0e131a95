"""The calibrated probability that an answer is right, and the file that it is kept in.

A logistic regression on what is known once a question is answered, under a ceiling where the picture may be of a kind
that the model does not know; a second one where other wordings of the question were asked too. safetensors: the arrays;
all that is no array stands in the header as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from imc_lite.errors import UNREADABLE, ImcError, shown
from imc_lite.files import write_atomically
from imc_lite.pdc.familiarity import Familiarity
from imc_lite.results import ImageReliance, ImageReport, Rewording

FORMAT = 2
# What the regression reads, in this order.
EVIDENCE = (
    "logit of the mean token probability",
    "logit of the answer's probability",
    "nats that the picture adds",
    "same answer without the picture",
    "severity of the noise",
    "unknown noise",
    "not gradable",
    "log distance from known kinds",
)
REWORDED = "same answer to other wordings"  # what is read besides where the question was asked in other words too
NATS = -5.0, 10.0  # beyond, more says no more
SMALLEST = 1e-4  # probability
FAMILIAR = 0.75  # from this probability on a picture counts as one of a known kind in full
RULES = "rule", "reworded"
REFIT = "fit it: imc-lite calibrate"


def evidence(
    logprobs: Sequence[float],
    reliance: ImageReliance | None,
    image: ImageReport,
    distance: float,
    rewording: Rewording | None = None,
) -> np.ndarray:
    """What is known about an answer, float64 [8], as `EVIDENCE` names it; with `rewording` [9], `REWORDED` last.

    Args:
        logprobs: natural-log probabilities of the answer's tokens; at least one.
        reliance: on the picture; None where the model does not tell.
        image: the verdict on the picture.
        distance: from known kinds, `Familiarity.distance`.
        rewording: what came of other wordings, where they were asked.
    """
    total = sum(logprobs)
    nats, same = (0.0, False) if reliance is None else (reliance.nats, reliance.same_without)
    noise = image.noise
    more = [] if rewording is None else [rewording.share]
    return np.array(
        [
            _logit(math.exp(total / len(logprobs))),
            _logit(math.exp(total)),
            min(max(nats, NATS[0]), NATS[1]),
            float(same),
            0.0 if noise is None else noise.severity / 5,
            float(noise is not None and noise.kind == "unknown"),
            float(image.gradable is False),
            math.log(distance),
            *more,
        ]
    )


def ceiling(familiar: np.ndarray | float) -> np.ndarray:
    """The most that a confidence can be about pictures that are of a known kind with these probabilities."""
    return np.minimum(1.0, np.asarray(familiar) / FAMILIAR)


def _logit(probability: float) -> float:
    clipped = min(max(probability, SMALLEST), 1 - SMALLEST)
    return math.log(clipped / (1 - clipped))


@dataclass(frozen=True)
class Rule:
    """From evidence to a probability.

    Attributes:
        weights: float64 [8] or [9], of the evidence.
        bias: of the regression.
        least_limit: the lowest limit on the risk that can be promised (`imc_lite.trust.promise`); 1 where none can.
    """

    weights: np.ndarray
    bias: float
    least_limit: float


@dataclass(frozen=True)
class Confidence:
    """What `imc-lite calibrate` writes.

    Attributes:
        familiarity: tells known kinds of picture from others.
        rule: of answers whose question was asked as it is.
        reworded: of those whose question was asked in other words too; None where it was not fitted.
        facts: encoder and preprocessing (SHA-256), version of the model, how many answers and pictures it was fitted
            to.
    """

    familiarity: Familiarity
    rule: Rule
    reworded: Rule | None
    facts: dict[str, Any]

    def familiar(self, tokens: np.ndarray) -> tuple[float, float]:
        """Of a picture's tokens, float32 [N, D]: the distance from known kinds, and the probability to be of one."""
        distance = float(self.familiarity.distance(tokens))
        return distance, float(self.familiarity.probability(distance))

    def probability(self, found: np.ndarray, familiar: float) -> float:
        """That the answer is right, by `evidence` and by how likely the picture is of a known kind."""
        rule = self.rule_for(found)
        return float(ceiling(familiar)) / (1 + math.exp(-float(found @ rule.weights) - rule.bias))

    def rule_for(self, found: np.ndarray) -> Rule:
        """The rule that reads this evidence."""
        if len(found) == len(EVIDENCE):
            return self.rule
        assert self.reworded is not None, "other wordings are asked only where they were fitted"
        return self.reworded

    def digest(self) -> str:
        """SHA-256 of everything that decides on an answer."""
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

        arrays: dict[str, np.ndarray] = {
            "centres": np.ascontiguousarray(self.familiarity.centres, np.float32),
            "directions": np.ascontiguousarray(self.familiarity.directions, np.float32),
        }
        rules = {name: rule for name in RULES if (rule := getattr(self, name)) is not None}
        arrays |= {f"{name}.weights": np.ascontiguousarray(rule.weights, np.float64) for name, rule in rules.items()}
        known = {name: getattr(self.familiarity, name) for name in ("variance", "offset", "slope")}
        known |= {name: {"bias": rule.bias, "least_limit": rule.least_limit} for name, rule in rules.items()}
        header = {"format": FORMAT, "evidence": [*EVIDENCE, REWORDED], **known, **self.facts}
        return save(arrays, {"confidence": json.dumps(header, sort_keys=True)})


def load_confidence(path: Path, identity: dict[str, str], version: str) -> Confidence:
    """Read what `Confidence.save` wrote.

    Args:
        path: the file.
        identity: the model's, `MLLM.identity`.
        version: the model's, `MLLM.version`.

    Raises:
        ImcError: it cannot be read, or belongs to another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["confidence"])
            if header.pop("format") != FORMAT or header.pop("evidence") != [*EVIDENCE, REWORDED]:
                raise ValueError("another format")
            centres, directions = (file.get_tensor(name) for name in ("centres", "directions"))
            rules = [
                Rule(file.get_tensor(f"{name}.weights"), float(of["bias"]), float(of["least_limit"]))
                if (of := header.pop(name, None)) is not None
                else None
                for name in RULES
            ]
        known = {name: float(header.pop(name)) for name in ("variance", "offset", "slope")}
        rule, reworded = rules
        if rule is None or rule.weights.shape != (len(EVIDENCE),) or centres.shape[1] != directions.shape[0]:
            raise ValueError("shapes that do not fit")
        if reworded is not None and reworded.weights.shape != (len(EVIDENCE) + 1,):
            raise ValueError("shapes that do not fit")
        numbers = [*known.values(), *(value for r in rules if r is not None for value in (r.bias, *r.weights))]
        if not all(np.isfinite(found).all() for found in (centres, directions, numbers)):
            raise ValueError("what is no number")
    except (OSError, SafetensorError, *UNREADABLE) as error:
        raise ImcError(f"{shown(path)} holds no readable confidence; {REFIT}") from error
    # An encoder in 8 bits takes what was fitted for the float32 one, as it takes its prototypes.
    for name, value in {**identity, "version": version.removesuffix("-int8")}.items():
        if header.get(name) != value:
            raise ImcError(f"the confidence in {shown(path)} belongs to another {name}; {REFIT}")
    return Confidence(Familiarity(centres, directions, **known), rule, reworded, header)
