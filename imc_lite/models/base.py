"""What the pipeline asks of a multi-modal language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from imc_lite.pdc.matcher import Matcher
    from imc_lite.pdc.prototypes import Transport


@dataclass(frozen=True)
class Perception:
    """One encoder pass over one image.

    tokens: float32 [N, D], what the projector takes.
    stats: float32 [S], shallow feature statistics of the same pass (which noise does it carry?).
    """

    tokens: np.ndarray
    stats: np.ndarray


@dataclass(frozen=True)
class Generation:
    """Greedy text with the natural-log probability of each of its tokens (the end token included)."""

    text: str
    logprobs: tuple[float, ...]


class MLLM(Protocol):
    """A multi-modal language model behind a few verbs.

    Attributes:
        id, version: what answers say they come from.
        statistics: what `Perception.stats` are, "quadrants" or "tokens" (`imc_lite.pdc.matcher.features`).
        runtime: modules whose versions belong into an answer's report.
        identity: SHA-256 of the encoder's weights and of its preprocessing, what prototypes belong to.
    """

    id: str
    version: str
    statistics: str
    runtime: tuple[str, ...]

    @property
    def identity(self) -> dict[str, str]:
        """Under "encoder" and "preprocessing"."""

    def prototypes_file(self) -> Path | None:
        """Noise prototypes that come with the model; None when they have to be built."""

    def perceive(self, image: np.ndarray) -> Perception:
        """Encode one image, uint8 [H, W, 3] RGB of any size (preprocessing is the model's own)."""

    def calibrate(self, tokens: np.ndarray, transport: Transport) -> np.ndarray:
        """Tokens float32 [N, D] through one map of the model's prototypes."""

    def evidence(self, matcher: Matcher, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `Matcher.evidence` does to features [B, F], computed where the model runs."""

    def generate(
        self,
        prompt: str,
        tokens: np.ndarray | None,
        max_new_tokens: int = 32,
        on_text: Callable[[str], object] | None = None,
    ) -> Generation:
        """Answer `prompt` greedily; `tokens` is float32 [N, D] or None for text alone.

        `on_text` is called with the text so far after every token; what it raises ends the answer.
        """

    def score(self, prompt: str, candidates: Sequence[str], tokens: np.ndarray | None = None) -> list[np.ndarray]:
        """Log-probabilities of each candidate's tokens as the answer to `prompt`: one float32 [T_i] each."""

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
