"""Batches in Parquet files, through pyarrow of imc-lite[ray]."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from imc_lite.batch.rows import Cases, read_case
from imc_lite.errors import ImcError, shown
from imc_lite.files import write_atomically

COLUMNS = ("id", "image", "question", "questions", "window", "frame")
CHUNK = 1000  # rows in memory
INPUT, OUTPUT = "give a Parquet file of cases", "choose another output file"


@contextlib.contextmanager
def open_cases(path: Path) -> Iterator[Cases]:
    """The cases of a Parquet file; of its columns only those that a case has are read.

    Raises:
        ImcError: pyarrow is not installed, or the file cannot be read or lacks a column of text, or of lists of it.
    """
    with _open(path, INPUT) as file:
        schema = file.schema_arrow
        twice = [name for name, times in Counter(schema.names).items() if name in COLUMNS and times > 1]
        if twice:
            raise ImcError(f'{shown(path)} has more than one column "{twice[0]}"; leave one of them')
        for name in ("image", "question"):
            if name not in schema.names and not (name == "question" and "questions" in schema.names):
                raise ImcError(f'{shown(path)} has no column "{name}"; add it')
            if name in schema.names and not _is_text(schema.field(name).type):
                raise ImcError(f'the column "{name}" of {shown(path)} is no text; write text there')
        for name in ("id", "window", "frame"):
            # Bytes would be left out of the row, and with them what it asks for.
            if name in schema.names and _is_bytes(schema.field(name).type):
                raise ImcError(f'the column "{name}" of {shown(path)} holds bytes; write text or whole numbers there')
        if "questions" in schema.names and not _is_texts(schema.field("questions").type):
            raise ImcError(f'the column "questions" of {shown(path)} is no list of text; write lists of text there')
        rows = enumerate(_rows(path, file, COLUMNS, INPUT), 1)
        yield Cases(file.metadata.num_rows, (read_case(_line(row), number) for number, row in rows))


def read_rows(path: Path) -> Iterator[str]:
    """The answers in a Parquet file of ours, as JSON lines.

    Raises:
        ImcError: pyarrow is not installed, or the file cannot be read or is not ours.
    """
    with _open(path, OUTPUT) as file:
        if "report" not in file.schema_arrow.names or not _is_text(file.schema_arrow.field("report").type):
            raise ImcError(f"{shown(path)} is no answer to this input; {OUTPUT}")
        for row in _rows(path, file, ("report",), OUTPUT):
            yield str(row["report"])


def write_rows(rows: Path, out: Path) -> None:
    """JSON lines as Parquet: `id`, `answer`, `confidence`, `error` and the whole row as JSON in `report`.

    Raises:
        ImcError: pyarrow is not installed, or the file cannot be written.
    """
    arrow, parquet = pyarrow_of_ray()
    text = arrow.string()
    fields = [("id", text), ("answer", text), ("confidence", arrow.float64()), ("error", text), ("report", text)]
    schema = arrow.schema(fields)

    def write(file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema) as writer, open(rows, encoding="utf-8", newline="\n") as lines:
            chunk: list[dict[str, Any]] = []
            for line in lines:
                row = json.loads(line)
                chunk.append({k: row.get(k) for k in ("id", "answer", "confidence", "error")})
                chunk[-1]["report"] = line.rstrip("\n")
                if len(chunk) == CHUNK:
                    writer.write_table(arrow.Table.from_pylist(chunk, schema))
                    chunk = []
            writer.write_table(arrow.Table.from_pylist(chunk, schema))

    write_atomically(out, write)


def drop_rows(rows: Path, out: Path) -> None:
    """Remove the JSON lines that a run left beside its finished Parquet file, where they hold the same."""
    try:
        with open(rows, encoding="utf-8", newline="\n") as lines:
            if any(a != f"{b}\n" for a, b in zip_longest(lines, read_rows(out))):
                return
        rows.unlink()
    except (OSError, ValueError):
        return


def _open(path: Path, remedy: str) -> Any:
    arrow, parquet = pyarrow_of_ray()
    try:
        return parquet.ParquetFile(path)
    except (OSError, arrow.ArrowException) as error:
        raise _cannot_read(path, error, remedy) from error


def _rows(path: Path, file: Any, wanted: tuple[str, ...], remedy: str) -> Iterator[dict[str, Any]]:
    arrow, _ = pyarrow_of_ray()
    columns = [name for name in wanted if name in file.schema_arrow.names]
    batches = file.iter_batches(CHUNK, columns=columns)
    while True:
        try:
            batch = next(batches, None)
            rows = None if batch is None else batch.to_pylist()
        except (OSError, ValueError, arrow.ArrowException) as error:  # text that is no UTF-8 among them
            raise _cannot_read(path, error, remedy) from error
        if rows is None:
            return
        yield from rows


def _cannot_read(path: Path, error: Exception, remedy: str) -> ImcError:
    text = "it holds text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else "not Parquet, or damaged"
    return ImcError(f"cannot read {shown(path)} ({getattr(error, 'strerror', None) or text}); {remedy}")


def _line(row: dict[str, Any]) -> bytes:
    """A row as JSON; bytes, which are no text, are left out, and dates and the like become text."""
    given = {key: value for key, value in row.items() if value is not None}
    # A column of whole numbers with gaps is kept as floats by pandas.
    if isinstance(frame := given.get("frame"), float) and frame.is_integer():
        given["frame"] = int(frame)
    return json.dumps(given, default=lambda value: None if isinstance(value, bytes) else str(value)).encode()


def _is_text(kind: Any) -> bool:
    """Text, plain or as categories; a column of nulls has rows that say what is missing."""
    return _is_one_of(kind, "is_string", "is_large_string", "is_string_view", "is_null")


def _is_bytes(kind: Any) -> bool:
    """Bytes of any length, plain or as categories."""
    return _is_one_of(kind, "is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view")


def _is_one_of(kind: Any, *names: str) -> bool:
    """Whether one of pyarrow's predicates holds of a type, or of its categories; views are of pyarrow 16 and later."""
    types = pyarrow_of_ray()[0].types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(getattr(types, name)(kind) for name in names if hasattr(types, name))


def _is_texts(kind: Any) -> bool:
    """Lists of text."""
    arrow, _ = pyarrow_of_ray()
    if arrow.types.is_null(kind):
        return True
    return bool((arrow.types.is_list(kind) or arrow.types.is_large_list(kind)) and _is_text(kind.value_type))


def pyarrow_of_ray() -> tuple[ModuleType, ModuleType]:
    """pyarrow and its Parquet.

    Raises:
        ImcError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImcError("pyarrow is not installed; install imc-lite[ray]") from error
    return pyarrow, pyarrow.parquet
