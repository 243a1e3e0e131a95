"""Greedy decoding, whatever computes the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from imc_lite.models.base import Generation
from imc_lite.models.deadline import Deadline


def greedy(
    logits: np.ndarray,
    step: Callable[[int], np.ndarray],
    decode: Callable[[list[int]], str],
    ends: Sequence[int],
    max_new_tokens: int,
    on_text: Callable[[str], object] | None,
    deadline: Deadline,
) -> Generation:
    """The likeliest token, again and again.

    Args:
        logits: float32 [vocabulary], after the prompt.
        step: takes a token and gives the logits after it.
        decode: text of token ids.
        ends: tokens that end an answer.
        max_new_tokens: the answer is cut off there.
        on_text: called with the text so far after every token; what it raises ends the answer.
        deadline: looked at before every token.

    Raises:
        DeadlineError: the answer is no longer wanted.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    while True:
        deadline.check()
        best = int(logits.argmax())
        logprobs.append(float(log_softmax(logits)[best]))
        if best in ends:
            break
        ids.append(best)
        if on_text is not None:
            on_text(decode(ids))
        if len(ids) == max_new_tokens:
            break
        logits = step(best)
    return Generation(decode(ids), tuple(logprobs))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural-log probabilities along the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
