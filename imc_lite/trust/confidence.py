"""The calibrated probability that an answer is right, and the file that it is kept in.

A logistic regression on what is known once a question is answered, under a ceiling where the picture may be of a kind
that the model does not know. safetensors: the arrays; all that is no array stands in the header as JSON.
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

from imc_lite.errors import ImcError, shown
from imc_lite.files import write_atomically
from imc_lite.results import ImageReliance, ImageReport
from imc_lite.trust.familiarity import Familiarity

FORMAT = 1
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
NATS = -5.0, 10.0  # beyond, more says no more
SMALLEST = 1e-4  # probability
FAMILIAR = 0.75  # from this probability on a picture counts as one of a known kind in full
REFIT = "fit it: imc-lite calibrate"


def evidence(
    logprobs: Sequence[float], reliance: ImageReliance | None, image: ImageReport, distance: float
) -> np.ndarray:
    """What is known about an answer, float64 [8], as `EVIDENCE` names it.

    Args:
        logprobs: natural-log probabilities of the answer's tokens; at least one.
        reliance: on the picture; None where the model does not tell.
        image: the verdict on the picture.
        distance: from known kinds, `Familiarity.distance`.
    """
    total = sum(logprobs)
    nats, same = (0.0, False) if reliance is None else (reliance.nats, reliance.same_without)
    noise = image.noise
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
        ]
    )


def ceiling(familiar: np.ndarray | float) -> np.ndarray:
    """The most that a confidence can be about pictures that are of a known kind with these probabilities."""
    return np.minimum(1.0, np.asarray(familiar) / FAMILIAR)


def _logit(probability: float) -> float:
    clipped = min(max(probability, SMALLEST), 1 - SMALLEST)
    return math.log(clipped / (1 - clipped))


@dataclass(frozen=True)
class Confidence:
    """What `imc-lite calibrate` writes.

    Attributes:
        familiarity: tells known kinds of picture from others.
        weights: float64 [8], of the evidence.
        bias: of the regression.
        facts: encoder and preprocessing (SHA-256), version of the model, how many answers and pictures it was fitted
            to.
    """

    familiarity: Familiarity
    weights: np.ndarray
    bias: float
    facts: dict[str, Any]

    def familiar(self, tokens: np.ndarray) -> tuple[float, float]:
        """Of a picture's tokens, float32 [N, D]: the distance from known kinds, and the probability to be of one."""
        distance = float(self.familiarity.distance(tokens))
        return distance, float(self.familiarity.probability(distance))

    def probability(self, found: np.ndarray, familiar: float) -> float:
        """That the answer is right, by `evidence` and by how likely the picture is of a known kind."""
        return float(ceiling(familiar)) / (1 + math.exp(-float(found @ self.weights) - self.bias))

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
            "weights": np.ascontiguousarray(self.weights, np.float64),
        }
        known = {name: getattr(self.familiarity, name) for name in ("variance", "offset", "slope")}
        header = {"format": FORMAT, "bias": self.bias, "evidence": EVIDENCE, **known, **self.facts}
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
            arrays = {name: file.get_tensor(name) for name in ("centres", "directions", "weights")}
        if header.pop("format") != FORMAT or header.pop("evidence") != list(EVIDENCE):
            raise ValueError("another format")
        known = {name: float(header.pop(name)) for name in ("variance", "offset", "slope")}
        bias, weights = float(header.pop("bias")), arrays["weights"]
        centres, directions = arrays["centres"], arrays["directions"]
        if weights.shape != (len(EVIDENCE),) or centres.shape[1] != directions.shape[0]:
            raise ValueError("shapes that do not fit")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ImcError(f"{shown(path)} holds no readable confidence; {REFIT}") from error
    # An encoder in 8 bits takes what was fitted for the float32 one, as it takes its prototypes.
    for name, value in {**identity, "version": version.removesuffix("-int8")}.items():
        if header.get(name) != value:
            raise ImcError(f"the confidence in {shown(path)} belongs to another {name}; {REFIT}")
    return Confidence(Familiarity(centres, directions, **known), weights, bias, header)
