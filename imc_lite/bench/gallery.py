"""Examples for the report: clean, noisy and restored picture with question and answers, helped and not helped."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from imc_lite.bench.elsewhere import UpstreamJudge
from imc_lite.bench.judging import RIGHT, SAID, WRITTEN, WRONG, mark, writes
from imc_lite.bench.run import Run
from imc_lite.pdc.treat import treat_picture

SIDE, QUALITY = 240, 80
TRIES = 5  # questions looked at for one example
HELPED, LOST = "comes back", "stays lost"


@dataclass(frozen=True)
class Example:
    """One question under one noise.

    fate: whether IMC makes the wrong answer right again.
    pictures: (caption, JPEG as a data URI).
    answers: (who, answer, right), of the plain model on the clean and on the noisy case, and of IMC on that.
    """

    noise: str
    severity: int
    fate: str
    name: str
    pictures: tuple[tuple[str, str], ...]
    verdict: str
    question: str
    asked: str
    repaired: str
    expected: str
    answers: tuple[tuple[str, str, bool], ...]

    @property
    def holds(self) -> bool:
        """Whether the decoded answers are right, wrong, and as the fate says."""
        return [right for _, _, right in self.answers] == [True, False, self.fate == HELPED]


def examples(run: Run, parts: dict[str, dict[str, Any]]) -> list[Example]:
    """For every noise at its highest severity: the first question, in the order of the plan, that was right on the
    clean case, is wrong under noise, and comes back with IMC; and the first that does not. None of a plain run,
    or where another server answers.
    """
    found: list[Example] = []
    if run.plan.options.plain or isinstance(run.judge, UpstreamJudge):
        return found
    highest: dict[str, int] = {}
    for kind, severity in run.plan.image_conditions + run.plan.text_conditions:
        highest[kind] = max(severity, highest.get(kind, 0))
    for kind, severity in highest.items():
        clean, now = parts["clean"]["hits"]["plain"], parts[f"{kind} {severity}"]["hits"]
        wrong = [q for q in range(len(clean)) if clean[q] in (RIGHT, SAID) and now["plain"][q] == WRONG]
        for fate, marks in ((HELPED, (RIGHT, SAID)), (LOST, (WRONG,))):
            # Near ties may be decoded otherwise than judged; an example has to show what it says.
            tried = (_example(run, parts, q, kind, severity, fate) for q in wrong if now["imc"][q] in marks)
            shown = next((e for e in islice(tried, TRIES) if e.holds), None)
            found += [shown] if shown else []
    return found


def _example(run: Run, parts: dict[str, Any], index: int, kind: str, severity: int, fate: str) -> Example:
    question = run.plan.questions[index]
    judge = run.judge
    clean = judge.pixels(question.picture)
    pictures = [("clean", clean)]
    asked, repaired = question.text, run.repaired().get(index, question.text)
    if kind in run.plan.options.image_noises:
        noisy = judge.pixels(question.picture, kind, severity)
        pictures.append((f"{kind.replace('_', ' ')} {severity}", noisy))
        tokens = judge.model.perceive(noisy).tokens
    else:
        part = parts[f"{kind} {severity}"]
        asked, repaired = part["damaged"][str(index)], part["repaired"][str(index)]
        noisy, tokens = clean, judge.clean_tokens[question.picture]
    seen = treat_picture(judge.model, judge.prototypes, noisy)
    noise = seen.report.noise
    assert noise is not None
    if seen.restored is not None:
        pictures.append(("restored", seen.restored))
    views = (
        ("clean, plain", question.text, judge.clean_tokens[question.picture]),
        ("noisy, plain", asked, tokens),
        ("noisy, IMC", repaired, seen.tokens),
    )
    said = [(who, judge.model.generate(text, view, WRITTEN).text) for who, text, view in views]
    right = (RIGHT, SAID) if writes(judge.model) else (RIGHT,)
    answers = tuple((who, text, mark(text, question.answer) in right) for who, text in said)
    did = " and ".join(
        word for word, done in (("restored", seen.report.restored), ("calibrated", seen.report.calibrated)) if done
    )
    verdict = f"{noise.kind.replace('_', ' ')} {noise.severity or ''}".strip() + (f", {did}" if did else ", left alone")
    return Example(
        kind, severity, fate, run.plan.cases[question.picture].name,
        tuple((caption, data_uri(pixels)) for caption, pixels in pictures),
        verdict, question.text, asked, repaired, question.answer, answers,
    )  # fmt: skip


def data_uri(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as a small JPEG in a data URI."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
