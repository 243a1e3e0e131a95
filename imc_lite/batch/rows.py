"""One row of a batch: reading the case it asks, and what says that a row answers it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from imc_lite.errors import ImcError, shown
from imc_lite.pipeline import MOST_QUESTIONS

LONGEST = 1 << 20  # bytes of a line; a question has at most 2,000 characters, a path 4,096
DIGITS = 16  # of the SHA-256 that stands for a case


@dataclass(frozen=True)
class Case:
    """One question about one picture, or `error`, the line that says why it cannot be asked.

    `questions` are several in the place of `question`; None among them is one that is no text. `key` is a digest of the
    input line that could not be read, so that it is known again.
    """

    id: str
    image: str = ""
    question: str = ""
    questions: tuple[str | None, ...] = ()
    window: str | None = None
    frame: int | None = None
    error: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Cases:
    """An open file of cases: how many there are, and each of them, once, in order."""

    total: int
    each: Iterator[Case]


@dataclass(frozen=True)
class Plan:
    """What is the same for every row of a run.

    folder: where relative pictures start.
    window, frame: of DICOM rows that name none, see `imc_lite.images.load.load_image`.
    timings: whether rows carry `timings_ms`; without them the same rows are the same bytes every time.
    max_risk: no answer that is likelier to be wrong.
    check_wording: whether every question is asked in other words too.
    of: what answers, as `imc_lite.batch.settings.describe` says it; every row carries it.
    root: `folder` from the root on, so that the same name in another folder is another picture.
    """

    folder: Path
    window: str | None = None
    frame: int | None = None
    timings: bool = True
    max_risk: float | None = None
    check_wording: bool = False
    of: Mapping[str, str] = field(default_factory=dict)
    root: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root or os.path.abspath(self.folder))


def read_case(data: bytes, number: int) -> Case:
    """The case that a line of JSON asks. It never fails: a line that cannot be asked gives a case with an error.

    Args:
        data: the line, UTF-8; what is beyond `LONGEST` may be cut off.
        number: of the line, counted from 1; the id of a case that names none.
    """
    id = str(number)
    try:
        given = _parse(data, number)
        id = _id(given, number)
        return Case(id, **_checked(given, number))
    except ImcError as error:
        return Case(id, error=str(error), key=sha256(data).hexdigest()[:DIGITS])


def run_of(case: Case, plan: Plan) -> dict[str, str]:
    """What a row is an answer to, so that a run goes on with its own rows only: docs/json.md."""
    asked: tuple[object, ...] = (case.id, case.key)
    if case.error is None:
        picture = os.path.normpath(os.path.join(plan.root, case.image))
        asked = (case.id, picture, case.questions or case.question, *view_of(case, plan))
    return {"case": sha256(json.dumps(asked).encode()).hexdigest()[:DIGITS], **plan.of}


def case_to_json(case: Case) -> str:
    """For another process; `case_from_json` reads it."""
    return json.dumps(asdict(case))


def case_from_json(text: str) -> Case:
    """What `case_to_json` wrote."""
    given = json.loads(text)
    return Case(**{**given, "questions": tuple(given["questions"])})


def view_of(case: Case, plan: Plan) -> tuple[str | None, int | None]:
    """Window and frame of a case: its own, else those of the run."""
    window = plan.window if case.window is None else case.window
    return window, plan.frame if case.frame is None else case.frame


def _parse(data: bytes, number: int) -> dict[str, Any]:
    if len(data) > LONGEST:
        raise ImcError(f"line {number} is longer than {LONGEST:,} bytes; shorten it")
    try:
        given = json.loads(data.decode("utf-8"), object_pairs_hook=partial(_once, number))
    except UnicodeDecodeError as error:
        raise ImcError(f"line {number} is not UTF-8 text; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ImcError(f"line {number} is not JSON; write one object a line") from error
    except ValueError as error:
        why = "is not JSON that can be read (a number of too many digits)"
        raise ImcError(f"line {number} {why}; write it as text") from error
    except RecursionError as error:
        raise ImcError(f"line {number} is nested too deeply; write one flat object a line") from error
    if not isinstance(given, dict):
        raise ImcError(f"line {number} is not a JSON object; write one object a line")
    return given


def _once(number: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; which of two values of one name is meant, nobody can say."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ImcError(f'line {number} has "{shown(twice)}" twice; leave one of them out')
    return found


def _id(given: dict[str, Any], number: int) -> str:
    """Text as it is and integers as text; a row without one has its line number."""
    found = given.get("id")
    if found is None:
        return str(number)
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise ImcError(f'line {number} has an "id" that is neither text nor an integer; correct it or leave it out')
    text = str(found)
    if not _is_unicode(text):
        raise ImcError(f'line {number} has an "id" with half a surrogate pair; correct it or leave it out')
    return text


def _checked(given: dict[str, Any], number: int) -> dict[str, Any]:
    """The fields of a case beside its id."""
    found: dict[str, Any] = {}
    many = given.get("questions") is not None
    for key in ("image",) if many else ("image", "question"):
        if not isinstance(given.get(key), str):
            raise ImcError(f'line {number} has no text "{key}"; add it')
        if not given[key] and key == "image":
            raise ImcError(f'line {number} has an empty "image"; name one')
        found[key] = given[key]
    if many:
        found["questions"] = _several(given, number)
    for key, kind, what in (("window", str, "a text"), ("frame", int, "a number counted from 1")):
        value = given.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ImcError(f'line {number} has a "{key}" that is not {what}; correct it or leave it out')
        found[key] = value
    return found


def _several(given: dict[str, Any], number: int) -> tuple[str | None, ...]:
    """The questions of a row that has a list of them; one that is no text makes only its own answer an error."""
    if given.get("question") is not None:
        raise ImcError(f'line {number} has both "question" and "questions"; leave one of them out')
    asked = given["questions"]
    if not isinstance(asked, list) or not 0 < len(asked) <= MOST_QUESTIONS:
        raise ImcError(f'line {number} has "questions" that are no list of 1 to {MOST_QUESTIONS}; correct it')
    return tuple(question if isinstance(question, str) else None for question in asked)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
