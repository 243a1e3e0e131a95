"""Conditions of a run whose answers another server gives: what noise costs it, and what restoring pixels and repairing
questions in front of it gives back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from imc_lite.bench.conditions import BLANK, Judge, Part, Step
from imc_lite.bench.control import stand_ins
from imc_lite.bench.judging import RIGHT, SAID, WRITTEN, mark
from imc_lite.bench.plan import Plan
from imc_lite.bench.sureness import COLUMNS, IMC, PLAIN, Columns
from imc_lite.images.data_uri import data_uri, picture_uri
from imc_lite.images.load import load_shown
from imc_lite.models.base import MLLM, Generation
from imc_lite.noise.text import apply_to_text
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.treat import restore_picture
from imc_lite.results import ImageReport
from imc_lite.upstream.chat import UNKNOWN, Chat
from imc_lite.upstream.client import Upstream
from imc_lite.upstream.errors import UpstreamError, UpstreamUnavailable

CONTROLS = ("blank", "shuffled")  # many servers refuse a question without a picture


class UpstreamJudge(Judge):
    """Judges the arms "plain", "pdc", "sms" and "imc" of an upstream's answers, which are marked by the rule for
    sentences. The parts are those of `Judge`.

    Attributes:
        name: of the model that answered, once one has.
    """

    controls = CONTROLS

    def __init__(self, upstream: Upstream, model: MLLM, prototypes: Prototypes | None, plan: Plan, step: Step) -> None:
        """Nothing is sent.

        Args:
            upstream: answers.
            model: looks for noise and repairs questions.
            prototypes: of its encoder; a plain run needs none.
            plan: pictures and questions.
            step: as of `Judge`.
        """
        super().__init__(model, prototypes, plan, step)
        self._chat, self.name = Chat(upstream), upstream.model or UNKNOWN
        self._said: dict[tuple[str, str], Generation] = {}  # about one picture
        # Of one part. What is not answered counts as wrong.
        self._answered, self._refused = 0, list[UpstreamError]()

    def clean(self) -> Part:
        """The clean pictures as their files are, and clean questions.

        Raises:
            UpstreamError: the upstream answers none of them.
        """
        texts = {q: question.text for q, question in enumerate(self.plan.questions)}
        repaired = {q: text for q, text in self._repaired(texts).items() if text != texts[q]}
        part = self._judge_each(self.mine, self._clean_views(), {}, repaired)
        if self._refused and not self._answered:
            raise self._refused[-1]
        return {**part, "repaired": repaired, "answered": {"id": self.name, "version": UNKNOWN}}

    def control(self, name: str) -> Part:
        """The questions with a black picture, or with another one's."""
        about: dict[int | None, list[int]] = {None: [*range(len(self.plan.questions))]}
        if name == "shuffled":
            about = {}
            for q, other in enumerate(stand_ins(self.plan)):
                about.setdefault(other, []).append(q)
        arms, done = self._arms(PLAIN), 0
        for picture, questions in about.items():
            url = data_uri(BLANK) if picture is None else self._file(picture)
            for q in questions:
                arms[PLAIN][q] = self._marked(q, url, self.plan.questions[q].text)
                done += 1
                self.step(done, len(self.plan.questions))
            self._said.clear()
        return self._done(arms)

    def image_noise(self, kind: str, severity: int, repaired: dict[int, str]) -> Part:
        """Noisy pictures, clean questions."""
        return self._judge_each(self.mine, self._noisy_views(kind, severity), {}, repaired)

    def text_noise(self, kind: str, severity: int) -> Part:
        """Clean pictures, damaged questions."""
        asked = [[q for q in mine if self.plan.questions[q].damaged] for mine in self.mine]
        damaged = {
            q: apply_to_text(self.plan.questions[q].text, kind, severity, self.plan.seed(i))
            for i, questions in enumerate(asked)
            for q in questions
        }
        repaired = self._repaired(damaged)
        part = self._judge_each(asked, self._clean_views(), damaged, repaired)
        return {**part, "damaged": damaged, "repaired": repaired}

    def _judge_each(
        self,
        asked: list[list[int]],
        views: Iterable[tuple[str, str, ImageReport]],
        damaged: dict[int, str],
        repaired: dict[int, str],
    ) -> Part:
        arms = self._arms(PLAIN) if self.plan.options.plain else self._arms(PLAIN, "pdc", "sms", IMC)
        kept: dict[str, Columns] = {arm: {name: [] for name in COLUMNS} for arm in (PLAIN, IMC) if arm in arms}
        identical, verdicts = 0, []
        self._answered, self._refused = 0, []
        for i, (plain, treated, report) in enumerate(views):
            for q in asked[i]:
                text = damaged.get(q, self.plan.questions[q].text)
                mended = repaired.get(q, text)
                for arm, url, words in (
                    (PLAIN, plain, text), ("pdc", treated, text), ("sms", plain, mended), (IMC, treated, mended)
                ):  # fmt: skip
                    if arm not in arms:
                        continue
                    arms[arm][q] = self._marked(q, url, words)
                    if arm in kept and (q in self.weighed[i] or damaged):
                        self._keep(kept[arm], q, arms[arm][q], self._said[url, words])
            self._said.clear()
            identical += plain == treated
            if report.noise is not None:
                verdicts.append([report.noise.kind, report.noise.severity])
            self.step(i + 1, len(asked))
        same = None if self.plan.options.plain else identical
        found = {"verdicts": verdicts, "identical": same, "sureness": kept, "unanswered": len(self._refused)}
        return {**self._done(arms), **found}

    def _repaired(self, texts: dict[int, str]) -> dict[int, str]:
        """Questions as they are asked after repair; none of a plain run."""
        if self.plan.options.plain:
            return {}
        memo = {text: self._repair(text) for text in dict.fromkeys(texts.values())}
        return {q: memo[text] for q, text in texts.items()}

    def _keep(self, columns: Columns, question: int, marked: str, said: Generation) -> None:
        """What another server says of an answer: at most its tokens' probabilities."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"question": question, "right": int(marked in (RIGHT, SAID))}
        if said.logprobs:
            total = sum(said.logprobs)
            row |= {"token_probability": math.exp(total / len(said.logprobs)), "sequence_probability": math.exp(total)}
        for name, value in row.items():
            columns[name].append(value)

    def _marked(self, question: int, url: str, words: str) -> str:
        if (url, words) not in self._said:
            try:
                self._said[url, words], self.name = self._chat.ask(words, url, WRITTEN)
                self._answered += 1
            except UpstreamUnavailable:
                raise
            except UpstreamError as error:
                self._said[url, words] = Generation("", ())
                self._refused.append(error)
        return mark(self._said[url, words].text, self.plan.questions[question].answer)

    def _file(self, picture: int) -> str:
        return picture_uri(load_shown(self.plan.cases[picture].path))

    def _clean_views(self) -> Iterator[tuple[str, str, ImageReport]]:
        """Every clean picture as it is shown, as it is shown restored, and the verdict."""
        for i in range(len(self.plan.cases)):
            yield self._view(self._file(i), self.pixels(i))

    def _noisy_views(self, kind: str, severity: int) -> Iterator[tuple[str, str, ImageReport]]:
        for i in range(len(self.plan.cases)):
            pixels = self.pixels(i, kind, severity)
            yield self._view(data_uri(pixels), pixels)

    def _view(self, url: str, pixels: np.ndarray) -> tuple[str, str, ImageReport]:
        if self.plan.options.plain or self.prototypes is None:
            return url, url, ImageReport(None)
        seen = restore_picture(self.model, self.prototypes, pixels)
        return url, url if seen.pixels is None else data_uri(seen.pixels), seen.report
