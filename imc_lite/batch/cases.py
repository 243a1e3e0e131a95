"""A batch's input: counted first, then read case by case, so that its size does not matter."""

from __future__ import annotations

import codecs
import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from imc_lite.batch.rows import LONGEST, Cases, read_case
from imc_lite.errors import ImcError, shown

PARQUET = ".parquet"
OTHER_PARQUET = (".pq", ".parq")  # names that others give such files, and that are not read as such here
NO_ROWS = (".csv", ".tsv", ".xlsx")  # of tables that are not read or written here


@contextlib.contextmanager
def open_cases(path: Path) -> Iterator[Cases]:
    """The cases of a JSONL or Parquet file, or on stdin where `path` is "-". Blank lines are none; a byte order mark is
    passed over.

    Raises:
        ImcError: it cannot be read, is not UTF-8 text or Parquet, or holds no case.
    """
    with contextlib.ExitStack() as stack:
        if path.suffix.lower() == PARQUET:
            from imc_lite.batch import parquet

            cases = stack.enter_context(parquet.open_cases(path))
        else:
            file = stack.enter_context(_open(path))
            total = 0
            for _, line in _lines(file):
                total += 1
                if total == 1:
                    _check_text(path, line)
            file.seek(0)
            # No more than were counted, whoever appends to the file meanwhile.
            cases = Cases(total, (read_case(line, number) for number, line in islice(_lines(file), total)))
        if not cases.total:
            raise ImcError(f"{shown(path)} holds no case; give one JSON object a line")
        yield cases


def _open(path: Path) -> BinaryIO:
    """Open for reading twice; what comes through a pipe is kept in a file meanwhile."""
    if str(path) == "-":
        return _kept(sys.stdin.buffer)
    try:
        mode = os.stat(path).st_mode
        file = open(path, "rb")  # noqa: SIM115
        if stat.S_ISREG(mode):
            return file
        with file:
            if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()):
                raise _cannot_read(path, "a device")
            return _kept(file)
    except (OSError, ValueError) as error:
        raise _cannot_read(path, getattr(error, "strerror", None) or "no file name") from error


def _kept(stream: BinaryIO) -> BinaryIO:
    """All that a stream has, in a file."""
    kept: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(stream, kept)
    kept.seek(0)
    return kept


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, after its number; what is too long for a case is cut off."""
    number = 0
    while data := file.readline(LONGEST + 1):
        number += 1
        rest = data
        while not rest.endswith(b"\n") and (rest := file.readline(LONGEST)):
            pass
        if number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if line := data.strip():
            yield number, line


def _check_text(path: Path, line: bytes) -> None:
    """Refuse a file that is no text; a later line that is none becomes a row that says so."""
    if path.suffix.lower() in NO_ROWS:
        raise _cannot_read(path, f"{path.suffix} is neither")
    if line.startswith(b"["):
        raise ImcError(f"{shown(path)} holds one JSON array; give one object a line, as `jq -c '.[]'` writes them")
    if line.startswith(b"PAR1"):
        raise ImcError(f"{shown(path)} holds Parquet; name it {PARQUET}")
    try:
        if "\0" in line[:LONGEST].decode("utf-8", "strict" if len(line) <= LONGEST else "ignore"):
            raise _cannot_read(path, "not text")
    except UnicodeDecodeError as error:
        raise _cannot_read(path, "not UTF-8 text") from error


def _cannot_read(path: Path, why: str) -> ImcError:
    return ImcError(f"cannot read {shown(path)} ({why}); give a JSONL or Parquet file of cases")
