"""How sure the answers of a run are, as Markdown."""

from __future__ import annotations

from typing import Any

from imc_lite.bench.cells import accuracy, name, percent

ARMS = {"plain": "plain", "imc": "IMC"}
# By arm, what says how sure it is: what the model itself has to say, and what is fitted where that is.
SHOWN = {"plain": ("token_probability",), "imc": ("token_probability", "confidence")}
ESTIMATES = {
    "confidence": "confidence",
    "token_probability": "token probability",
    "sequence_probability": "probability of the answer",
    "mahalanobis_distance": "Mahalanobis distance",
}


def sureness_tables(results: dict[str, Any]) -> str:
    """Calibration, what answers rest on, and estimates beside each other."""
    groups = results["sureness"]["groups"]
    return "\n\n".join(filter(None, (calibration(groups), reliance(groups), estimates(groups))))


def calibration(groups: dict[str, Any]) -> str:
    """By group, arm and estimate: calibration error, its shift from clean, and the risks."""
    lines = [
        "| answers | arm | n | right | says | mean | calibration error | shift | risk-coverage area | "
        "wrong at 80 % coverage | errors above 0.9 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for group, row in groups.items():
        for arm, some in row["arms"].items():
            for estimate in SHOWN[arm]:
                if estimate not in some["estimates"]:
                    continue
                found = some["estimates"][estimate]
                shift = f"{found['shift']:+.3f}" if "shift" in found else ""
                lines.append(
                    f"| {name(group)} | {ARMS[arm]} | {some['n']} | {accuracy(some)} | {ESTIMATES[estimate]} | "
                    f"{percent(found['mean'])} | {found['calibration_error']:.3f} | {shift} | "
                    f"{_area(found['risk_coverage'])} | {percent(found['risk_at_80'])} | "
                    f"{_percent(found['confidently_wrong'])} |"
                )
    return "\n".join(lines)


def reliance(groups: dict[str, Any]) -> str:
    """Right or wrong, the same without the picture or not, and answers that change with the wording."""
    lines = [
        "| answers | arm | right, other without the picture | right, same without | wrong, other without | "
        "wrong, same without | nats that the picture adds | other wordings with another answer | of right answers | "
        "of wrong ones |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for group, row in groups.items():
        for arm, some in row["arms"].items():
            if "quadrants" not in some:
                continue
            cells = [percent(share) for share in some["quadrants"].values()]
            flipped = some.get("flipped", {})
            flips = [_percent(flipped.get(which)) for which in ("all", "right", "wrong")]
            shown = " | ".join([*cells, f"{some['nats']:.2f}", *flips])
            lines.append(f"| {name(group)} | {ARMS[arm]} | {shown} |")
    return "\n".join(lines)


def estimates(groups: dict[str, Any]) -> str:
    """Area under the risk-coverage curve of all estimates of the answers, with IMC where that was measured."""
    arm = "imc" if any("imc" in row["arms"] for row in groups.values()) else "plain"
    known = [e for e in ESTIMATES if any(e in row["arms"][arm]["estimates"] for row in groups.values())]
    if not known:
        return ""
    lines = [
        f"| risk-coverage area, {ARMS[arm]} | {' | '.join(ESTIMATES[e] for e in known)} |",
        "|---|" + "---|" * len(known),
    ]
    for group, row in groups.items():
        found = row["arms"][arm]["estimates"]
        lines.append(f"| {name(group)} | {' | '.join(_area(found.get(e, {}).get('risk_coverage')) for e in known)} |")
    return "\n".join(lines)


def _area(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else percent(value)
