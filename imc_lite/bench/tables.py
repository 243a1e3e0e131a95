"""Results as Markdown, and two results beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imc_lite.bench.cells import accuracy, name, percent
from imc_lite.bench.report import FORMAT, OTHERS, PICTURE
from imc_lite.bench.sureness_tables import sureness_tables
from imc_lite.errors import ImcError

ARMS = {
    "image": ("plain", "shift", "restore", "transport", "pdc", "imc"),
    "text": ("plain", "sms", "imc"),
}
LABELS = {
    "plain": "plain",
    "shift": "mean shift",
    "restore": "restoration alone",
    "transport": "map alone",
    "pdc": "PDC",
    "sms": "SMS",
    "imc": "IMC",
}
# Arms that need not find out which noise it is.
TOLD = ("shift", "restore", "transport")
FEWER = "†"


def markdown(results: dict[str, Any]) -> str:
    """The tables of a run: what needs the picture, what image and text noise cost, what comes back, how sure it is."""
    parts = [controls(results), headline(results)]
    for of in ("image", "text"):
        if any(c["of"] == of for c in results["conditions"]):
            parts.append(noise_table(results, of, PICTURE))
            parts.append(noise_table(results, of, OTHERS))
    parts.append(sureness_tables(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(results: dict[str, Any]) -> str:
    """The share of the loss that each arm gives back, and what IMC does to clean cases; of the plain model alone what
    it loses."""
    if "imc" not in results["conditions"][0]["arms"]:
        return losses(results)
    lines = [
        "| arm | conditions with a significant loss | share of the loss recovered, % | mean of conditions, % |",
        "|---|---|---|---|",
    ]
    for of in ("image", "text"):
        arms = results["recovered"][of][PICTURE]["arms"]
        for arm in sorted(ARMS[of][1:], key=TOLD.__contains__):
            if arm in arms:
                row, told = arms[arm], " (told the noise)" if arm in TOLD else ""
                low, high = row["share_95ci"]
                share = f"{percent(row['share'])} ({percent(low)}–{percent(high)})"
                mean = percent(row["mean_of_conditions"])
                lines.append(f"| {of} noise, {LABELS[arm]}{told} | {row['conditions']} | {share} | {mean} |")
    arms = results["conditions"][0]["arms"]
    pictures = sum(s["pictures"] for s in results["data"]["sources"].values())
    said = []
    for scope, what in ((PICTURE, "questions that need the picture"), (OTHERS, "the others")):
        if scope in arms["imc"]:
            cell = arms["imc"][scope]
            low, high = cell["gain_95ci"]
            gain = f"{percent(cell['gain'])} points ({percent(low)} to {percent(high)})"
            said.append(f"{what} {accuracy(arms['plain'][scope])} plain, IMC changes that by {gain}")
    same = f"{results['clean_pictures_with_identical_tokens']} of {pictures} clean pictures pass bit-identical"
    worse = ", ".join(results["worse"]) or "none"
    return "\n".join(
        [*lines, "", f"Clean cases: {'; '.join(said)}. {same}. Conditions made significantly worse: {worse}."]
    )


def losses(results: dict[str, Any]) -> str:
    """What noise costs the plain model, where that is significant."""
    clean = results["conditions"][0]["arms"]["plain"]
    said = []
    for scope, what in ((PICTURE, "questions that need the picture"), (OTHERS, "the others")):
        if scope in clean:
            found = []
            for row in results["conditions"][1:]:
                cell = row["arms"]["plain"].get(scope)
                if cell is not None and cell["loss_95ci"][0] > 0:
                    found.append(f"{name(row['noise'])} {row['severity']} {percent(cell['loss'])} points")
            said.append(f"{what} {accuracy(clean[scope])}, significant losses: {', '.join(found) or 'none'}")
    return f"The plain model alone. Clean cases: {'; '.join(said)}."


def controls(results: dict[str, Any]) -> str:
    """Clean accuracy beside the controls, and which groups need the picture."""
    lines = [
        "| questions | n | clean | blank | shuffled | text only | need the picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for group, row in results["groups"].items():
        cells = [accuracy(row.get(control)) for control in ("clean", "blank", "shuffled", "text_only")]
        lines.append(f"| {group} | {row['n']} | {' | '.join(cells)} | {'yes' if row['needs_picture'] else 'no'} |")
    return "\n".join(lines)


def noise_table(results: dict[str, Any], of: str, scope: str) -> str:
    """Accuracy of every arm by noise and severity; "" where the scope holds no question."""
    conditions = [c for c in results["conditions"] if c["of"] == of and scope in c["arms"]["plain"]]
    if not conditions:
        return ""
    arms = [a for a in ARMS[of] if any(scope in c["arms"].get(a, {}) for c in conditions)]
    what = "Questions that need the picture" if scope == PICTURE else "The other questions"
    fewer = f", {FEWER} an arm that was asked template and cell questions only" if len(arms) > 1 else ""
    back = ". The last column is the share of the loss that IMC recovers" if "imc" in arms else ""
    head = [*(LABELS[a] for a in arms), *(["recovered, %"] if back else [])]
    lines = [
        f"{what}, {of} noise: accuracy in % (95 % interval); * marks a significant loss{fewer}{back}.",
        "",
        f"| noise | severity | n | {' | '.join(head)} |",
        "|---|---|---|" + "---|" * len(head),
    ]
    for row in conditions:
        plain = row["arms"]["plain"][scope]
        found = [row["arms"].get(a, {}).get(scope) for a in arms]
        cells = [accuracy(c) + (FEWER if c and c["n"] < plain["n"] else "") for c in found]
        cells[0] += "*" if plain["loss_95ci"][0] > 0 else ""
        if back:
            share = row["arms"]["imc"][scope].get("recovered")
            cells.append("–" if share is None else percent(share))
        lines.append(f"| {name(row['noise'])} | {row['severity']} | {plain['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def load_results(path: Path) -> dict[str, Any]:
    """Read `results.json`, or the one in an output folder.

    Raises:
        ImcError: missing, or not of this format.
    """
    file = path / "results.json" if path.is_dir() else path
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        known = results["format"] == FORMAT and isinstance(results["conditions"], list)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImcError(f"{file} holds no results of a benchmark; give a folder of `imc-lite bench -o`") from error
    if not known:
        raise ImcError(f"the results in {file} have another format; run this version's `imc-lite bench` again")
    return results


def compare(first: dict[str, Any], second: dict[str, Any], scope: str = PICTURE) -> str:
    """Two runs beside each other as Markdown: the accuracy of plain and IMC in the conditions that both hold; of plain
    alone where one of them has no other arm.

    A difference is marked where the two intervals do not overlap; the questions need not be the same.
    """
    rows = {(c["noise"], c["severity"]): c["arms"] for c in second["conditions"]}
    alone = any(r["conditions"] and "imc" not in r["conditions"][0]["arms"] for r in (first, second))
    compared = ("plain",) if alone else ("plain", "imc")
    head = " | ".join(f"{LABELS[arm]}, A | {LABELS[arm]}, B | difference" for arm in compared)
    lines = [f"| noise | severity | {head} |", "|---|---|" + "---|---|---|" * len(compared)]
    for condition in first["conditions"]:
        other = rows.get((condition["noise"], condition["severity"]), {})
        cells = []
        for arm in compared:
            pair = [arms.get(arm, {}).get(scope) for arms in (condition["arms"], other)]
            if None in pair:
                break
            change = pair[1]["accuracy"] - pair[0]["accuracy"]
            apart = pair[0]["95ci"][1] < pair[1]["95ci"][0] or pair[1]["95ci"][1] < pair[0]["95ci"][0]
            cells += [*map(accuracy, pair), f"{100 * change:+.1f}{'*' if apart else ''}"]
        else:
            lines.append(f"| {name(condition['noise'])} | {condition['severity']} | {' | '.join(cells)} |")
    if len(lines) == 2:
        raise ImcError("the two runs have no condition in common; run both with the same noises and severities")
    same = "the same" if first["data"] == second["data"] else "different"
    models = [f"{side}: {r['model']['id']} {r['model']['version']}" for side, r in (("A", first), ("B", second))]
    facts = f"{'; '.join(models)}. The pictures and questions are {same}. * marks intervals that do not overlap."
    return "\n".join([*lines, "", facts]) + "\n"
