"""A model's answers to questions whose right answer is known, about pictures clean and noisy."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from imc_lite.errors import ImcError, shown
from imc_lite.images.dicom.windows import canonical
from imc_lite.images.load import load_shown
from imc_lite.models.base import LONGER, MLLM, same_answer
from imc_lite.models.replicas import in_order, replicas
from imc_lite.noise import FURTHER_KINDS, IMAGE_KINDS, IMAGE_NOISE, apply_as_met, apply_to_image
from imc_lite.pdc.familiarity import pooled
from imc_lite.pdc.prototypes import Prototypes
from imc_lite.pdc.treat import treat_picture
from imc_lite.sms.question import check_question, normal_form
from imc_lite.trust.confidence import Confidence, evidence
from imc_lite.trust.fit import FEWEST, Observed, fit_confidence
from imc_lite.trust.reliance import reliance
from imc_lite.trust.rewording import check_wording

NOISES, ASKED = 3, 4  # noises of the bank, and questions, that are drawn for a picture and for each view of it
FEWEST_PICTURES = 32
LARGEST = 1 << 26  # bytes of a file of labelled cases


@dataclass(frozen=True)
class Labelled:
    """A picture, questions about it with their right answers, and how it is shown if it is a DICOM file, see
    `imc_lite.images.load.load_image`."""

    image: Path
    questions: tuple[tuple[str, str], ...]
    window: str | None = None
    frame: int | None = None


@dataclass(frozen=True)
class Views:
    """What came of one picture: its answers, and float64 [2, F], what is pooled of it clean, as it is and as it is
    met."""

    answers: list[Observed]
    clean: np.ndarray


def read_labelled(path: Path, window: str | None = None, frame: int | None = None) -> list[Labelled]:
    """The pictures of a JSONL file of rows {"image", "question", "answer", "window"?, "frame"?}; relative ones start at
    its folder.

    Args:
        path: of the file.
        window, frame: of DICOM pictures whose row names none.

    Raises:
        ImcError: it cannot be read, one of its lines is no such row or holds a question that cannot be asked, or a
            picture is not there.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ImcError(f"{shown(path)} is larger than {LARGEST >> 20} MiB; give fewer cases")
        # Not `splitlines`, which also parts at characters that JSON texts may hold as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ImcError(f"cannot read {shown(path)}: {error.strerror}; give a file of labelled cases") from error
    except UnicodeDecodeError as error:
        raise ImcError(f"{shown(path)} cannot be read as UTF-8 text; give one JSON object a line") from error
    found: dict[tuple[Path, str | None, int | None], list[tuple[str, str]]] = {}
    lines_of: dict[Path, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            image, question, answer = (row[name] for name in ("image", "question", "answer"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ImcError(f'line {number} has no "image", "question" and "answer"; correct it') from error
        if not all(isinstance(text, str) and text.strip() for text in (image, question, answer)):
            raise ImcError(f'line {number} has an "image", "question" or "answer" that is no text; correct it')
        view = _view(row, number)
        try:
            question, answer = check_question(question), normal_form(answer)
            # The same picture under two names would be both fitted to and tested on.
            real = Path(os.path.realpath(path.parent / image))
        except ImcError as error:
            raise ImcError(f"line {number}: {error}") from error
        except ValueError as error:
            raise ImcError(f'line {number} has an "image" that is no file name; correct it') from error
        lines_of.setdefault(real, number)
        found.setdefault((real, view[0] or window, view[1] or frame), []).append((question, answer))
    if len(lines_of) < FEWEST_PICTURES:
        many = f"{len(lines_of)} pictures" if len(lines_of) != 1 else "1 picture"
        raise ImcError(f"{shown(path)} has {many}; give at least {FEWEST_PICTURES}, more are better")
    # Missed now, and not after hours of answers.
    for image, number in lines_of.items():
        if not image.is_file():
            raise ImcError(f"line {number}: {shown(image)} does not exist; check the path")
    return [Labelled(image, tuple(asked), window, frame) for (image, window, frame), asked in found.items()]


def _view(row: dict[str, Any], number: int) -> tuple[str | None, int | None]:
    """Window and frame that a row names."""
    window, frame = row.get("window"), row.get("frame")
    if window is not None and not isinstance(window, str):
        raise ImcError(f'line {number} has a "window" that is not a text; correct it or leave it out')
    if frame is not None and (not isinstance(frame, int) or isinstance(frame, bool) or frame < 1):
        raise ImcError(f'line {number} has a "frame" that is not a number counted from 1; correct it or leave it out')
    if window is not None:
        try:
            canonical(window)
        except ImcError as error:
            raise ImcError(f"line {number}: {error}") from error
    return window, frame


def observe(
    model: MLLM, prototypes: Prototypes | None, case: Labelled, seed: int, number: int, check_wordings: bool
) -> Views:
    """One picture as it is, at another size, under noises of the bank as it is met, and under one that the bank has
    not.

    Args:
        model: answers.
        prototypes: that it will be used with.
        case: the picture and its questions.
        seed: of noises, sizes and which questions are asked.
        number: of the picture.
        check_wordings: whether every question is asked in other words too.

    Raises:
        ImcError: the picture cannot be used.
    """
    rng = np.random.default_rng(seed)
    picture = load_shown(case.image, window=case.window, frame=case.frame)
    if prototypes is not None:
        prototypes.check_window(picture.window)
    image = picture.pixels
    known, others = IMAGE_KINDS + FURTHER_KINDS, IMAGE_NOISE.names("unseen")
    drawn = [known[i] for i in rng.permutation(len(known))[:NOISES]]
    views = [image, apply_as_met(image, "clean", 0, seed)]
    views += [apply_as_met(image, kind, int(rng.integers(1, 6)), seed) for kind in drawn]
    views.append(apply_to_image(image, others[rng.integers(len(others))], int(rng.integers(2, 6)), seed))
    answers, clean = [], []
    for index, pixels in enumerate(views):
        seen = treat_picture(model, prototypes, pixels)
        values = pooled(seen.tokens)
        if index < 2:
            clean.append(values)
        for question, expected in (case.questions[i] for i in rng.permutation(len(case.questions))[:ASKED]):
            said = model.generate(question, seen.tokens, len(model.encode(expected)) + LONGER)
            rests = reliance(model, question, said.text, said.logprobs)
            found = evidence(said.logprobs, rests, seen.report, 1.0)
            again = check_wording(model, question, said, seen.tokens) if check_wordings else None
            same = None if again is None else again.share
            answers.append(Observed(number, found, values, same_answer(said.text, expected), same))
    return Views(answers, np.stack(clean))


def facts_of(model: MLLM) -> dict[str, Any]:
    """What a confidence belongs to."""
    return {**model.identity, "version": model.version, "model": model.id}


def calibrate(
    model: MLLM,
    prototypes: Prototypes | None,
    cases: list[Labelled],
    seed: int = 0,
    check_wordings: bool = False,
) -> Confidence:
    """A confidence for a model. The last third of the pictures, at random, tests what limits can be promised.

    Args:
        model: answers.
        prototypes: that it will be used with.
        cases: pictures that it was not trained on; an answer is right where it is the expected one but for case, spaces
            and a full stop.
        seed: of noises and clusters.
        check_wordings: whether every question is asked in other words too.

    Raises:
        ImcError: a picture cannot be used, or too few answers are right, or wrong.
    """
    order = np.random.default_rng(seed).permutation(len(cases))

    def observed(replica: MLLM, place: tuple[int, int]) -> Views:
        return observe(replica, prototypes, cases[place[1]], seed + place[0], place[0], check_wordings)

    found = in_order(replicas(model), observed, enumerate(order))
    views = list(tqdm(found, total=len(order), unit="picture", file=sys.stderr, disable=None))
    third = len(views) // 3
    fitted, control = views[: 2 * third], views[2 * third :]
    pictures, checked = (np.concatenate([view.clean for view in some]) for some in (views[:third], fitted[third:]))
    try:
        return fit_confidence(
            [answer for view in fitted for answer in view.answers],
            [answer for view in control for answer in view.answers],
            pictures,
            checked,
            facts_of(model),
            seed,
        )
    except ValueError as error:
        raise ImcError(f"{error}; give more cases, at least {FEWEST} of each are needed") from error
