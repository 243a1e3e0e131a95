"""Questions and answers for training: about a view of a picture, and skills on text alone.

Everything is drawn from a numpy Generator, so a seed fixes every sample.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asking import finding_questions
from elsewhere import about_terms, ask_elsewhere, clinicians
from schedule import TEXT
from sets import Row
from templates import image_questions
from views import View, draw_view, view_labels

from imc_lite.bench.data import Case
from imc_lite.bench.findings import facts
from imc_lite.bench.templates import cell_questions
from imc_lite.noise.text import TEXT_KINDS, apply_to_text

ASSESS = "Is this question damaged? {}"
REPAIR = "Repair this question: {}"
FOREIGN_SHARE = 0.35  # of the packs with a picture, one question each
WITH_TEMPLATES = ("vqa_rad", "hannover_cxr", "bccd")
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pack:
    """One view (or none) and independent question-answer pairs about it."""

    view: View | None
    pairs: Pairs


def text_pairs(questions: list[str], rng: np.random.Generator, count: int) -> tuple[tuple[str, str], ...]:
    """Assessment and repair pairs; half of them meet a clean question, which is to be left alone."""
    pairs = []
    for _ in range(count):
        clean = questions[rng.integers(len(questions))]
        kind = TEXT_KINDS[rng.integers(len(TEXT_KINDS))]
        bad = apply_to_text(clean, kind, int(rng.integers(1, 6)), int(rng.integers(2**31)))
        if rng.random() < 0.35:
            bad = bad if rng.random() < 0.5 else clean
            pairs.append((ASSESS.format(bad), "no" if bad == clean else "yes"))
        else:
            bad = clean if rng.random() < 0.5 else bad
            pairs.append((REPAIR.format(bad), clean))
    return tuple(pairs)


def medical_terms() -> list[str]:
    """The single words of medicine that the word list is built from."""
    here = Path(__file__).parent
    lines = [
        line
        for path in (here / "radiology_terms.txt", here / "terms/anatomy.txt", here / "terms/findings.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    return sorted({word for line in lines for word in line.split()})


def repair_questions(data: Path, cases: list[Case]) -> list[str]:
    """Unique clean questions for the text skills: SLAKE train and the given VQA-RAD cases."""
    slake = [row["question"] for row in json.loads((data / "slake_text/train.json").read_text())]
    return sorted({" ".join(q.split()) for q in slake} | {q["question"] for c in cases for q in c.questions})


class PackMaker:
    """Turns rows into packs; a pack depends on the seed and its index alone, so a run resumes anywhere."""

    def __init__(self, rows: Sequence[Row], slake: list[str], order: np.ndarray, seed: int, foreign: float) -> None:
        """`order` names the row of every pack, or none (`schedule.order`); `foreign` as FOREIGN_SHARE."""
        self.rows, self.order, self.seed, self.foreign = rows, order, seed, foreign
        own = {q["question"] for r in rows if r.split == "train" for q in r.questions}
        asked = sorted(own | set(slake))
        self.text = asked + about_terms(medical_terms(), np.random.default_rng(seed), 2 * len(asked))
        self.clinicians = clinicians(asked)

    def make(self, index: int) -> Pack:
        """The pack of this index."""
        rng = np.random.default_rng((self.seed, 1, index))
        number = int(self.order[index])
        if number == TEXT:
            return Pack(None, text_pairs(self.text, rng, 5))
        row = self.rows[number]
        view = draw_view(number, row.source, rng)
        labels = view_labels(view, row)
        pairs = questions(row, labels, rng)
        if rng.random() < self.foreign:
            pairs.append(ask_elsewhere(row.source, facts(row.source, labels)["organ"], self.clinicians, rng))
        return Pack(view, tuple(pairs))


def questions(row: Row, labels: dict, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Pairs about a view with these labels: the set's own, the old templates, and those about findings."""
    own = [(q["question"], q["answer"]) for q in row.questions]
    pairs = [own[i] for i in rng.permutation(len(own))[:6]]
    if row.source in WITH_TEMPLATES:
        pairs += image_questions(row.source, labels, rng, 4 if row.source == "hannover_cxr" else 2)
    if row.source == "bccd":
        pairs += cell_questions(labels["cells"], rng, 4)
    return pairs + finding_questions(row.source, labels, rng, 1 if row.source in WITH_TEMPLATES else 6)
