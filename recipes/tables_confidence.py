"""Tables of what the confidence is worth, from the committed result file."""

from __future__ import annotations

from committed import percent, read, robustness, with_interval
from tables_generality import SETS

from imc_lite.bench.sureness_tables import calibration
from imc_lite.bench.sureness_tables import reliance as rests

RISKS = "0.1", "0.2", "0.3"


def confidence() -> str:
    """By group of answers, the confidence beside the token probability."""
    found = read("confidence")
    rows = [
        "| answers | right | calibration error | with other wordings | of token probability | risk-coverage area | "
        "with other wordings | errors above 0.9 | with other wordings | of token probability |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, some in found["groups"].items():
        again = some["reworded"]
        rows.append(
            f"| {name}, {some['answers']:,} | {percent(some['right'])} | {some['calibration_error']:.3f} | "
            f"{again['calibration_error']:.3f} | {some['calibration_error_of_token_probability']:.3f} | "
            f"{some['risk_coverage']:.2f} | {again['risk_coverage']:.2f} | "
            f"{percent(some['confidently_wrong'])} | {percent(again['confidently_wrong'])} | "
            f"{percent(some['confidently_wrong_of_token_probability'])} |"
        )
    return "\n".join(rows)


def promise() -> str:
    """What limits can be promised."""
    found = read("confidence")
    return (
        f"For the default model the lowest limit that can be promised is {found['least_limit']:g}, and "
        f"{found['least_limit_reworded']:g} with other wordings."
    )


def sureness() -> str:
    """The benchmark's answers, pooled."""
    groups = robustness()["sureness"]["groups"]
    pooled = {name: row for name, row in groups.items() if name == "clean" or " noise" in name}
    return f"{calibration(pooled)}\n\n{rests(pooled)}"


def max_risk() -> str:
    """What `--max-risk` keeps and what is wrong of it."""
    found = read("confidence")
    rows = [
        "| answers | " + " | ".join(f"answered at {risk} | wrong of these" for risk in RISKS) + " |",
        "|---|" + "---|---|" * len(RISKS),
    ]
    for name, some in found["groups"].items():
        cells = []
        for risk in RISKS:
            at = some["max_risk"][risk]
            cells.append(with_interval(at["answered"], at["answered_95ci"]))
            cells.append(with_interval(at["wrong"], at["wrong_95ci"]))
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def estimates() -> str:
    """Beside estimates that need no fitting."""
    found = read("confidence")["risk_coverage_of_estimators"]
    names = list(found["all"])
    rows = ["| answers | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    rows += [
        f"| {group} | " + " | ".join(f"{some[name]:.2f}" for name in names) + " |" for group, some in found.items()
    ]
    return "\n".join(rows)


def strangers() -> str:
    """Pictures of kinds that were left out, and of none."""
    found = read("confidence")
    rows = ["| left out | its answers declined | of the kinds that stay |", "|---|---|---|"]
    for name, some in found["strangers_at_max_risk_0.3"].items():
        title = " and ".join(SETS[part] for part in name.split(" and "))
        rows.append(f"| {title} | {percent(some['declined'])} | {percent(some['known_kinds_declined'])} |")
    none = found["of_no_known_kind_at_max_risk_0.3"]
    return "\n".join(
        [
            *rows,
            "",
            f"Of the {none['pictures']} pictures that come with scikit-image (a fundus photograph, a stained section, "
            f"cells, photographs, drawings), {percent(none['declined'])} of the answers are declined.",
        ]
    )


def reliance() -> str:
    """The four quadrants, wordings that change the answer, and what all that costs."""
    found = read("confidence")
    names = list(found["groups"]["all"]["quadrants"])
    rows = [
        "| answers | "
        + " | ".join(names)
        + " | other wordings with another answer | of right answers | of wrong ones |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for group, some in found["groups"].items():
        cells = [some["quadrants"][name] for name in names] + [some["flipped"][n] for n in ("all", "right", "wrong")]
        rows.append(f"| {group} | " + " | ".join(map(percent, cells)) + " |")
    cost = found["cost"]
    said = (
        f"All that is said of an answer takes {percent(cost['first'])} of the time of the answer the first time that a "
        f"question gets an answer, and {percent(cost['again'])} when it gets the same again, about any picture: what "
        f"comes without the picture is remembered. With other wordings that is {percent(cost['reworded'])}. (Medians "
        "on one core, without question repair, two processes side by side.)"
    )
    return "\n".join([*rows, "", said])
