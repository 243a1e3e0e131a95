"""One verdict as a line of text, an object of JSON, or a row of CSV."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from imc_lite.errors import shown
from imc_lite.files import write_atomically
from imc_lite.gate.judge import Judged
from imc_lite.gate.rules import Rule
from imc_lite.gate.tally import GRADABLE

COLUMNS = (
    "path", "kind", "severity", "probability", "out_of_distribution_score", "gradable", "reason", "failed", "error"
)  # fmt: skip
# What a spreadsheet takes for the beginning of a formula (OWASP, CSV Injection), in the full width of East Asian
# fonts too.
FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def text_row(judged: Judged, met: Sequence[Rule]) -> str:
    """Path, kind, severity, probability and judgement between tabs, then the rules that it met; "" of an error."""
    if judged.report is None or judged.report.noise is None:
        return ""
    noise = judged.report.noise
    parts = [shown(judged.path, len(judged.path)), noise.kind, f"severity {noise.severity}"]
    parts += [f"probability {noise.probability:.2f}", GRADABLE[judged.report.gradable]]
    return "\t".join([*parts, *([f"fails {', '.join(map(str, met))}"] if met else [])])


def json_row(judged: Judged, met: Sequence[Rule] | None) -> dict[str, Any]:
    """The object of `inspect --json`; `met` is None where there are no rules."""
    row: dict[str, Any] = (
        {"path": judged.path, "error": judged.error} if judged.report is None else asdict(judged.report)
    )
    if met is not None:
        row["failed"] = [str(rule) for rule in met]
    return row


class CsvFile:
    """A CSV file (RFC 4180, UTF-8), in the making until it is complete. Text that a spreadsheet would take for a
    formula has an apostrophe before it, and all text stands in quotes, as OWASP says."""

    def __init__(self) -> None:
        """Rows wait in a temporary file, so that any number of them fits."""
        self._rows = io.TextIOWrapper(tempfile.TemporaryFile(), "utf-8", "replace", newline="")  # noqa: SIM115
        self._writer = csv.writer(self._rows, quoting=csv.QUOTE_NONNUMERIC)
        self._writer.writerow(COLUMNS)

    def __enter__(self) -> CsvFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()

    def add(self, judged: Judged, met: Sequence[Rule]) -> None:
        """One verdict, in the columns of `COLUMNS`."""
        cells: list[object] = [judged.path, "", "", "", "", "", "", ",".join(map(str, met)), judged.error or ""]
        if judged.report is not None and (noise := judged.report.noise) is not None:
            cells[1:5] = [noise.kind, noise.severity, round(noise.probability, 6), judged.score]
            cells[5:7] = [GRADABLE[judged.report.gradable], judged.report.reason or ""]
        self._writer.writerow(harmless(cell) if isinstance(cell, str) else cell for cell in cells)

    def save(self, path: Path) -> None:
        """Write the file, all or nothing.

        Raises:
            ImcError: it cannot be written.
        """
        self._rows.seek(0)
        write_atomically(path, lambda file: shutil.copyfileobj(self._rows.buffer, file))


def harmless(cell: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
