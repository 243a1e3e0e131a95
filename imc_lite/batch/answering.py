"""The JSON line that answers a case of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from imc_lite.batch.rows import Case, Plan, run_of, view_of
from imc_lite.errors import ImcError, shown
from imc_lite.files import is_stream, json_line
from imc_lite.models.replicas import in_order, on, replicas
from imc_lite.pipeline import IMC
from imc_lite.upstream.errors import UpstreamUnavailable


def answer_row(imc: IMC, case: Case, plan: Plan) -> str:
    """The JSON line that answers a case: the row of `--json` and what it is an answer to, or an error.

    Whatever goes wrong with one case becomes its row, so that the others are answered; with one of several questions,
    its entry.

    Raises:
        UpstreamUnavailable: another server is to answer, and it answers nothing now.
    """
    row = _or_error(partial(_answer_each if case.questions else _answer, imc, case, plan))
    return json_line({"id": case.id, **row, "run": run_of(case, plan)})


def workers_of(imc: IMC) -> list[IMC]:
    """What answers the rows of a batch side by side: as many as the model takes questions at once, or its replicas.
    What one has encoded or repaired the others know.

    Raises:
        ImcError: the model cannot be made ready.
    """
    if imc.upstream is not None:
        return [imc]
    if (ready := getattr(imc.model, "ready", None)) is not None:
        ready()  # what keeps it from answering anything is no row's fault
    if (at_once := getattr(imc.model, "at_once", 1)) > 1:
        return [imc] * at_once
    return [on(imc, model) for model in replicas(imc.model)]


def answer_rows(workers: Sequence[IMC], cases: Iterable[Case], plan: Plan) -> Iterator[str]:
    """`answer_row` of each case by one of `workers_of` a model, in the order of the cases.

    Raises:
        UpstreamUnavailable: as `answer_row`.
    """
    return in_order(workers, lambda imc, case: answer_row(imc, case, plan), cases)


def is_failed(row: dict[str, Any]) -> bool:
    """Whether a row, or one of its several answers, carries an error."""
    answers = row.get("answers")
    several = answers if isinstance(answers, list) else []
    return "error" in row or any(isinstance(entry, dict) and "error" in entry for entry in several)


def _or_error(answered: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return answered()
    except UpstreamUnavailable:
        raise  # the run goes on with this case once it is there again
    except ImcError as error:
        return {"error": str(error)}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a library written in Rust is no Exception
        # Not what it says: that may repeat what the picture or the question holds.
        kind = type(error).__name__
        return {"error": f"this case failed with {kind}, which is a fault of ours; leave it out, or report it"}


def _answer(imc: IMC, case: Case, plan: Plan) -> dict[str, Any]:
    image, window, frame = _picture(case, plan)
    ask = partial(imc.answer, max_risk=plan.max_risk, check_wording=plan.check_wording)
    row = ask(image, case.question, id=case.id, window=window, frame=frame).to_dict()
    if not plan.timings:
        del row["timings_ms"]
    return row


def _answer_each(imc: IMC, case: Case, plan: Plan) -> dict[str, Any]:
    """Several questions: the picture is loaded and encoded once, and what the answers share stands once."""
    image, window, frame = _picture(case, plan)
    began = time.perf_counter()
    picture = imc.load(image, window, frame)
    loaded = time.perf_counter()
    shared: dict[str, Any] = {}

    def ask(question: str | None) -> dict[str, Any]:
        if question is None:
            raise ImcError("this question is no text; write text")
        entry, row = imc.answer(
            picture, question, of_many=True, max_risk=plan.max_risk, check_wording=plan.check_wording
        ).to_entry()
        if not plan.timings:
            del entry["timings_ms"]
        shared.update(row)
        return entry

    answers = [_or_error(partial(ask, question)) for question in case.questions]
    if shared:
        shared["image"]["path"] = str(image)
    times = {"load": loaded - began, "total": time.perf_counter() - began}
    timings = {"timings_ms": {k: round(1000 * v, 3) for k, v in times.items()}} if plan.timings else {}
    return {**shared, "id": case.id, "answers": answers, **timings}


def _picture(case: Case, plan: Plan) -> tuple[Path, str | None, int | None]:
    """The file of a case, and its window and frame.

    Raises:
        ImcError: it cannot be asked, or names something that may never end.
    """
    if case.error is not None:
        raise ImcError(case.error)
    image = plan.folder / case.image
    if is_stream(image):
        raise ImcError(f"{shown(image)} is a pipe or a device; name the file of a picture")
    return image, *view_of(case, plan)
