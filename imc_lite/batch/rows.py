"""One row of a batch: reading the case it asks, and the JSON line that answers it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from imc_lite.errors import ImcError, shown
from imc_lite.files import is_stream
from imc_lite.pipeline import IMC

LONGEST = 1 << 20  # bytes of a line; a question has at most 2,000 characters, a path 4,096
DIGITS = 16  # of the SHA-256 that stands for a case
LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


@dataclass(frozen=True)
class Case:
    """One question about one picture, or `error`, the line that says why it cannot be asked.

    `key` is a digest of the input line that could not be read, so that it is known again.
    """

    id: str
    image: str = ""
    question: str = ""
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
    of: what answers, as `imc_lite.batch.settings.describe` says it; every row carries it.
    root: `folder` from the root on, so that the same name in another folder is another picture.
    """

    folder: Path
    window: str | None = None
    frame: int | None = None
    timings: bool = True
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


def answer_row(imc: IMC, case: Case, plan: Plan) -> str:
    """The JSON line that answers a case: the row of `--json` and what it is an answer to, or an error.

    Whatever goes wrong with one case becomes its row, so that the others are answered.
    """
    row: dict[str, Any] = {"id": case.id, "error": case.error}
    if case.error is None:
        try:
            window, frame = _view(case, plan)
            image = plan.folder / case.image
            if is_stream(image):  # it may never end
                raise ImcError(f"{shown(image)} is a pipe or a device; name the file of a picture")
            row = imc.answer(image, case.question, id=case.id, window=window, frame=frame).to_dict()
            if not plan.timings:
                del row["timings_ms"]
        except ImcError as error:
            row["error"] = str(error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in a library written in Rust is no Exception
            # Not what it says: that may repeat what the picture or the question holds.
            kind = type(error).__name__
            row["error"] = f"this case failed with {kind}, which is a fault of ours; leave it out, or report it"
    return dump({**row, "run": run_of(case, plan)})


def run_of(case: Case, plan: Plan) -> dict[str, str]:
    """What a row is an answer to, so that a run goes on with its own rows only: docs/json.md."""
    asked: tuple[object, ...] = (case.id, case.key)
    if case.error is None:
        picture = os.path.normpath(os.path.join(plan.root, case.image))
        asked = (case.id, picture, case.question, *_view(case, plan))
    return {"case": sha256(json.dumps(asked).encode()).hexdigest()[:DIGITS], **plan.of}


def dump(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON that every reader takes as one line of UTF-8.

    Characters that some readers take for the end of a line are escaped; half a surrogate pair, which a file name may
    hold and UTF-8 cannot, becomes "?".
    """
    text = json.dumps(row, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8").translate(LINE_BREAKS)


def case_to_json(case: Case) -> str:
    """For another process; `case_from_json` reads it."""
    return json.dumps(asdict(case))


def case_from_json(text: str) -> Case:
    """What `case_to_json` wrote."""
    return Case(**json.loads(text))


def _view(case: Case, plan: Plan) -> tuple[str | None, int | None]:
    """Window and frame of a case: its own, else those of the run."""
    window = plan.window if case.window is None else case.window
    return window, plan.frame if case.frame is None else case.frame


def _parse(data: bytes, number: int) -> dict[str, Any]:
    if len(data) > LONGEST:
        raise ImcError(f"line {number} is longer than {LONGEST:,} bytes; shorten it")
    try:
        given = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ImcError(f"line {number} is not UTF-8 text; save the file as UTF-8") from error
    except ValueError as error:
        raise ImcError(f"line {number} is not JSON; write one object a line") from error
    except RecursionError as error:
        raise ImcError(f"line {number} is nested too deeply; write one flat object a line") from error
    if not isinstance(given, dict):
        raise ImcError(f"line {number} is not a JSON object; write one object a line")
    return given


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
    for key in ("image", "question"):
        if not isinstance(given.get(key), str):
            raise ImcError(f'line {number} has no text "{key}"; add it')
        found[key] = given[key]
    for key, kind, what in (("window", str, "a text"), ("frame", int, "a number")):
        value = given.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ImcError(f'line {number} has a "{key}" that is not {what}; correct it or leave it out')
        found[key] = value
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
