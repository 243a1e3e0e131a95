"""A whole run: judge, count, write."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from imc_lite.bench.data import Case, edition_facts, load_edition
from imc_lite.bench.gallery import examples
from imc_lite.bench.page import page
from imc_lite.bench.plan import Options, make_plan
from imc_lite.bench.report import Report
from imc_lite.bench.run import Run
from imc_lite.bench.tables import markdown
from imc_lite.errors import ImcError
from imc_lite.files import write_atomically
from imc_lite.pipeline import IMC


def quick_cases() -> list[Case]:
    """The pictures of the packaged edition that a quick run takes."""
    return [c for c in load_edition() if f"{c.source}/{c.path.name}" in edition_facts()["quick"]]


def run_benchmark(imc: IMC, cases: list[Case], options: Options, out: Path) -> dict[str, Any]:
    """Judge every condition, and write `results.json`, `table.md` and `report.html` into `out`.

    The parts of an earlier run of the same pictures, questions and model are taken up, whatever noises it chose.

    Args:
        imc: the model with its prototypes.
        cases: pictures and their questions.
        options: what to take of them.
        out: a folder, made if it is missing.

    Raises:
        ImcError: no prototypes, an upstream that does not answer, nothing to ask, an unknown noise, an unreadable
            picture, or `out` cannot be used.
    """
    if imc.prototypes is None and not options.plain:
        raise ImcError("there are no noise prototypes, and nothing to compare; build them: imc-lite prototypes build")
    run = Run(imc.model, imc.prototypes, make_plan(cases, options), out, imc.confidence, imc.upstream)
    parts = run.go()
    results = Report(run.plan, parts, imc.model, run.judge).to_dict()
    files = {
        "results.json": json.dumps(results, ensure_ascii=False, indent=1) + "\n",
        "table.md": markdown(results),
        "report.html": page(results, examples(run, parts)),
    }
    for name, text in files.items():
        write_atomically(out / name, partial(_put, text))
    return results


def _put(text: str, file: BinaryIO) -> None:
    file.write(text.encode())
