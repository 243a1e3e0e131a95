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
from imc_lite.bench.plan import Plan
from imc_lite.images.load import load_image
from imc_lite.models.base import MLLM, Perception
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.text import apply_to_text
from imc_lite.pdc.fit.crossfit import FOLDS
from imc_lite.pdc.fit.low_rank_map import RANK, fit_low_rank_map
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.remedies import LowRankMap
from imc_lite.pdc.restorers import RESTORERS, restore
from imc_lite.pdc.treat import Treated, treat_picture
from imc_lite.results import Noise
from imc_lite.sms.agents import repair
from imc_lite.sms.question import check_question

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

    A part holds for every arm one character a question: "1" right, "0" wrong, "-" not asked.
    """

    def __init__(self, model: MLLM, prototypes: Prototypes, plan: Plan, step: Step) -> None:
        """Nothing is judged yet.

        Args:
            model: answers.
            prototypes: of its encoder.
            plan: pictures and questions.
            step: called with how many of how many parts of a condition are done.
        """
        self.model, self.prototypes, self.plan, self.step = model, prototypes, plan, step
        self.mine: list[list[int]] = [[] for _ in plan.cases]
        for i, question in enumerate(plan.questions):
            self.mine[question.picture].append(i)

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
    def _clean_treated(self) -> list[tuple[np.ndarray, Noise]]:
        """What PDC makes of every clean picture: its tokens, and the verdict."""
        treated = []
        for i, (tokens, stats) in enumerate(zip(*self._clean, strict=True)):
            seen, noise = self._treat(self.pixels(i), Perception(tokens, stats))
            treated.append((seen.tokens, noise))
        return treated

    def clean(self) -> Part:
        """The clean pictures and questions, with the repairs of these and the verdicts on those."""
        arms = self._arms("plain", "pdc", "sms", "imc")
        verdicts, identical, repaired, memo = [], 0, {}, {}
        for i, questions in enumerate(self.mine):
            for q in questions:
                text = self.plan.questions[q].text
                if text not in memo:
                    memo[text] = self._repair(text)
                if memo[text] != text:
                    repaired[q] = memo[text]
            treated, noise = self._clean_treated[i]
            verdicts.append([noise.kind, noise.severity])
            identical += bool(np.array_equal(treated, self.clean_tokens[i]))
            self._four(arms, questions, self.clean_tokens[i], treated, {}, repaired)
            self.step(i + 1, len(self.mine))
        return {**self._done(arms), "verdicts": verdicts, "identical": identical, "repaired": repaired}

    def control(self, name: str) -> Part:
        """The questions without their picture: `name` of `CONTROLS`."""
        if name == "shuffled":
            return self._shuffled()
        # Nobody looks at anything of their own, so questions alike are asked once.
        tokens = self.model.perceive(BLANK).tokens if name == "blank" else None
        pairs = list(dict.fromkeys((q.text, q.answer) for q in self.plan.questions))
        right: dict[tuple[str, str], bool] = {}
        for at in range(0, len(pairs), TOGETHER):
            some = pairs[at : at + TOGETHER]
            right.update(zip(some, self.model.agrees(some, tokens), strict=True))
            self.step(len(right), len(pairs))
        return self._done({"plain": ["01"[right[q.text, q.answer]] for q in self.plan.questions]})

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
        noisy, treated, verdicts, alone = [], [], [], []
        for i in range(count):
            pixels = self.pixels(i, kind, severity)
            perception = self.model.perceive(pixels)
            seen, noise = self._treat(pixels, perception)
            noisy.append(perception.tokens)
            treated.append(seen.tokens)
            verdicts.append([noise.kind, noise.severity])
            if ablated and kind in RESTORERS:
                alone.append(self.model.perceive(restore(pixels, kind, severity)).tokens)
            self.step((i + 1) * 0.3, count)
        before = np.stack(noisy)
        shifted = self._crossed(before, lambda x, y: {"shift": (y - x).mean((0, 1))}, lambda x, fit: x + fit["shift"])
        views: dict[str, Sequence[np.ndarray] | np.ndarray] = {"restore": alone} if alone else {}
        if ablated and count >= FEWEST_FITTED:
            views["transport"] = self._crossed(before, _fit, lambda x, fitted: fitted.apply(x))
        arms = self._arms("plain", "shift", "pdc", "sms", "imc", *views)
        for i, questions in enumerate(self.mine):
            self._four(arms, questions, noisy[i], treated[i], {}, repaired)
            self._mark(arms["shift"], questions, self._judged(shifted[i], questions, {}))
            stated = [q for q in questions if self.plan.questions[q].dataset in STATED]
            for arm, view in views.items():
                self._mark(arms[arm], stated, self._judged(view[i], stated, {}))
            self.step((i + 1) * 0.7 + count * 0.3, count)
        return {**self._done(arms), "verdicts": verdicts}

    def text_noise(self, kind: str, severity: int) -> Part:
        """Clean pictures, damaged questions."""
        arms, memo = self._arms("plain", "pdc", "sms", "imc"), {}
        damaged, repaired = {}, {}
        for i, questions in enumerate(self.mine):
            chosen = [q for q in questions if self.plan.questions[q].damaged]
            for q in chosen:
                damaged[q] = apply_to_text(self.plan.questions[q].text, kind, severity, self.plan.seed(i))
                if damaged[q] not in memo:
                    memo[damaged[q]] = self._repair(damaged[q])
                repaired[q] = memo[damaged[q]]
            self._four(arms, chosen, self.clean_tokens[i], self._clean_treated[i][0], damaged, repaired)
            self.step(i + 1, len(self.mine))
        return {**self._done(arms), "damaged": damaged, "repaired": repaired}

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
    ) -> dict[tuple[int, str], bool]:
        """Right or wrong for every different wording of the questions; one that is in no dictionary stays as it is."""
        asked = [
            (q, text)
            for q in questions
            for text in dict.fromkeys(words.get(q, self.plan.questions[q].text) for words in wordings)
        ]
        hits = self.model.agrees([(text, self.plan.questions[q].answer) for q, text in asked], tokens)
        return dict(zip(asked, hits, strict=True))

    def _mark(
        self,
        row: list[str],
        questions: Iterable[int],
        hits: dict[tuple[int, str], bool],
        wording: dict[int, str] | None = None,
    ) -> None:
        for q in questions:
            row[q] = "01"[hits[q, (wording or {}).get(q, self.plan.questions[q].text)]]

    def _crossed(self, noisy: np.ndarray, fit: Any, mend: Any) -> np.ndarray:
        """Tokens [P, N, D] mended by what was fitted on the pictures of the other folds, told the noise."""
        folds = np.array([self.plan.seed(i) for i in range(len(noisy))]).argsort().argsort() % FOLDS
        out = np.empty_like(noisy)
        for fold in range(FOLDS):
            held = folds == fold
            out[held] = mend(noisy[held], fit(noisy[~held], self.clean_tokens[~held]))
        return out

    def _arms(self, *names: str) -> dict[str, list[str]]:
        return {name: ["-"] * len(self.plan.questions) for name in names}

    def _done(self, arms: dict[str, list[str]]) -> Part:
        return {"hits": {name: "".join(row) for name, row in arms.items()}}

    def _treat(self, pixels: np.ndarray, perception: Perception) -> tuple[Treated, Noise]:
        seen = treat_picture(self.model, self.prototypes, pixels, perception)
        assert seen.report.noise is not None, "prototypes name a noise"
        return seen, seen.report.noise

    def _repair(self, question: str) -> str:
        return repair(self.model, check_question(question), rewrites=self.model.rewrites).repaired


def _fit(noisy: np.ndarray, clean: np.ndarray) -> LowRankMap:
    width = clean.shape[2]
    return fit_low_rank_map(noisy.reshape(-1, width), clean.reshape(-1, width), RANK)
