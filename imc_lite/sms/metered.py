"""A language model whose work is counted, so that a question costs no more than it is given."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from imc_lite.models.base import MLLM
from imc_lite.models.deadline import NEVER, Deadline

# Counted in tokens read, not in seconds: the same question gives the same answer on every machine. On one core with
# AVX2 the default model reads a token in about 5.3 ms, so that no repair takes two seconds.
BUDGET = 360
CALL = 8  # tokens of the chat format around every prompt
WRITTEN = 3  # tokens read in the time that one is written


class SpentError(Exception):
    """The next call would cost more than is left."""


class Metered:
    """The verbs of a model that question repair uses, each paid for in tokens before it is carried out."""

    def __init__(self, model: MLLM, budget: int = BUDGET, deadline: Deadline = NEVER) -> None:
        self.model, self.left, self.deadline = model, budget, deadline

    def score(self, prompt: str, candidates: Sequence[str], fixed: bool = False) -> list[list[float]]:
        """Log-probability of every token of each candidate as the answer to `prompt`, its end included; a `fixed`
        prompt is the same in every repair.

        Raises:
            SpentError: too dear.
            DeadlineError: the repair is no longer wanted.
        """
        ids = [self.model.encode(c) for c in candidates]
        shared = _shared(ids) if len(ids) > 1 else len(ids[0])
        self._pay(CALL + len(self.model.encode(prompt)) + shared + sum(len(i) - shared + 1 for i in ids))
        more: dict[str, Any] = {"fixed": True} if fixed and "fixed" in signature(self.model.score).parameters else {}
        scores = self.model.score(prompt, candidates, deadline=self.deadline, **more)
        return [[float(v) for v in row] for row in scores]

    def write(self, prompt: str, most: int) -> str:
        """The model's own answer to `prompt`, of at most so many tokens.

        Raises:
            SpentError: too dear.
            DeadlineError: the repair is no longer wanted.
        """
        self._pay(CALL + len(self.model.encode(prompt)) + WRITTEN * most)
        written = self.model.generate(prompt, None, most, deadline=self.deadline)
        self.left += WRITTEN * max(0, most - len(written.logprobs))
        return written.text

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        return self.model.encode(text)

    def _pay(self, tokens: int) -> None:
        self.deadline.check()
        if tokens > self.left:
            raise SpentError
        self.left -= tokens


def _shared(ids: list[list[int]]) -> int:
    """How many tokens all candidates begin with: the model reads those once."""
    shortest = min(map(len, ids))
    return next((i for i in range(shortest) if any(other[i] != ids[0][i] for other in ids)), shortest)
