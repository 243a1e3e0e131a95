"""One condition of a run judged: which questions every arm answers right.

Per picture and noise there is one encoder pass; every arm starts from its tokens, and all questions about the picture
are judged in one pass of the language model for each view of it. What is known of the clean pictures is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from imc_lite.bench.control import stand_ins
from imc_lite.bench.judging import RIGHT, UNASKED, WRITTEN, WRONG, mark, writes
from imc_lite.bench.plan import Plan
from imc_lite.bench.sureness import Sureness, View, chosen
from imc_lite.images.load import load_image
from imc_lite.models.base import MLLM, Perception
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.text import apply_to_text
from imc_lite.pdc.fit.crossfit import FOLDS
from imc_lite.pdc.fit.low_rank_map import RANK, fit_low_rank_map
from imc_lite.pdc.full_size import restore_for
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.remedies import LowRankMap
from imc_lite.pdc.restorers import RESTORERS
from imc_lite.pdc.treat import Treated, treat_picture
from imc_lite.results import ImageReport
from imc_lite.sms.agents import repair
from imc_lite.sms.question import check_question
from imc_lite.trust.confidence import Confidence

CONTROLS = ("blank", "shuffled", "text_only")
STATED = ("templates", "cells")  # restoring alone and the map alone are measured on these, which any picture answers
ABLATED = 4  # severity from which restoring alone and the map alone are measured too
FEWEST_FITTED = 40  # pictures; a map of rank 64 fitted on fewer says nothing
TOGETHER = 8  # questions judged in one pass where none has a picture
BLANK = np.zeros((320, 320, 3), np.uint8)

Part = dict[str, Any]
Step = Callable[[float, float], object]


class Judge:
    """Judges the conditions of a plan with a model.

    A part holds for every arm one character a question (`imc_lite.bench.judging`), and what is kept of the answers that
    the model writes (`imc_lite.bench.sureness`).
    """

    controls: tuple[str, ...] = CONTROLS

    def __init__(
        self,
        model: MLLM,
        prototypes: Prototypes | None,
        plan: Plan,
        step: Step,
        confidence: Confidence | None = None,
    ) -> None:
        """Nothing is judged yet.

        Args:
            model: answers.
            prototypes: of its encoder; the plain model alone needs none.
            plan: pictures and questions.
            step: called with how many of how many parts of a condition are done.
            confidence: fitted for the model, if any.
        """
        self.confidence = confidence
        self.model, self.prototypes, self.plan, self.step = model, prototypes, plan, step
        self.mine: list[list[int]] = [[] for _ in plan.cases]
        for i, question in enumerate(plan.questions):
            self.mine[question.picture].append(i)
        self.weighed = chosen(plan, self.mine)

    def pixels(self, picture: int, kind: str | None = None, severity: int = 0) -> np.ndarray:
        """A picture, with noise if a kind is given."""
        image = load_image(self.plan.cases[picture].path)
        if kind is None:
            return image
        for generator in self.plan.options.generators:
            if generator.name == kind:
                return generator(image, severity, self.plan.seed(picture))
        return apply_to_image(image, kind, severity, self.plan.seed(picture))

    @cached_property
    def _clean(self) -> tuple[np.ndarray, list[np.ndarray]]:
        seen = [self.model.perceive(self.pixels(i)) for i in range(len(self.plan.cases))]
        return np.stack([s.tokens for s in seen]), [s.stats for s in seen]

    @property
    def clean_tokens(self) -> np.ndarray:
        """Tokens of the clean pictures, float32 [P, N, D]."""
        return self._clean[0]

    @cached_property
    def _clean_treated(self) -> list[tuple[np.ndarray, ImageReport]]:
        """What PDC makes of every clean picture: its tokens, and the verdict."""
        treated = []
        for i, (tokens, stats) in enumerate(zip(*self._clean, strict=True)):
            seen = self._treat(self.pixels(i), Perception(tokens, stats))
            treated.append((seen.tokens, seen.report))
        return treated

    def clean(self) -> Part:
        """The clean pictures and questions, with the repairs of these and the verdicts on those."""
        arms, found = self._arms("plain", "pdc", "sms", "imc"), Sureness(self.model, self.confidence)
        verdicts, identical, repaired, memo = [], 0, {}, {}
        for i, questions in enumerate(self.mine):
            for q in questions:
                text = self.plan.questions[q].text
                if text not in memo:
                    memo[text] = self._repair(text)
                if memo[text] != text:
                    repaired[q] = memo[text]
            treated, report = self._clean_treated[i]
            verdicts.append(_verdict(report))
            identical += bool(np.array_equal(treated, self.clean_tokens[i]))
            self._four(arms, questions, self.clean_tokens[i], treated, {}, repaired)
            self._weigh(found, self.weighed[i], View(self.clean_tokens[i], report), View(treated, report), {}, repaired)
            self.step(i + 1, len(self.mine))
        kept = {"verdicts": verdicts, "identical": identical, "repaired": repaired, "sureness": found.arms}
        return {**self._done(arms), **kept}

    def control(self, name: str) -> Part:
        """The questions without their picture: `name` of `CONTROLS`."""
        if name == "shuffled":
            return self._shuffled()
        # Nobody looks at anything of their own, so questions alike are asked once.
        tokens = self.model.perceive(BLANK).tokens if name == "blank" else None
        pairs = list(dict.fromkeys((q.text, q.answer) for q in self.plan.questions))
        right: dict[tuple[str, str], str] = {}
        for at in range(0, len(pairs), TOGETHER):
            some = pairs[at : at + TOGETHER]
            right.update(zip(some, self._marks(some, tokens), strict=True))
            self.step(len(right), len(pairs))
        return self._done({"plain": [right[q.text, q.answer] for q in self.plan.questions]})

    def _shuffled(self) -> Part:
        arms = self._arms("plain")
        about: dict[int, list[int]] = {}
        for q, picture in enumerate(stand_ins(self.plan)):
            about.setdefault(picture, []).append(q)
        for done, (picture, questions) in enumerate(about.items(), 1):
            self._mark(arms["plain"], questions, self._judged(self.clean_tokens[picture], questions, {}))
            self.step(done, len(about))
        return self._done(arms)

    def image_noise(self, kind: str, severity: int, repaired: dict[int, str]) -> Part:
        """Noisy pictures, clean questions; `repaired` has those of the questions that repair changes."""
        count, ablated = len(self.mine), severity >= ABLATED
        noisy, treated, reports, alone = [], [], [], []
        for i in range(count):
            pixels = self.pixels(i, kind, severity)
            perception = self.model.perceive(pixels)
            seen = self._treat(pixels, perception)
            noisy.append(perception.tokens)
            treated.append(seen.tokens)
            reports.append(seen.report)
            if ablated and kind in RESTORERS:
                alone.append(self.model.perceive(restore_for(self.model, pixels, kind, severity)).tokens)
            self.step((i + 1) * 0.3, count)
        before = np.stack(noisy)
        shifted = self._crossed(before, lambda x, y: {"shift": (y - x).mean((0, 1))}, lambda x, fit: x + fit["shift"])
        views: dict[str, Sequence[np.ndarray] | np.ndarray] = {"restore": alone} if alone else {}
        if ablated and count >= FEWEST_FITTED:
            views["transport"] = self._crossed(before, _fit, lambda x, fitted: fitted.apply(x))
        arms, found = self._arms("plain", "shift", "pdc", "sms", "imc", *views), Sureness(self.model, self.confidence)
        for i, questions in enumerate(self.mine):
            self._mark(arms["shift"], questions, self._judged(shifted[i], questions, {}))
            stated = [q for q in questions if self.plan.questions[q].dataset in STATED]
            for arm, view in views.items():
                self._mark(arms[arm], stated, self._judged(view[i], stated, {}))
            self._four(arms, questions, noisy[i], treated[i], {}, repaired)
            shown = View(noisy[i], reports[i]), View(treated[i], reports[i])
            self._weigh(found, self.weighed[i], *shown, {}, repaired)
            self.step((i + 1) * 0.7 + count * 0.3, count)
        return {**self._done(arms), "verdicts": [*map(_verdict, reports)], "sureness": found.arms}

    def text_noise(self, kind: str, severity: int) -> Part:
        """Clean pictures, damaged questions."""
        arms, found = self._arms("plain", "pdc", "sms", "imc"), Sureness(self.model, self.confidence)
        memo, damaged, repaired = {}, {}, {}
        asked: list[list[int]] = []
        for i, questions in enumerate(self.mine):
            asked.append([q for q in questions if self.plan.questions[q].damaged])
            for q in asked[i]:
                damaged[q] = apply_to_text(self.plan.questions[q].text, kind, severity, self.plan.seed(i))
                if damaged[q] not in memo:
                    memo[damaged[q]] = self._repair(damaged[q])
                repaired[q] = memo[damaged[q]]
            treated, report = self._clean_treated[i]
            self._four(arms, asked[i], self.clean_tokens[i], treated, damaged, repaired)
            shown = View(self.clean_tokens[i], report), View(treated, report)
            self._weigh(found, asked[i], *shown, damaged, repaired)
            self.step(i + 1, len(self.mine))
        return {**self._done(arms), "damaged": damaged, "repaired": repaired, "sureness": found.arms}

    def _weigh(
        self,
        found: Sureness,
        questions: list[int],
        plain: View,
        treated: View,
        damaged: dict[int, str],
        repaired: dict[int, str],
    ) -> None:
        """What is kept of the answers to some questions about one picture. It follows the judging of these very views,
        while the model may still know what it read of them."""
        for q in questions:
            asked = damaged.get(q, self.plan.questions[q].text)
            found.ask(q, self.plan.questions[q].answer, plain, asked, treated, repaired.get(q, asked))

    def _four(
        self,
        arms: dict[str, list[str]],
        questions: list[int],
        plain: np.ndarray,
        treated: np.ndarray,
        asked: dict[int, str],
        repaired: dict[int, str],
    ) -> None:
        """Plain, PDC, SMS and both: two views of a picture, two wordings of each question."""
        first = self._judged(plain, questions, asked, repaired)
        second = first if np.array_equal(plain, treated) else self._judged(treated, questions, asked, repaired)
        for arm, (hits, wording) in {
            "plain": (first, asked), "pdc": (second, asked), "sms": (first, repaired), "imc": (second, repaired)
        }.items():  # fmt: skip
            self._mark(arms[arm], questions, hits, {**asked, **wording})

    def _judged(
        self, tokens: np.ndarray | None, questions: Iterable[int], *wordings: dict[int, str]
    ) -> dict[tuple[int, str], str]:
        """The mark of every different wording of the questions; one that is in no dictionary stays as it is."""
        asked = [
            (q, text)
            for q in questions
            for text in dict.fromkeys(words.get(q, self.plan.questions[q].text) for words in wordings)
        ]
        marks = self._marks([(text, self.plan.questions[q].answer) for q, text in asked], tokens)
        return dict(zip(asked, marks, strict=True))

    def _marks(self, pairs: Sequence[tuple[str, str]], tokens: np.ndarray | None) -> list[str]:
        """The marks of questions with their expected answers, about one picture or none."""
        if not writes(self.model):
            return [RIGHT if hit else WRONG for hit in self.model.agrees(pairs, tokens)]
        said = (self.model.generate(asked, tokens, WRITTEN).text for asked, _ in pairs)
        return [mark(text, expected) for text, (_, expected) in zip(said, pairs, strict=True)]

    def _mark(
        self,
        row: list[str],
        questions: Iterable[int],
        hits: dict[tuple[int, str], str],
        wording: dict[int, str] | None = None,
    ) -> None:
        for q in questions:
            row[q] = hits[q, (wording or {}).get(q, self.plan.questions[q].text)]

    def _crossed(self, noisy: np.ndarray, fit: Any, mend: Any) -> np.ndarray:
        """Tokens [P, N, D] mended by what was fitted on the pictures of the other folds, told the noise."""
        folds = np.array([self.plan.seed(i) for i in range(len(noisy))]).argsort().argsort() % FOLDS
        out = np.empty_like(noisy)
        for fold in range(FOLDS):
            held = folds == fold
            out[held] = mend(noisy[held], fit(noisy[~held], self.clean_tokens[~held]))
        return out

    def _arms(self, *names: str) -> dict[str, list[str]]:
        return {name: [UNASKED] * len(self.plan.questions) for name in names}

    def _done(self, arms: dict[str, list[str]]) -> Part:
        return {"hits": {name: "".join(row) for name, row in arms.items()}}

    def _treat(self, pixels: np.ndarray, perception: Perception) -> Treated:
        return treat_picture(self.model, self.prototypes, pixels, perception)

    def _repair(self, question: str) -> str:
        return repair(self.model, check_question(question), rewrites=self.model.rewrites).repaired


def _verdict(report: ImageReport) -> list[Any]:
    assert report.noise is not None, "prototypes name a noise"
    return [report.noise.kind, report.noise.severity]


def _fit(noisy: np.ndarray, clean: np.ndarray) -> LowRankMap:
    width = clean.shape[2]
    return fit_low_rank_map(noisy.reshape(-1, width), clean.reshape(-1, width), RANK)
