"""Batches in Parquet files, through pyarrow of imc-lite[ray]."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from imc_lite.errors import ImcError
from imc_lite.files import write_atomically

COLUMNS = ("id", "image", "question", "window", "frame")
CHUNK = 10_000


def read_cases(path: Path) -> list[str]:
    """Rows of a Parquet file as JSON lines; of its columns only those that a case has are read.

    Raises:
        ImcError: pyarrow is not installed, or the file cannot be read or lacks a column.
    """
    table = _read(path, COLUMNS)
    for name in ("image", "question"):
        if name not in table.column_names:
            raise ImcError(f'{path} has no column "{name}"; add it')
    rows = table.to_pylist()
    return [json.dumps({k: v for k, v in row.items() if v is not None}, default=str) for row in rows]


def read_rows(path: Path) -> list[str]:
    """The answers in a Parquet file of ours, as JSON lines.

    Raises:
        ImcError: pyarrow is not installed, or the file cannot be read or is not ours.
    """
    table = _read(path, ("report",))
    if table.column_names != ["report"]:
        raise ImcError(f"{path} is no answer to this input; choose another output file")
    return [str(row) for row in table.column("report").to_pylist()]


def write_rows(rows: Path, out: Path) -> None:
    """JSON lines as Parquet: `id`, `answer`, `confidence`, `error` and the whole row as JSON in `report`.

    Raises:
        ImcError: pyarrow is not installed, or the file cannot be written.
    """
    arrow, parquet = _pyarrow()
    text = arrow.string()
    fields = [("id", text), ("answer", text), ("confidence", arrow.float64()), ("error", text), ("report", text)]
    schema = arrow.schema(fields)

    def write(file: Any) -> None:
        with parquet.ParquetWriter(file, schema) as writer, rows.open(encoding="utf-8") as lines:
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


def _read(path: Path, wanted: tuple[str, ...]) -> Any:
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            return file.read([name for name in wanted if name in file.schema_arrow.names])
    except (OSError, arrow.ArrowException) as error:
        why = getattr(error, "strerror", None) or "not Parquet"
        raise ImcError(f"cannot read {path} ({why}); give a Parquet file of cases") from error


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImcError("pyarrow is not installed; install imc-lite[ray]") from error
    return pyarrow, pyarrow.parquet
