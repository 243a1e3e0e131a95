"""The plain model alone: what noise costs it. Nothing is looked for or repaired, so it needs no prototypes."""

from __future__ import annotations

import numpy as np

from imc_lite.bench.conditions import Judge, Part
from imc_lite.bench.sureness import PLAIN, Columns, Sureness, View
from imc_lite.noise.text import apply_to_text
from imc_lite.results import ImageReport


class PlainJudge(Judge):
    """Judges the conditions of a plan for the arm "plain" alone; the parts are those of `Judge`."""

    def clean(self) -> Part:
        """The clean pictures and questions."""
        sure = self._plain_sureness(self.weighed, self.clean_tokens, {})
        kept: Part = {"verdicts": [], "identical": None, "repaired": {}, "sureness": sure}
        return {**self._plain(self.mine, self.clean_tokens, {}), **kept}

    def image_noise(self, kind: str, severity: int, repaired: dict[int, str]) -> Part:
        """Noisy pictures, clean questions."""
        noisy = np.stack([self.model.perceive(self.pixels(i, kind, severity)).tokens for i in range(len(self.mine))])
        sure = self._plain_sureness(self.weighed, noisy, {})
        return {**self._plain(self.mine, noisy, {}), "verdicts": [], "sureness": sure}

    def text_noise(self, kind: str, severity: int) -> Part:
        """Clean pictures, damaged questions."""
        asked = [[q for q in mine if self.plan.questions[q].damaged] for mine in self.mine]
        damaged = {
            q: apply_to_text(self.plan.questions[q].text, kind, severity, self.plan.seed(i))
            for i, questions in enumerate(asked)
            for q in questions
        }
        sure = self._plain_sureness(asked, self.clean_tokens, damaged)
        part = self._plain(asked, self.clean_tokens, damaged)
        return {**part, "damaged": damaged, "repaired": {}, "sureness": sure}

    def _plain(self, asked: list[list[int]], tokens: np.ndarray, damaged: dict[int, str]) -> Part:
        arms = self._arms(PLAIN)
        for i, questions in enumerate(asked):
            self._mark(arms[PLAIN], questions, self._judged(tokens[i], questions, damaged), damaged)
            self.step(i + 1, len(asked))
        return self._done(arms)

    def _plain_sureness(
        self, asked: list[list[int]], tokens: np.ndarray, damaged: dict[int, str]
    ) -> dict[str, Columns]:
        found = Sureness(self.model, None, (PLAIN,))
        for i, questions in enumerate(asked):
            for q in questions:
                question = self.plan.questions[q]
                found.ask(q, question.answer, View(tokens[i], ImageReport(None)), damaged.get(q, question.text))
        return found.arms
