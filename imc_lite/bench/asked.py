"""What is asked about findings: of each set its own, and of every picture what kind it is or what it does not show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from imc_lite.bench.findings import FOREIGN, TOPICS, ask_foreign, ask_open, facts

OPEN, YES, NO = "open", "yes", "no"
# By set: the name that the questions are counted under, their topic, and their form: open, or closed with this answer.
# Closed ones come in pairs, so that a model that always says the same is right half the time. In nearly all photographs
# the ulcer lies in the left half, so the side is not asked.
ASKED = {
    "child_cxr": (
        ("child pneumonia", "pneumonia", (OPEN, YES, NO)),
        ("pneumonia cause", "cause", (OPEN,)),
    ),
    "nih_cxr": (("NIH pneumonia", "pneumonia", (OPEN, YES, NO)),),
    "brain_mri": (("tumour", "tumour", (OPEN, YES, NO)),),
    "dermoscopy": (("skin lesion", "lesion", (OPEN, YES, NO)),),
    "foot_photo": (
        ("ulcer", "ulcer", (YES, NO)),
        ("ulcer place", "height", (OPEN,)),
        ("ulcer size", "size", (OPEN,)),
    ),
    "nuclei": (("nuclei", "nuclei", (OPEN,)), ("stain", "stain", (OPEN,))),
}
KIND, ELSEWHERE = "kind of picture", "not shown"
PART = {wording: part for part, wordings in FOREIGN.items() for wording in wordings}

Row = tuple[str, bool, str, str]  # data set, closed, question, answer


def ask_findings(source: str, labels: Mapping, rng: np.random.Generator) -> list[Row]:
    """What the labels of a set in `ASKED` answer, and one more: the kind of picture or, as often, another part."""
    known = facts(source, labels)
    rows = [
        _row(name, topic, form, known, rng) for name, topic, forms in ASKED[source] if topic in known for form in forms
    ]
    if rng.random() < 0.5:
        return [*rows, _row(KIND, "kind", (OPEN, YES, NO)[rng.integers(3)], known, rng)]
    return [*rows, (ELSEWHERE, False, *ask_foreign(known["organ"], FOREIGN, rng))]


def _row(name: str, topic: str, form: str, known: Mapping[str, str], rng: np.random.Generator) -> Row:
    value, wordings = known[topic], TOPICS[topic]
    if form == OPEN:
        return (name, False, *ask_open(wordings, value, rng))
    others = [v for v in wordings.closed if v != value]
    some = wordings.closed[value if form == YES else others[rng.integers(len(others))]]
    return name, True, some[rng.integers(len(some))], form
