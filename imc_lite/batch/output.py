"""A batch's output: whose it is, how far it got, and rows added to it one by one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from imc_lite.batch.answering import is_failed
from imc_lite.batch.rows import Case, Plan, run_of
from imc_lite.errors import ImcError, shown
from imc_lite.files import cannot_write, is_at, json_line, lock

LONGEST = 1 << 24  # bytes of a row; what we write is shorter
REMEDY = "choose another output file"
FOLLOWS = (b', "answer"', b', "answers"', b', "error"', b', "image": {')  # the id in our rows


@dataclass(frozen=True)
class Progress:
    """Rows that are there, how many of them carry an error, and the cases that are left."""

    done: int
    failed: int
    left: Iterator[Case]


@contextlib.contextmanager
def own(out: Path) -> Iterator[int]:
    """A handle of the output, locked, so that two runs never write into one file; a new one that stays empty goes.

    Raises:
        ImcError: it cannot be written, or another run is writing it.
    """
    while True:
        try:
            handle, new = _open(out)
        except OSError as error:
            raise cannot_write(out, error) from error
        try:
            if not lock(handle):
                raise ImcError(f"another run is writing {shown(out)}; wait until it ends, or {REMEDY}")
            if not is_at(handle, out):  # the run that held it until now has removed it
                continue
            try:
                yield handle
            finally:
                if new and os.fstat(handle).st_size == 0:
                    out.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def resume(handle: int, out: Path, cases: Iterator[Case], plan: Plan) -> Progress:
    """Find out how far a JSONL output got; a half-written last row is cut off.

    Raises:
        ImcError: a row is no answer of this run; it is said what differs.
    """
    failed = end = count = 0
    os.lseek(handle, 0, os.SEEK_SET)
    with os.fdopen(os.dup(handle), "rb") as file:
        while data := file.readline(LONGEST):
            case, where = next(cases, None), f"line {count + 1} of {shown(out)}"
            if not data.endswith(b"\n"):
                tail = data.rstrip(b"\0")  # as a machine that lost its power may leave where the end was to come
                if _is_json(tail):  # whole, but for the end of the line
                    check(tail, case, plan, where)
                if case is None or not _begins(tail, case):
                    raise ImcError(f"{where} is no answer to this input; {REMEDY}")
                os.ftruncate(handle, end)
                cases = chain([case], cases)
                break
            failed += check(data, case, plan, where)
            count, end = count + 1, end + len(data)
    return Progress(count, failed, cases)


def check(row: bytes | str, case: Case | None, plan: Plan, where: str) -> bool:
    """Whether a row carries an error, once it is sure that it answers this case in this run.

    Raises:
        ImcError: it does not; it is said what differs.
    """
    try:
        found: dict[str, Any] = json.loads(row)
        id, run = found["id"], found["run"]
        known = isinstance(run, dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if case is None or not known:
        raise ImcError(f"{where} is no answer to this input; {REMEDY}")
    wanted = run_of(case, plan)
    for key in ("model", "prototypes", "options"):
        if run.get(key) != wanted.get(key):
            were = f"{key} {shown(run.get(key))}, not {shown(wanted.get(key))}"
            raise ImcError(f"{where} was written with {were}; {REMEDY}")
    if id != case.id:
        raise ImcError(f"{where} answers case {shown(id)}, not {shown(case.id)}; {REMEDY}")
    if run != wanted:
        raise ImcError(
            f"{where} answers another case of the same id: picture, question, window or frame differ; {REMEDY}"
        )
    return is_failed(found)


def write(handle: int, rows: Iterable[str], name: Path, sync: bool) -> Iterator[bool]:
    """Write each row where the handle ends; yield whether it carries an error.

    Args:
        handle: open to write.
        rows: lines of JSON.
        name: for the error.
        sync: have each row on disk before the next; of no use for pipes and devices.

    Raises:
        ImcError: the disk is full or whoever read has an error; the rows before are whole.
    """
    for row in rows:
        data = memoryview(row.encode() + b"\n")
        before = os.lseek(handle, 0, os.SEEK_END) if sync else 0
        try:
            while data:
                data = data[os.write(handle, data) :]
            if sync:
                os.fsync(handle)
        except BrokenPipeError:
            raise  # the reader has left
        except OSError as error:
            if sync:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, before)
            raise cannot_write(name, error) from error
        yield is_failed(json.loads(row))


def _open(out: Path) -> tuple[int, bool]:
    """A handle to read and write, and whether the file is new."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    try:
        return os.open(out, flags | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(out, flags, 0o666), False


def _begins(tail: bytes, case: Case) -> bool:
    """Whether an unfinished line is the beginning of a case's row, and not somebody's file, such as another case."""
    start = json_line({"id": case.id}).encode()[:-1]
    begun = [start + follows for follows in FOLLOWS]
    return any(tail.startswith(one) or one.startswith(tail) for one in begun)


def _is_json(data: bytes) -> bool:
    """Whether it is whole."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
