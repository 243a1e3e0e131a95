"""Which other picture is shown in the place of a question's own.

It has to be one that the right answer does not hold for by its looks alone: to a question about a finding another
picture of the same set; to one about the kind of picture, one of another kind; to one about a part that the picture
does not show, a picture of that part. To the older questions, about what any picture has, any other picture of the sets
that these are asked of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from imc_lite.bench.asked import ASKED, ELSEWHERE, KIND, PART
from imc_lite.bench.data import Case
from imc_lite.bench.findings import facts
from imc_lite.bench.plan import Plan, Question


def stand_ins(plan: Plan) -> list[int]:
    """The index of the picture shown in place of each question's own, drawn once for all questions of one rule.

    Where a run holds no picture that the rule allows, it is any other one.
    """
    known = [facts(c.source, c.labels) if c.source != "slake" else {} for c in plan.cases]
    found: list[int] = []
    for question in plan.questions:
        i = question.picture
        others = [j for j in range(len(plan.cases)) if j != i]
        fits = _rule(question, plan.cases, known)
        pool = [j for j in others if fits(j)] or others
        found.append(pool[np.random.default_rng([plan.seed(i), 2]).integers(len(pool))])
    return found


def _rule(question: Question, cases: tuple[Case, ...], known: list[dict[str, str]]) -> Callable[[int], bool]:
    mine = question.picture
    if question.dataset == KIND:
        return lambda j: known[j].get("kind") not in (None, known[mine]["kind"])
    if question.dataset == ELSEWHERE:
        return lambda j: known[j].get("organ") == PART[question.text]
    if cases[mine].source in ASKED:
        return lambda j: cases[j].source == cases[mine].source
    return lambda j: cases[j].source not in ASKED
