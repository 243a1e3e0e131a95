"""Reading committed result files, and writing figures the same way everywhere."""

from __future__ import annotations

import json
from pathlib import Path

from imc_lite.bench.tables import load_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "recipes" / "results"
# Image noise and damaged questions were measured by two runs over the same pictures and questions: what changes the
# repair of questions does not change what is made of a picture, and a run over its noises takes an hour.
BENCH, BENCH_QUESTIONS = (RESULTS / name / "results.json" for name in ("bench", "bench_questions"))


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def robustness() -> dict:
    """Both runs of the benchmark as one: image noise of the first, clean cases and damaged questions of the second.

    Raises:
        ValueError: they are not over the same pictures and questions.
    """
    found, later = load_results(BENCH), load_results(BENCH_QUESTIONS)
    if found["data"] != later["data"] or found["model"] != later["model"]:
        raise ValueError("the two runs are over different pictures, questions or models")
    image = [condition for condition in found["conditions"] if condition["of"] == "image"]
    clean, *text = later["conditions"]
    kinds = {condition["noise"] for condition in image}
    return {
        **later,
        "conditions": [clean, *image, *text],
        "recovered": {"image": found["recovered"]["image"], "text": later["recovered"]["text"]},
        "worse": [line for line in found["worse"] if line.split(" ")[0] in kinds] + later["worse"],
        **{name: found[name] for name in ("groups", "confusion")},
    }


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def with_interval(value: float, interval: list[float]) -> str:
    return f"{100 * value:.1f} % ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"
