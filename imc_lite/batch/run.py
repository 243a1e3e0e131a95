"""Many cases in, one JSON line each out, in order; a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from imc_lite.errors import ImcError
from imc_lite.pipeline import IMC

PARQUET = ".parquet"


@dataclass(frozen=True)
class Plan:
    """What is the same for every row of a run.

    folder: where relative pictures start.
    window, frame: of DICOM rows that name none, see `imc_lite.images.load.load_image`.
    timings: whether rows carry `timings_ms`; without them the same rows are the same bytes every time.
    """

    folder: Path
    window: str | None = None
    frame: int | None = None
    timings: bool = True


# From all lines and the number of those that are answered already: the answers to the others, in order.
Answers = Callable[[list[str], int], Iterator[str]]


def run_batch(answers: Answers, cases: Path, out: Path | None) -> int:
    """Answer every row of a JSONL or Parquet file; returns how many rows carry an error.

    Args:
        answers: `in_process` or `imc_lite.batch.ray.on_ray`; asked only when there is something to answer.
        cases: rows {"id"?, "image", "question", "window"?, "frame"?}; a relative image path starts at this file's
            folder. A row without an id gets its line number, counted from 1.
        out: JSONL or Parquet to write, resumed if it is there; None writes JSONL to stdout.

    Raises:
        ImcError: the files cannot be used. A row that cannot be answered is written with "error" instead.
    """
    lines = _read_lines(cases)
    if out is None:
        return _answer_all(answers, lines, 0, sys.stdout)
    if out.exists() and out.resolve() == cases.resolve():
        raise ImcError(f"{out} is both input and output; choose another output file")
    if out.suffix.lower() != PARQUET:
        return _to_file(answers, lines, out)
    from imc_lite.batch import parquet

    if out.exists():
        return _check_rows(parquet.read_rows(out), lines, out)
    # Parquet cannot grow row by row; the rows are kept as JSONL until all are there.
    rows = out.with_name(f"{out.name}.rows.jsonl")
    failed = _to_file(answers, lines, rows)
    parquet.write_rows(rows, out)
    rows.unlink()
    return failed


def in_process(open_model: Callable[[], IMC], plan: Plan) -> Answers:
    """Answers from a model in this process, one after the other."""

    def answers(lines: list[str], done: int) -> Iterator[str]:
        imc = open_model()
        for number, line in enumerate(lines[done:], done + 1):
            yield answer_row(imc, line, number, plan)

    return answers


def answer_row(imc: IMC, line: str, number: int, plan: Plan) -> str:
    """The JSON line that answers one input line."""
    row = _parse(line, number)
    if "error" not in row:
        try:
            view = {"window": row.get("window", plan.window), "frame": row.get("frame", plan.frame)}
            row = imc.answer(plan.folder / row["image"], row["question"], id=row["id"], **view).to_dict()
            if not plan.timings:
                del row["timings_ms"]
        except ImcError as error:
            row = {"id": row["id"], "error": str(error)}
    return json.dumps(row, ensure_ascii=False)


def _to_file(answers: Answers, lines: list[str], out: Path) -> int:
    done, failed = _resume(out, lines)
    if done == len(lines):
        return failed
    try:
        with open(out, "a", encoding="utf-8") as file:
            return failed + _answer_all(answers, lines, done, file)
    except OSError as error:
        raise ImcError(f"cannot write {out} ({error.strerror}); choose another output file") from error


def _read_lines(cases: Path) -> list[str]:
    if cases.suffix.lower() == PARQUET:
        from imc_lite.batch.parquet import read_cases

        lines = read_cases(cases)
    else:
        try:
            lines = [line for line in cases.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ImcError(f"cannot read {cases} ({why}); give a JSONL or Parquet file of cases") from error
    if not lines:
        raise ImcError(f"{cases} holds no case; give one JSON object a line")
    return lines


def _parse(line: str, number: int) -> dict[str, Any]:
    """The row with an id in any case, and "error" when it cannot be asked."""
    row: dict[str, Any] = {"id": str(number)}
    try:
        case = json.loads(line)
    except ValueError:
        return {**row, "error": f"line {number} is not JSON; write one object a line"}
    if not isinstance(case, dict):
        return {**row, "error": f"line {number} is not a JSON object; write one object a line"}
    if case.get("id") is not None:
        row["id"] = str(case["id"])
    for key in ("image", "question"):
        if not isinstance(case.get(key), str):
            return {**row, "error": f'line {number} has no text "{key}"; add it'}
    for key, kind, what in (("window", str, "a text"), ("frame", int, "a number")):
        value = case.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            return {**row, "error": f'line {number} has a "{key}" that is not {what}; correct it or leave it out'}
        if value is not None:
            row[key] = value
    return {**row, "image": case["image"], "question": case["question"]}


def _answer_all(answers: Answers, lines: list[str], done: int, file: TextIO) -> int:
    failed = 0
    bar = tqdm(total=len(lines), initial=done, unit="case", file=sys.stderr, disable=None)
    for text in answers(lines, done):
        failed += "error" in json.loads(text)
        file.write(text + "\n")
        file.flush()
        if file is not sys.stdout:
            os.fsync(file.fileno())
        bar.update()
    bar.close()
    return failed


def _resume(out: Path, lines: list[str]) -> tuple[int, int]:
    """How many rows are already answered and how many of these failed; a half-written last one is cut off."""
    if not out.exists():
        return 0, 0
    try:
        data = out.read_bytes()
    except OSError as error:
        raise ImcError(f"cannot read {out} ({error.strerror}); choose another output file") from error
    whole = data[: data.rfind(b"\n") + 1]
    rows = whole.decode("utf-8", "replace").splitlines()
    failed = _check_rows(rows, lines, out, whole=False)
    if len(whole) < len(data):
        if not _could_be_ours(data[len(whole) :]):
            raise ImcError(f"the last line of {out} is no answer to this input; choose another output file")
        with open(out, "r+b") as file:
            file.truncate(len(whole))
    return len(rows), failed


def _check_rows(rows: Sequence[str], lines: list[str], out: Path, whole: bool = True) -> int:
    """How many of the rows failed, when they are answers to the first lines, or to all where `whole`."""
    failed = 0
    for number, text in enumerate(rows, 1):
        try:
            row = json.loads(text)
            same = number <= len(lines) and row["id"] == _parse(lines[number - 1], number)["id"]
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise ImcError(f"line {number} of {out} is no answer to this input; choose another output file")
        failed += "error" in row
    if whole and len(rows) < len(lines):
        raise ImcError(f"{out} answers {len(rows)} of {len(lines)} cases; choose another output file")
    return failed


def _could_be_ours(tail: bytes) -> bool:
    """Whether an unfinished line is the beginning of a row we write, and not somebody's file."""
    start = b'{"id": "'
    return tail.startswith(start) or start.startswith(tail)
