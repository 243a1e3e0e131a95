"""Greedy decoding, whatever computes the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from imc_lite.models.base import Generation, TokenLogprob
from imc_lite.models.deadline import Deadline


def greedy(
    logits: np.ndarray,
    step: Callable[[int], np.ndarray],
    decode: Callable[[list[int]], str],
    ends: Sequence[int],
    max_new_tokens: int,
    on_text: Callable[[str], object] | None,
    deadline: Deadline,
    top_logprobs: int = 0,
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
        top_logprobs: of each token, so many of the likeliest are given back.

    Raises:
        DeadlineError: the answer is no longer wanted.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    found: list[tuple[TokenLogprob, ...]] = []
    while True:
        deadline.check()
        best = int(logits.argmax())
        scores = log_softmax(logits)
        logprobs.append(float(scores[best]))
        if best in ends:
            break
        if top_logprobs:
            found.append(_likeliest(scores, top_logprobs, ids, decode, ends))
        ids.append(best)
        if on_text is not None:
            on_text(decode(ids))
        if len(ids) == max_new_tokens:
            break
        logits = step(best)
    return Generation(decode(ids), tuple(logprobs), tuple(found), cut=len(logprobs) == len(ids))


def _likeliest(
    scores: np.ndarray, count: int, before: list[int], decode: Callable[[list[int]], str], ends: Sequence[int]
) -> tuple[TokenLogprob, ...]:
    """The first `count` tokens by their log-probabilities [vocabulary], each with what it would add to the text."""
    # Equal ones in the order of their ids, as argmax takes them.
    first = np.argsort(-scores, kind="stable")[:count] if count > 1 else [scores.argmax()]
    adds = added_by(before, decode, ends)
    return tuple(TokenLogprob(adds(int(token)), float(scores[token])) for token in first)


def added_by(before: list[int], decode: Callable[[list[int]], str], ends: Sequence[int]) -> Callable[[int], str]:
    """What a token adds to the text of those before it; nothing where it ends the answer."""
    written = _whole(decode(before))
    return lambda token: "" if token in ends else _whole(decode([*before, token]))[len(written) :]


def _whole(text: str) -> str:
    """Without a last character that more tokens have to make whole."""
    return text.rstrip("\ufffd")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural-log probabilities along the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
