"""Conditions of a benchmark as tasks of lmms-eval, so that any model it knows can be measured under our noises.

A task is a folder's worth of files: pictures with their noise in them, rows of questions, and the YAML that lmms-eval
reads (https://github.com/EvolvingLMMs-Lab/lmms-eval, `--include_path`). Nothing of lmms-eval is needed to write them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from tqdm import tqdm

from imc_lite.bench.plan import Plan
from imc_lite.errors import ImcError, shown
from imc_lite.files import write_atomically
from imc_lite.images.load import load_image
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.text import apply_to_text

GROUP = "imc_noise"
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_visual: !function look.picture
doc_to_text: question
doc_to_target: answer
process_results: !function look.judged
generation_kwargs: {{max_new_tokens: 48, temperature: 0, do_sample: false}}
metric_list:
  - {{metric: right, aggregation: mean, higher_is_better: true}}
  - {{metric: exact, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
LOOK = '''"""What the tasks of this folder show, and how answers are judged: see imc-lite's docs/bench.md."""

from PIL import Image

from imc_lite.bench.judging import RIGHT, WRONG, mark


def picture(doc):
    return [Image.open(doc["image"]).convert("RGB")]


def judged(doc, results):
    found = mark(results[0], doc["answer"])
    return {"right": float(found != WRONG), "exact": float(found == RIGHT)}
'''


def write_tasks(plan: Plan, out: Path) -> list[str]:
    """Write a task for clean pictures and questions and one for every condition, and the group of all of them.

    Args:
        plan: pictures, questions and noises of our own.
        out: a folder that is made. Its files name each other by their whole paths: write them where they stay.

    Returns:
        The tasks' names.

    Raises:
        ImcError: the folder cannot be made, holds something else, or cannot be written to.
    """
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ImcError(f"{shown(out)} is not empty; name a new folder")
    except OSError as error:
        raise ImcError(f"{shown(out)} cannot be made ({error.strerror}); name another folder") from error
    conditions = [("clean", 0), *plan.image_conditions, *plan.text_conditions]
    names = []
    for kind, severity in tqdm(conditions, unit="condition", disable=None):
        name = f"{GROUP}_{kind}_{severity}" if severity else f"{GROUP}_clean"
        rows = _rows(plan, kind, severity, out / "pictures")
        _write(out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        places = {"rows": json.dumps(str(out / f"{name}.jsonl")), "cache": json.dumps(str(out / "cache"))}
        _write(out / f"{name}.yaml", TASK.format(name=name, **places))
        names.append(name)
    _write(out / "look.py", LOOK)
    _write(out / f"{GROUP}.yaml", f"group: {GROUP}\ntask:\n" + "".join(f"  - {name}\n" for name in names))
    return names


def _rows(plan: Plan, kind: str, severity: int, pictures: Path) -> list[dict[str, str]]:
    """The questions of a condition; its pictures are written where there are none yet."""
    of_image = (kind, severity) in plan.image_conditions
    folder = pictures / (f"{kind}-{severity}" if of_image else "clean")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for question in plan.questions:
        text = question.text
        if severity and not of_image:
            if not question.damaged:
                continue
            text = apply_to_text(text, kind, severity, plan.seed(question.picture))
        file = folder / f"{question.picture:04}.png"
        if not file.exists():
            pixels = load_image(plan.cases[question.picture].path)
            if of_image:
                pixels = apply_to_image(pixels, kind, severity, plan.seed(question.picture))
            write_atomically(file, partial(Image.fromarray(pixels).save, format="PNG"))
        rows.append({"image": str(file), "question": text, "answer": question.answer, "group": question.group})
    return rows


def _write(path: Path, text: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)
