"""One condition after the other, each kept in a file of its own, so that a run that was cut off goes on.

Per picture and noise there is one encoder pass; every arm starts from its tokens, and all questions about the picture
are judged in one pass of the language model for each view of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imc_lite.bench.judge import judge
from imc_lite.bench.plan import Plan
from imc_lite.bench.progress import Progress
from imc_lite.errors import ImcError
from imc_lite.files import write_atomically
from imc_lite.images.load import load_image
from imc_lite.noise.image import apply as spoil
from imc_lite.noise.text import apply as garble
from imc_lite.pdc.fit.build import RANK, fit_transport, transport
from imc_lite.pdc.restorers import RESTORERS, restore
from imc_lite.pipeline import IMC

CONTROLS = ("blank", "shuffled", "text_only")
FOLDS = 4
ABLATED = 4  # severity from which restoring alone and the map alone are measured too
FEWEST_FITTED = 40  # pictures; a map of rank 64 fitted on fewer says nothing
BLANK = np.zeros((320, 320, 3), np.uint8)
DECIDING = (
    "*.py",
    "noise/*.py",
    "sms/*.py",
    "models/*.py",
    "bench/judge.py",
    "bench/plan.py",
    "bench/run.py",
    "bench/templates.py",
)
# Seconds on one core, for the remaining time only.
ENCODE, ANSWER, REPAIR = 0.06, 0.03, 0.5


class Run:
    """The conditions of a plan and their files.

    A part holds for every arm one character a question: "1" right, "0" wrong, "-" not asked.
    """

    def __init__(self, imc: IMC, plan: Plan, out: Path) -> None:
        """Take up the parts in `out`, a folder that is made.

        Raises:
            ImcError: the folder cannot be made, or holds parts of another plan or model.
        """
        self.imc, self.model, self.plan, self.parts = imc, imc.model, plan, out / "parts"
        of = {"plan": plan.fingerprint(), "model": imc.model.id, "version": imc.model.version, "code": code_digest()}
        of["prototypes"] = None if imc.prototypes is None else imc.prototypes.digest()
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            before = json.loads((self.parts / "of.json").read_text()) if (self.parts / "of.json").exists() else of
        except (OSError, ValueError) as error:
            raise ImcError(f"{out} cannot be used as the output folder ({error}); choose another one") from error
        if before != of:
            raise ImcError(
                f"{out} holds a run of other pictures, questions, code or another model; choose another folder"
            )
        self._write("of", of)
        self.mine: list[list[int]] = [[] for _ in plan.cases]
        for i, question in enumerate(plan.questions):
            self.mine[question.picture].append(i)

    def go(self) -> dict[str, dict[str, Any]]:
        """Judge what is not judged yet; every part by its name, "clean" first."""
        jobs: list[tuple[str, Any, tuple, float]] = [("clean", self._judge_clean, (), self._cost("clean"))]
        jobs += [(name, self._judge_control, (name,), self._cost("control")) for name in CONTROLS]
        for kind, severity in self.plan.image_conditions:
            cost = self._cost("ablated" if severity >= ABLATED else "image")
            jobs.append((f"{kind} {severity}", self._judge_image, (kind, severity), cost))
        for kind, severity in self.plan.text_conditions:
            jobs.append((f"{kind} {severity}", self._judge_text, (kind, severity), self._cost("text")))
        with Progress([(name, cost) for name, _, _, cost in jobs]) as self.progress:
            done = {}
            for name, work, args, _ in jobs:
                done[name] = self._read(name)
                if done[name] is None:
                    self.progress.begin(name)
                    self._write(name, work(*args))
                    done[name] = self._read(name)
                self.progress.end(name)
        return done

    def part(self, name: str) -> Path:
        """Where a condition is kept."""
        return self.parts / f"{name.replace(' ', '-')}.json"

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self.part(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ImcError(f"{self.part(name)} cannot be read ({error}); delete it and start again") from error

    def _write(self, name: str, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        write_atomically(self.part(name), lambda file: file.write(text.encode()))

    def _cost(self, what: str) -> float:
        asked, pictures = len(self.plan.questions), len(self.plan.cases)
        damaged = sum(q.damaged for q in self.plan.questions)
        return {
            "clean": pictures * ENCODE + asked * (ANSWER + REPAIR / 2),
            "control": asked * ANSWER,
            "image": pictures * 2 * ENCODE + asked * 3 * ANSWER,
            "ablated": pictures * 3 * ENCODE + asked * 4.5 * ANSWER,
            "text": damaged * (2 * ANSWER + REPAIR),
        }[what]

    def pixels(self, picture: int, kind: str | None = None, severity: int = 0) -> np.ndarray:
        """A picture, with noise if a kind is given."""
        image = load_image(self.plan.cases[picture].path)
        return image if kind is None else spoil(image, kind, severity, self.plan.seed(picture))

    @cached_property
    def clean(self) -> np.ndarray:
        """Tokens of the clean pictures, float32 [P, N, D]."""
        return np.stack([self.model.perceive(self.pixels(i)).tokens for i in range(len(self.plan.cases))])

    @cached_property
    def repaired(self) -> dict[int, str]:
        """Clean questions that repair changes, by their index."""
        return {int(i): text for i, text in self._read("clean")["repaired"].items()}

    def _judge_clean(self) -> dict[str, Any]:
        arms = self._arms("plain", "pdc", "sms", "imc")
        verdicts, identical, repaired, memo = [], 0, {}, {}
        for i, questions in enumerate(self.mine):
            for q in questions:
                text = self.plan.questions[q].text
                if text not in memo:
                    memo[text] = self.imc.repair(text).repaired
                if memo[text] != text:
                    repaired[q] = memo[text]
            seen = self.imc.see(self.pixels(i))
            verdicts.append([seen.report.noise.kind, seen.report.noise.severity])
            identical += bool(np.array_equal(seen.tokens, self.clean[i]))
            self._four(arms, questions, self.clean[i], seen.tokens, {}, repaired)
            self.progress.step(i + 1, len(self.mine))
        return {**self._done(arms), "verdicts": verdicts, "identical": identical, "repaired": repaired}

    def _judge_control(self, name: str) -> dict[str, Any]:
        arms, count = self._arms("plain"), len(self.mine)
        blank = self.model.perceive(BLANK).tokens if name == "blank" else None
        for i, questions in enumerate(self.mine):
            tokens = blank
            if name == "shuffled":  # another picture of the run, drawn for each
                step = int(np.random.default_rng([self.plan.seed(i), 2]).integers(1, count))
                tokens = self.clean[(i + step) % count]
            self._mark(arms["plain"], questions, self._judged(tokens, questions, {}))
            self.progress.step(i + 1, count)
        return self._done(arms)

    def _judge_image(self, kind: str, severity: int) -> dict[str, Any]:
        count, ablated = len(self.mine), severity >= ABLATED
        noisy, treated, verdicts, alone = [], [], [], []
        for i in range(count):
            pixels = self.pixels(i, kind, severity)
            perception = self.model.perceive(pixels)
            seen = self.imc.see(pixels, perception)
            noisy.append(perception.tokens)
            treated.append(seen.tokens)
            verdicts.append([seen.report.noise.kind, seen.report.noise.severity])
            if ablated and kind in RESTORERS:
                alone.append(self.model.perceive(restore(pixels, kind, severity)).tokens)
            self.progress.step((i + 1) * 0.3, count)
        before = np.stack(noisy)
        shifted = self._crossed(before, lambda x, y: {"shift": (y - x).mean((0, 1))}, lambda x, fit: x + fit["shift"])
        views = {"restore": alone} if alone else {}
        if ablated and count >= FEWEST_FITTED:
            views["transport"] = self._crossed(before, _fit, transport)
        arms = self._arms("plain", "shift", "pdc", "sms", "imc", *views)
        for i, questions in enumerate(self.mine):
            self._four(arms, questions, noisy[i], treated[i], {}, self.repaired)
            self._mark(arms["shift"], questions, self._judged(shifted[i], questions, {}))
            # The parts alone are measured on what a picture states, not on every question.
            stated = [q for q in questions if self.plan.questions[q].dataset in ("templates", "cells")]
            for arm, view in views.items():
                self._mark(arms[arm], stated, self._judged(view[i], stated, {}))
            self.progress.step((i + 1) * 0.7 + count * 0.3, count)
        return {**self._done(arms), "verdicts": verdicts}

    def _judge_text(self, kind: str, severity: int) -> dict[str, Any]:
        arms, memo = self._arms("plain", "pdc", "sms", "imc"), {}
        damaged, repaired = {}, {}
        for i, questions in enumerate(self.mine):
            chosen = [q for q in questions if self.plan.questions[q].damaged]
            for q in chosen:
                damaged[q] = garble(self.plan.questions[q].text, kind, severity, self.plan.seed(i))
                if damaged[q] not in memo:
                    memo[damaged[q]] = self.imc.repair(damaged[q]).repaired
                repaired[q] = memo[damaged[q]]
            treated = self.imc.see(self.pixels(i)).tokens
            self._four(arms, chosen, self.clean[i], treated, damaged, repaired)
            self.progress.step(i + 1, len(self.mine))
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
        hits = judge(self.model, tokens, [(text, self.plan.questions[q].answer) for q, text in asked])
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
            out[held] = mend(noisy[held], fit(noisy[~held], self.clean[~held]))
        return out

    def _arms(self, *names: str) -> dict[str, list[str]]:
        return {name: ["-"] * len(self.plan.questions) for name in names}

    def _done(self, arms: dict[str, list[str]]) -> dict[str, Any]:
        return {"hits": {name: "".join(row) for name, row in arms.items()}}


def code_digest() -> str:
    """SHA-256 of the modules that decide what is asked and answered: parts do not outlive a change of them."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for name in sorted(p for pattern in DECIDING for p in package.glob(pattern)):
        digest.update(name.read_bytes())
    return digest.hexdigest()


def _fit(noisy: np.ndarray, clean: np.ndarray) -> dict[str, np.ndarray]:
    width = clean.shape[2]
    return fit_transport(noisy.reshape(-1, width), clean.reshape(-1, width), RANK)
