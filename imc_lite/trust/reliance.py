"""What the picture adds to an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from imc_lite.models.base import MLLM
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.results import ImageReliance

DOUBT = 0.5  # a picture that leaves more than this share of the doubt added nothing to speak of


def reliance(
    model: MLLM, question: str, answer: str, logprobs: Sequence[float], deadline: Deadline = NEVER
) -> ImageReliance | None:
    """The answer's log-probability with the picture less that without it, and whether it would come without it.

    One pass of the language model and none of the encoder. None where a model has no `text_only` (`BaseMLLM` has).

    Args:
        model: that answered.
        question: as the model was given it.
        answer: that it gave.
        logprobs: of the answer's tokens with the picture, the end token included unless the answer was cut off.
        deadline: looked at before every pass.

    Raises:
        DeadlineError: the answer is no longer wanted.
    """
    ask = getattr(model, "text_only", None)
    if ask is None or not logprobs:
        return None
    without = ask(question, answer, deadline)
    nats = sum(logprobs) - float(sum(without.logprobs[: len(logprobs)]))
    return ImageReliance(nats=round(nats, 4), same_without=without.same)


def rests_on_picture(found: ImageReliance, logprobs: Sequence[float]) -> bool:
    """Whether the answer would be another one without the picture, or the picture at least halves the doubt about it.

    Args:
        found: about an answer.
        logprobs: of its tokens with the picture.
    """
    doubt, before = (-math.expm1(min(0.0, sum(logprobs) - nats)) for nats in (0.0, found.nats))
    return not found.same_without or doubt <= DOUBT * before
