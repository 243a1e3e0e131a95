"""How sure one answer is, and whether it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.models.base import MLLM, Generation
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.results import ImageReliance, ImageReport, Rewording, Selective
from imc_lite.trust.confidence import Confidence, evidence
from imc_lite.trust.reliance import reliance, rests_on_picture
from imc_lite.trust.rewording import check_wording

STRANGE = "a kind of picture that the model does not know"
BLIND = "the answer does not rest on the picture: it comes without it as well"
CUT = "the answer was cut off before its end, and nobody knows how often such are right"
WAVERING = "the same question in other words gets another answer"


@dataclass(frozen=True)
class Trust:
    """What is said of an answer: see `imc_lite.results.Result`."""

    confidence: float | None
    token_probability: float | None
    image_reliance: ImageReliance | None
    selective: Selective | None
    rewording: Rewording | None = None

    @property
    def given(self) -> bool:
        """Whether the answer is given."""
        return self.selective is None or self.selective.answered


def check_asked(max_risk: float | None, wording: bool, confidence: Confidence | None, here: bool) -> None:
    """Refuse what cannot be kept or checked.

    Args:
        max_risk: a limit.
        wording: whether other wordings are to be asked.
        confidence: that the limit is kept by.
        here: whether the answer is the model's own, and not that of another server.

    Raises:
        ImcError: the limit is no share, there is no confidence to keep it by or it was not fitted with other wordings,
            or nobody here can ask these.
    """
    if wording and not here:
        raise ImcError("other wordings are asked of models that answer here, not of an upstream; leave that out")
    if wording and confidence is not None and confidence.reworded is None:
        raise ImcError("this confidence was fitted without other wordings; fit it: imc-lite calibrate --check-wording")
    if max_risk is None:
        return
    if isinstance(max_risk, bool) or not isinstance(max_risk, Real) or not 0 <= max_risk <= 1:
        raise ImcError(f"max_risk is {max_risk!r}; give a share from 0 to 1")
    if confidence is None or not here:
        raise ImcError(
            "max_risk needs to know how often this model is right, and nothing was fitted for it; "
            "fit it: imc-lite calibrate, then give --confidence"
        )


def token_probability(generation: Generation) -> float | None:
    """Geometric mean of the probabilities of an answer's tokens; None where they are not known."""
    logprobs = generation.logprobs
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else None


def assess(
    model: MLLM,
    confidence: Confidence | None,
    question: str,
    generation: Generation,
    tokens: np.ndarray,
    image: ImageReport,
    max_risk: float | None = None,
    deadline: Deadline = NEVER,
    wording: bool = False,
) -> Trust:
    """How sure an answer is; of one that was cut off it is not known.

    Args:
        model: that answered.
        confidence: fitted for it; without one there is neither a confidence nor a risk.
        question: as the model was given it.
        generation: its answer.
        tokens: float32 [N, D], of the picture as the model was shown it.
        image: the verdict on the picture.
        max_risk: above it the answer is not to be given.
        deadline: looked at before every pass, but not between those of other wordings.
        wording: whether other wordings of the question are asked too.

    Raises:
        DeadlineError: the answer is no longer wanted.
    """
    raw = token_probability(generation)
    rests = reliance(model, question, generation.text, generation.logprobs, deadline)
    deadline.check()
    again = check_wording(model, question, generation, tokens) if wording else None
    deadline.check()
    if generation.cut and confidence is not None:
        # Its end is not known, and with it neither whether it is right nor whether it would come without the picture.
        return Trust(None, raw, rests, Selective(1.0, max_risk is None or max_risk >= 1, (CUT,)), again)
    if confidence is None or raw is None:
        return Trust(None, raw, rests, None, again)
    distance, familiar = confidence.familiar(tokens)
    found = evidence(generation.logprobs, rests, image, distance, again)
    probability = confidence.probability(found, familiar)
    risk = 1 - probability
    reasons = [STRANGE] if familiar < 0.5 else []
    if image.gradable is not True and image.reason:
        reasons.append(image.reason)
    if rests is not None and not rests_on_picture(rests, generation.logprobs):
        reasons.append(BLIND)
    if again is not None and not all(again.same):
        reasons.append(WAVERING)
    least = confidence.rule_for(found).least_limit
    if max_risk is not None and max_risk < least:
        reasons.append(f"no limit below {least:g} can be promised for this model")
    given = max_risk is None or (risk <= max_risk and max_risk >= least)
    return Trust(probability, raw, rests, Selective(risk, given, tuple(reasons)), again)
