"""Figures of how sure answers are: calibration, risk and coverage, and what they rest on."""

from __future__ import annotations

from typing import Any

import numpy as np

from imc_lite.bench.plan import Plan
from imc_lite.bench.stats import Bootstrap, percentiles
from imc_lite.bench.sureness import COLUMNS, IMC, PLAIN, QUESTIONS, Columns

BINS = 15  # of the calibration error
PLOTTED = 10  # bins, and points, of the plots
SURE = 0.9  # an error above it is confidently wrong
COVERED = 0.8
# What says how sure an answer is, by the column that it is read from; a larger distance says less. lm-polygraph
# (Fadeeva et al. 2023, arXiv 2311.07383) calls the second perplexity, the third maximum probability.
ESTIMATES = {
    "confidence": "confidence",
    "token_probability": "token_probability",
    "sequence_probability": "sequence_probability",
    "mahalanobis_distance": "distance",
}
CLEAN = "clean"
DISTANCE = "mahalanobis_distance"


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602).

    Args:
        sure: float [A] in 0-1.
        right: float [A], 1 or 0.
    """
    owners = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(right[owners == b].mean() - sure[owners == b].mean()) * (owners == b).mean() for b in set(owners)]
    return float(sum(gaps))


def risks(sure: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The share that is wrong of the surest answer, of the surest two, …, of all: float64 [A]."""
    wrong = 1 - right[np.argsort(-sure, kind="stable")]
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def risk_coverage(sure: np.ndarray, right: np.ndarray) -> float | None:
    """Area under the risk-coverage curve (Geifman et al. 2019, arXiv 1805.08206), as a share of that of answers in
    random order; None where no answer is wrong."""
    found = risks(sure, right)
    return float(found.mean() / found[-1]) if found[-1] else None


def figures(columns: Columns, owners: np.ndarray, bootstrap: Bootstrap, plotted: bool = False) -> dict[str, Any]:
    """Of the answers of one arm; the fields are described in docs/bench.md.

    Args:
        columns: what was kept of the answers.
        owners: int [Q], the picture of every question of the run.
        bootstrap: draws the pictures.
        plotted: whether the points of the plots are wanted.
    """
    right = np.array(columns["right"], float)
    pictures = owners[np.array(columns["question"], int)]
    found: dict[str, Any] = {
        "n": len(right),
        "accuracy": _share(right.mean()),
        "95ci": percentiles(bootstrap.means(right, pictures)),
    }
    found |= _reliance(columns, right) | {"estimates": {}}
    for name, column in ESTIMATES.items():
        if None in columns[column]:
            continue
        sure = np.array(columns[column], float)
        found["estimates"][name] = _estimate(name, -sure if name == DISTANCE else sure, right, plotted)
    return found


def _reliance(columns: Columns, right: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if None not in columns["same_without"]:
        same = np.array(columns["same_without"], float)
        found["quadrants"] = {
            f"{'right' if hit else 'wrong'}_{'same' if alike else 'other'}_without": _share(
                ((right == hit) & (same == alike)).mean()
            )
            for hit in (1, 0)
            for alike in (0, 1)
        }
        found["nats"] = round(float(np.mean(columns["nats"])), 4)
    asked = np.array([n or 0 for n in columns["rewordings"]], float)
    if asked.sum():
        other = asked - np.array([n or 0 for n in columns["rewordings_same"]], float)
        found["flipped"] = {"all": _share(other.sum() / asked.sum())}
        for hit, name in ((1, "right"), (0, "wrong")):
            mine = right == hit
            found["flipped"][name] = _share(other[mine].sum() / asked[mine].sum()) if asked[mine].sum() else None
    return found


def _estimate(name: str, sure: np.ndarray, right: np.ndarray, plotted: bool) -> dict[str, Any]:
    area, curve = risk_coverage(sure, right), risks(sure, right)
    found: dict[str, Any] = {
        "risk_coverage": None if area is None else round(area, 4),
        "risk_at_80": _share(curve[max(1, round(COVERED * len(curve))) - 1]),
    }
    if plotted:
        steps = np.arange(1, PLOTTED + 1) / PLOTTED
        found["risks"] = [_share(curve[max(1, round(step * len(curve))) - 1]) for step in steps]
    if name == DISTANCE:  # no probability
        return found
    wrong = sure[right == 0]
    found["mean"] = _share(sure.mean())
    found["calibration_error"] = _share(calibration_error(sure, right))
    found["confidently_wrong"] = _share((wrong > SURE).mean()) if len(wrong) else None
    if plotted:
        owners = np.minimum((sure * PLOTTED).astype(int), PLOTTED - 1)
        found["reliability"] = [
            [_share(sure[owners == b].mean()), _share(right[owners == b].mean()), int((owners == b).sum())]
            for b in range(PLOTTED)
            if (owners == b).any()
        ]
    return found


def _share(value: float) -> float:
    return round(float(value), 4)


def sureness(parts: dict[str, Any], plan: Plan, bootstrap: Bootstrap) -> dict[str, Any]:
    """Figures of all answers that were kept: clean, under image noise and each severity of it, under text noise, and
    under every condition. `shift` is what noise adds to a calibration error."""
    owners = np.array([q.picture for q in plan.questions])
    image = [f"{kind} {severity}" for kind, severity in plan.image_conditions]
    text = [f"{kind} {severity}" for kind, severity in plan.text_conditions]
    groups = {CLEAN: [CLEAN], "image noise": image}
    groups |= {
        f"image noise, severity {s}": [
            f"{kind} {severity}" for kind, severity in plan.image_conditions if severity == s
        ]
        for s in plan.options.severities
    }
    groups |= {"text noise": text, **{name: [name] for name in (*image, *text)}}
    found: dict[str, Any] = {}
    for group, names in groups.items():
        plotted = group in (CLEAN, "image noise", "text noise")
        arms = {}
        for arm in (PLAIN,) if plan.options.plain else (PLAIN, IMC):
            kept = [parts[name]["sureness"][arm] for name in names]
            columns = {column: [value for some in kept for value in some[column]] for column in COLUMNS}
            if columns["right"]:
                arms[arm] = figures(columns, owners, bootstrap, plotted)
        if arms:
            found[group] = {"arms": arms}
    for group, row in found.items():
        for arm, some in row["arms"].items():
            for name, estimate in some["estimates"].items():
                clean = found[CLEAN]["arms"][arm]["estimates"].get(name, {})
                if group != CLEAN and "calibration_error" in clean:
                    estimate["shift"] = round(estimate["calibration_error"] - clean["calibration_error"], 4)
    return {"questions": QUESTIONS, "groups": found}
