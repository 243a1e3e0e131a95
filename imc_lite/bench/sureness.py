"""How sure the answers of a condition are, and whether they rest on the picture.

Judging says whether the expected answer is what the model would write. Here the model writes its answers, to a few
questions about each picture, and what it says of them is kept beside whether they are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imc_lite.bench.judging import WRITTEN, says, writes
from imc_lite.bench.plan import Plan
from imc_lite.models.base import MLLM, Generation, same_answer
from imc_lite.results import ImageReport, Rewording
from imc_lite.trust.assess import assess
from imc_lite.trust.confidence import Confidence
from imc_lite.trust.rewording import check_wording

QUESTIONS = 1  # about one picture; an answer that is written takes several times as long as one that is judged
PLAIN, IMC = "plain", "imc"
# What is kept of every answer; null where the model does not tell it.
COLUMNS = (
    "question",
    "right",
    "token_probability",  # geometric mean over the tokens
    "sequence_probability",  # of all tokens together
    "nats",  # that the picture adds
    "same_without",  # the picture
    "rewordings",  # of the question
    "rewordings_same",  # those that get the same answer
    "confidence",
    "distance",  # from known kinds of picture
)
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class View:
    """What the language model is shown of a picture. tokens: float32 [N, D]; report: the verdict."""

    tokens: np.ndarray
    report: ImageReport


def chosen(plan: Plan, mine: Sequence[Sequence[int]]) -> list[list[int]]:
    """The questions about each picture whose answers are looked at, drawn from its own."""
    found = []
    for picture, questions in enumerate(mine):
        rng = np.random.default_rng([plan.seed(picture), 3])
        found.append(sorted(questions[i] for i in rng.permutation(len(questions))[:QUESTIONS]))
    return found


class Sureness:
    """The answers of one condition: of the plain model, and with IMC.

    Attributes:
        arms: by arm, a list a column.
    """

    def __init__(self, model: MLLM, confidence: Confidence | None, arms: tuple[str, ...] = (PLAIN, IMC)) -> None:
        """Nothing is asked yet; `confidence` is the model's, if it has one."""
        self.model, self.confidence = model, confidence
        self.arms: dict[str, Columns] = {arm: {name: [] for name in COLUMNS} for arm in arms}

    def ask(
        self, question: int, expected: str, plain: View, asked: str, treated: View | None = None, repaired: str = ""
    ) -> None:
        """The answers of all arms to one question.

        Args:
            question: its number.
            expected: the right answer.
            plain: the picture as it came.
            asked: the question as it came.
            treated: what PDC makes of the picture; None asks the plain model alone.
            repaired: what SMS makes of the question.
        """
        said, again = self._answer(asked, plain.tokens)
        self._keep(PLAIN, question, expected, asked, said, again, plain, None)
        if treated is None:
            return
        if asked != repaired or not np.array_equal(plain.tokens, treated.tokens):
            said, again = self._answer(repaired, treated.tokens)
        self._keep(IMC, question, expected, repaired, said, again, treated, self.confidence)

    def _answer(self, asked: str, tokens: np.ndarray) -> tuple[Generation, Rewording | None]:
        said = self.model.generate(asked, tokens, WRITTEN)
        return said, check_wording(self.model, asked, said, tokens)

    def _keep(
        self,
        arm: str,
        question: int,
        expected: str,
        asked: str,
        said: Generation,
        again: Rewording | None,
        view: View,
        confidence: Confidence | None,
    ) -> None:
        trust = assess(self.model, confidence, asked, said, view.tokens, view.report)
        rests, sure = trust.image_reliance, trust.confidence
        if sure is None and trust.selective is not None:  # of an answer that was cut off: nobody knows, so the least
            sure = 1 - trust.selective.risk
        row = (
            question,
            int(same_answer(said.text, expected) or (writes(self.model) and says(said.text, expected))),
            _rounded(trust.token_probability),
            _rounded(math.exp(sum(said.logprobs)) if said.logprobs else None),
            None if rests is None else rests.nats,
            None if rests is None else int(rests.same_without),
            None if again is None else len(again.same),
            None if again is None else sum(again.same),
            _rounded(sure),
            _rounded(None if confidence is None else confidence.familiar(view.tokens)[0]),
        )
        for name, value in zip(COLUMNS, row, strict=True):
            self.arms[arm][name].append(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
