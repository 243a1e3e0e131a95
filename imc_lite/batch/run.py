"""Many cases in, one JSON line each out, in order; a run that was cut off goes on where it stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from imc_lite.batch import output
from imc_lite.batch.answering import answer_rows, workers_of
from imc_lite.batch.cases import NO_ROWS, OTHER_PARQUET, PARQUET, open_cases
from imc_lite.batch.output import REMEDY, Progress
from imc_lite.batch.rows import Case, Cases, Plan
from imc_lite.errors import ImcError, shown
from imc_lite.files import cannot_write, check_name, is_same, is_stream, open_stream
from imc_lite.pipeline import IMC

# From the cases that are not answered yet, their number and the run's plan: the rows that answer them, in order.
Answers = Callable[[Iterator[Case], int, Plan], Iterator[str]]


@dataclass(frozen=True)
class Summary:
    """How many cases a batch has, how many of them this run answered, and how many rows carry an error."""

    cases: int
    answered: int
    failed: int


def run_batch(
    answers: Answers, cases: Path, out: Path | None, plan: Plan, describe: Callable[[], Mapping[str, str]]
) -> Summary:
    """Answer every row of a JSONL or Parquet file.

    Args:
        answers: `in_process` or `imc_lite.batch.ray.on_ray`; asked only when there is something to answer.
        cases: rows {"id"?, "image", "question", "window"?, "frame"?}, or with a list of "questions" in the place of
            "question"; a row without an id gets its line number, counted from 1.
        out: JSONL or Parquet to write; None writes JSONL to stdout. A run goes on with a file that is there, as long
            as its rows are its own: these cases, answered by this model with these options. A pipe or a device is
            written to.
        plan: of the run.
        describe: gives `Plan.of`, what answers; asked after the cases were looked at.

    Raises:
        ImcError: the files cannot be used, or `out` holds something else or is being written by another run. A row
            that cannot be answered is written with "error" instead.
    """
    if out is not None:
        check_name(out)
        if out.suffix.lower() in (*NO_ROWS, *OTHER_PARQUET):
            raise ImcError(f"{shown(out)} is to hold JSONL or Parquet; name it .jsonl or .parquet")
        if out.suffix.lower() == PARQUET and not is_stream(out):
            from imc_lite.batch.parquet import pyarrow_of_ray

            pyarrow_of_ray()  # missed before anything is answered, not after all of it
    with open_cases(cases) as source:
        plan = replace(plan, of=describe())
        if out is None or is_stream(out):
            if cases.is_file() and is_stream(cases):  # rows that are appended would be read as further cases
                raise ImcError(f"{shown(cases)} is both input and output; send stdout to another file")
            return _to_stream(answers, source, plan, out)
        parquet = out.suffix.lower() == PARQUET
        # Parquet cannot grow row by row; the rows are kept as JSONL until all are there.
        rows = out.with_name(f"{out.name}.rows.jsonl") if parquet else out
        for path in (out, rows):
            if is_same(path, cases):
                raise ImcError(f"{shown(path)} is both input and output; {REMEDY}")
        if parquet:
            return _to_parquet(answers, source, plan, rows, out)
        with output.own(out) as handle:
            return _to_jsonl(answers, source, plan, out, handle)


def in_process(open_model: Callable[[], IMC]) -> Answers:
    """Answers from a model in this process."""

    def answers(cases: Iterator[Case], left: int, plan: Plan) -> Iterator[str]:
        return answer_rows(workers_of(open_model()), cases, plan)

    return answers


def _to_stream(answers: Answers, source: Cases, plan: Plan, out: Path | None) -> Summary:
    start = Progress(0, 0, source.each)
    if out is None:
        sys.stdout.flush()
        return _answer(answers, start, source.total, plan, 1, Path("/dev/stdout"))
    try:
        stream = open_stream(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    with stream:
        return _answer(answers, start, source.total, plan, stream.fileno(), out)


def _to_jsonl(answers: Answers, source: Cases, plan: Plan, out: Path, handle: int) -> Summary:
    found = output.resume(handle, out, source.each, plan)
    return _answer(answers, found, source.total, plan, handle, out, sync=True)


def _to_parquet(answers: Answers, source: Cases, plan: Plan, rows: Path, out: Path) -> Summary:
    from imc_lite.batch import parquet

    if not os.path.exists(out):
        with output.own(rows) as handle:
            if not os.path.exists(out):  # it may be there by now, from a run that held the rows until then
                summary = _to_jsonl(answers, source, plan, rows, handle)
                parquet.write_rows(rows, out)
                rows.unlink()
                return summary
    count = failed = 0
    for count, row in enumerate(parquet.read_rows(out), 1):
        failed += output.check(row, next(source.each, None), plan, f"row {count} of {shown(out)}")
    if count < source.total:
        raise ImcError(f"{shown(out)} answers {count} of {source.total} cases; {REMEDY}")
    parquet.drop_rows(rows, out)
    return Summary(source.total, 0, failed)


def _answer(
    answers: Answers, found: Progress, total: int, plan: Plan, handle: int, name: Path, sync: bool = False
) -> Summary:
    """Answer what is left; nothing is opened where nothing is."""
    left, failed = total - found.done, found.failed
    if left:
        with tqdm(total=total, initial=found.done, unit="case", file=sys.stderr, disable=None) as bar:
            for bad in output.write(handle, answers(found.left, left, plan), name, sync):
                failed += bad
                bar.update()
    return Summary(total, left, failed)
