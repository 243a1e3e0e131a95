"""Many cases in, one JSON line each out, in order; a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from imc_lite.errors import ImcError
from imc_lite.pipeline import IMC


def run_batch(
    open_model: Callable[[], IMC],
    cases: Path,
    out: Path | None,
    *,
    window: str | None = None,
    frame: int | None = None,
) -> int:
    """Answer every row of a JSONL file; returns how many rows carry an error.

    Args:
        open_model: called once, when there is something to answer.
        cases: rows {"id"?, "image", "question", "window"?, "frame"?}; a relative image path starts at this file's
            folder. A row without an id gets its line number, counted from 1.
        out: JSONL to write, resumed if it is there; None writes to stdout.
        window: of DICOM rows that name none, see `imc_lite.images.load_image`.
        frame: of DICOM rows that name none.

    Raises:
        ImcError: the files cannot be used. A row that cannot be answered is written with "error" instead.
    """
    lines, view = _read_lines(cases), {"window": window, "frame": frame}
    if out is None:
        return _answer_all(open_model, cases, lines, 0, sys.stdout, view)
    if out.exists() and out.resolve() == cases.resolve():
        raise ImcError(f"{out} is both input and output; choose another output file")
    done, failed = _resume(out, lines)
    if done == len(lines):
        return failed
    try:
        with open(out, "a", encoding="utf-8") as file:
            return failed + _answer_all(open_model, cases, lines, done, file, view)
    except OSError as error:
        raise ImcError(f"cannot write {out} ({error.strerror}); choose another output file") from error


def _read_lines(cases: Path) -> list[str]:
    try:
        lines = [line for line in cases.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ImcError(f"cannot read {cases} ({why}); give a JSONL file of cases") from error
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


def _answer_all(
    open_model: Callable[[], IMC], cases: Path, lines: list[str], done: int, file: TextIO, view: dict[str, Any]
) -> int:
    imc, failed = open_model(), 0
    bar = tqdm(total=len(lines), initial=done, unit="case", file=sys.stderr, disable=None)
    for row in _answers(imc, cases, lines, done, view):
        failed += "error" in row
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        if file is not sys.stdout:
            os.fsync(file.fileno())
        bar.update()
    bar.close()
    return failed


def _answers(imc: IMC, cases: Path, lines: list[str], done: int, view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines[done:], done + 1):
        row = _parse(line, number)
        if "error" not in row:
            try:
                options = view | {k: row[k] for k in view if k in row}
                row = imc.answer(cases.parent / row["image"], row["question"], id=row["id"], **options).to_dict()
            except ImcError as error:
                row = {"id": row["id"], "error": str(error)}
        yield row


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
    if len(whole) < len(data):
        if not _could_be_ours(data[len(whole) :]):
            raise ImcError(f"the last line of {out} is no answer to this input; choose another output file")
        with open(out, "r+b") as file:
            file.truncate(len(whole))
    return len(rows), failed


def _could_be_ours(tail: bytes) -> bool:
    """Whether an unfinished line is the beginning of a row we write, and not somebody's file."""
    start = b'{"id": "'
    return tail.startswith(start) or start.startswith(tail)
