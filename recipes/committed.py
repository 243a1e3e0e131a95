"""Reading committed result files, and writing figures the same way everywhere."""

from __future__ import annotations

import json
from pathlib import Path

from imc_lite.bench.tables import load_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "recipes" / "results"
BENCH = RESULTS / "bench" / "results.json"


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def robustness() -> dict:
    """The committed run of the benchmark."""
    return load_results(BENCH)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def with_interval(value: float, interval: list[float]) -> str:
    return f"{100 * value:.1f} % ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"
