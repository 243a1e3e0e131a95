"""Tables of what PDC gives back under noise that other projects wrote, from the committed result file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from committed import RESULTS, percent, read, with_interval
from tables_robustness import FINDINGS

from imc_lite.bench import tables as bench
from imc_lite.bench.report import PICTURE

TOGETHER = {"all": "all", "of_the_banks_kinds": "of these, kinds that can be named"}
SETS = {
    "bccd": "blood films",
    "brain_mri": "brain MRI",
    "child_cxr": "chest films of children",
    "dermoscopy": "dermoscopy",
    "foot_photo": "photographs of feet",
    "hannover_cxr": "chest films (Hannover)",
    "nih_cxr": "chest films (NIH)",
    "nuclei": "nuclei",
    "vqa_rad": "VQA-RAD",
}
OWN = {"vqa_rad closed": "VQA-RAD, closed", "vqa_rad open": "VQA-RAD, open"}


def generality() -> str:
    """By generator, and all of them."""
    found = read("generality")
    rows = [(title, found[name], "") for name, title in TOGETHER.items()]
    for name, figures in found["by_noise"].items():
        rows.append((name, figures, _most(found["named"]["verdicts"][name])))
    clean, named = found["clean"], found["named"]
    worse = ", ".join(found["significantly_worse"]) or "none"
    return "\n".join(
        [
            *_table("noise", rows, "named, of so many pictures"),
            "",
            f"{found['pictures']} test pictures, {clean['answers']} questions. The same pictures without noise, at "
            f"other sizes: {percent(clean['noisy'])} right, {percent(clean['pdc'])} with PDC; called clean "
            f"{percent(named['clean_called_clean'])}. Noise of a kind that can be named is named right in "
            f"{percent(named['right'])}, in {percent(named['right_or_of_its_family'])} where gaussian noise, speckle "
            f"and impulses count as one. Made significantly worse: {worse}.",
        ]
    )


def generality_sets() -> str:
    """By set of pictures, and by severity."""
    found = read("generality")
    rows = [(SETS[name], figures, "") for name, figures in found["by_set"].items()]
    rows += [(f"severity {name}", figures, "") for name, figures in found["by_severity"].items()]
    return "\n".join(_table("pictures", rows))


def generality_questions() -> str:
    """By question."""
    found = read("generality")["by_question"]
    rows = [(title, found[name], "") for name, title in {**FINDINGS, **OWN}.items() if name in found]
    return "\n".join(_table("question", rows))


def unseen() -> str:
    """Under generators by which nothing was chosen."""
    found = read("unseen")
    rows = [("all", found["all"], "")]
    for name, figures in found["by_noise"].items():
        rows.append((name, figures, _most(found["verdicts"][name])))
    worse = ", ".join(found["significantly_worse"]) or "none"
    return "\n".join([*_table("noise", rows, "named, of so many pictures"), "", f"Made significantly worse: {worse}."])


def left_out() -> str:
    """With prototypes that do not know the kind of picture, beside those that know all kinds."""
    found, known = read("left_out"), read("generality")
    rows = [(f"{SETS[name]}, left out", row, "") for name, row in found["by_set"].items()]
    both = [pair for name, row in zip(found["by_set"], rows, strict=True) for pair in (row, _known(name, known))]
    both += [("all, each left out", found["all"], ""), ("all, known", known["all"], "")]
    lines = _table("pictures", both)
    kinds = [
        f"{name}: {percent(row['touched'])} of noisy pictures are changed, {percent(row['touched_clean'])} of clean"
        for name, row in found["kinds"].items()
    ]
    worse = [f"{name} under {noise}" for name, row in found["kinds"].items() for noise in row["significantly_worse"]]
    return "\n".join([*lines, "", f"{'; '.join(kinds)}. Made significantly worse: {', '.join(worse) or 'none'}."])


def restorers() -> str:
    """Restorers of libraries beside ours, by kind of noise."""
    found = read("restorers")
    lines = ["| noise | restored by | tokens' error | beyond ours (95 % interval) | ms |", "|---|---|---|---|---|"]
    for kind, ways in found["kinds"].items():
        for name, row in sorted(ways.items(), key=lambda way: way[1]["error"]):
            low, high = row["beyond_ours_95ci"]
            apart = f"{low:+.2f} to {high:+.2f}" if (low, high) != (0, 0) else ""
            cells = [kind.replace("_", " "), name, f"{row['error']:.2f}", apart, f"{row['milliseconds']:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    used = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return "\n".join([*lines, "", f"{found['pictures']} training pictures; {used}."])


def vit() -> str:
    """A vision transformer that learnt from the default model, beside it on the same views."""
    found, rows = read("vit"), []
    for model in ("default model", "vision transformer", "vision transformer, nothing built"):
        part = found[model]
        rows += [(f"{model}, {title}", part[name], "") for name, title in TOGETHER.items()]
    part = found["vision transformer"]
    rows += [(SETS[name], figures, "") for name, figures in part["by_set"].items()]
    for name, figures in part["by_noise"].items():
        rows.append((name, figures, _most(part["named"]["verdicts"][name])))
    clean, named = part["clean"], part["named"]
    return "\n".join(
        [
            *_table("noise", rows, "named, of so many pictures"),
            "",
            "Sets of pictures and single noises are the transformer's rows. "
            f"{part['pictures']} test pictures, prototypes fitted to {part['fitted_to']}. The same pictures without "
            f"noise, at other sizes: {percent(clean['noisy'])} right, {percent(clean['pdc'])} with PDC; called clean "
            f"{percent(named['clean_called_clean'])}. {_read_by(part['cross_entropy'])}. Noise that "
            f"can be named is named right in {percent(named['right'])} (the default model's: "
            f"{percent(found['default model']['named']['right'])}). Made significantly worse: "
            f"{', '.join(part['significantly_worse']) or 'none'}.",
        ]
    )


def vit_own() -> str:
    """The benchmark of that transformer, under noise of the own bank."""
    return bench.noise_table(bench.load_results(RESULTS / "vit" / "results.json"), "image", PICTURE)


def _read_by(surprise: dict[str, float]) -> str:
    """Which encoder noise is read from, of one whose prototypes could choose."""
    own, packaged = surprise["own"], surprise["packaged"]
    return (
        "On training pictures that neither was fitted to, the right kinds of noise surprise the transformer by "
        f"{own:.2f} nats and the default model's encoder, fitted to the same pictures, by {packaged:.2f}"
    )


def _most(verdicts: dict[str, int]) -> str:
    """The three kinds that a noise is called most often, and how often."""
    return ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in list(verdicts.items())[:3])


def _known(name: str, found: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    return f"{SETS[name]}, known", found["by_set"][name], ""


def _table(what: str, rows: Iterable[tuple[str, dict[str, Any], str]], last: str = "") -> list[str]:
    heads = [what, "answers", "clean", "noisy", "with PDC", "gain, points (95 % interval)", "recovered"]
    heads += [last] if last else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, row, more in rows:
        low, high = (100 * v for v in row["gain_95ci"])
        gain = f"{100 * row['gain']:+.1f} ({low:.1f} to {high:.1f})"
        back = with_interval(row["recovered"], row["recovered_95ci"]) if "recovered" in row else "–"
        cells = [title, str(row["answers"]), *(percent(row[arm]) for arm in ("clean", "noisy", "pdc")), gain, back]
        lines.append(f"| {' | '.join([*cells, *([more] if last else [])])} |")
    return lines
