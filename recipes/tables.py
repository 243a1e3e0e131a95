"""Write the tables of README.md, docs/measured.md and the model card from the committed result files.

    python recipes/tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from imc_lite.bench import tables as bench
from imc_lite.bench.report import PICTURE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "recipes" / "results"
BENCH = RESULTS / "bench" / "results.json"
PAGES = ("README.md", "docs/measured.md", "recipes/MODEL_CARD.md")


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def with_interval(value: float, interval: list[float]) -> str:
    return f"{100 * value:.1f} % ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"


def answers() -> str:
    groups = read("answers")["groups"]
    lines = ["| questions | n | right picture | blank | another case's |", "|---|---|---|---|---|"]
    for name, row in groups.items():
        cells = [name, str(row.get("n", ""))]
        for condition in ("image", "blank", "shuffled"):
            interval = row.get(f"{condition}_95ci")
            cells.append(with_interval(row[condition], interval) if interval else percent(row[condition]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def headline() -> str:
    return bench.headline(bench.load_results(BENCH))


def noise() -> str:
    return bench.noise_table(bench.load_results(BENCH), "image", PICTURE)


def questions() -> str:
    return bench.noise_table(bench.load_results(BENCH), "text", PICTURE)


def controls() -> str:
    return bench.controls(bench.load_results(BENCH))


def ablation() -> str:
    found = read("maps")
    lines = []
    for what, title in (("rank", "rank of the map"), ("pictures", "pictures it is fitted on, rank 64")):
        left = found["token_error_left"][what]
        lines += ["", f"| {title} | {' | '.join(left)} |", "|---|" + "---|" * len(left)]
        lines.append(f"| token error left | {' | '.join(f'{v:.3f}' for v in left.values())} |")
    before, held = found["token_error_without_map"], found["pictures"]["held_out"]
    return "\n".join([*lines[1:], "", f"Without a map {before:.3f}; {held} held-out training pictures."])


def foreign() -> str:
    """Prototypes of radiology on blood films."""
    lines = ["| blood films | plain | with PDC | gain, points (95 % interval) |", "|---|---|---|---|"]
    for kind, row in read("foreign")["conditions"].items():
        low, high = (100 * v for v in row["gain_95ci"])
        gain = f"{100 * (row['pdc'] - row['plain']):+.1f} ({low:.1f} to {high:.1f})"
        lines.append(f"| {kind.replace('_', ' ')} | {percent(row['plain'])} | {percent(row['pdc'])} | {gain} |")
    return "\n".join(lines)


def perception() -> str:
    found = read("perception")
    lines = ["| picture | named right, severity 2-5 |", "|---|---|"]
    for kind, row in found["by_kind"].items():
        lines.append(f"| {kind.replace('_', ' ')} | {with_interval(row['accuracy'], row['95ci'])} |")
    lines.append(f"| all | {with_interval(found['accuracy'], found['accuracy_95ci'])} |")
    lines += ["", "| in no bank | called unknown | called clean |", "|---|---|---|"]
    for kind, row in found["unseen_called_unknown_or_clean"].items():
        lines.append(f"| {kind} | {percent(row['unknown'])} | {percent(row['clean'])} |")
    cost = found["milliseconds"]
    lines += ["", "| picture | encoder pass, ms | PDC adds, ms |", "|---|---|---|"]
    for name in ("clean", "motion_blur", "gaussian", "impulse"):
        lines.append(f"| {name.replace('_', ' ')} | {cost[f'{name}: encoder pass']} | {cost[f'{name}: added']} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Expected calibration error {found['expected_calibration_error']:.3f}; clean pictures called unknown "
            f"{percent(found['clean_called_unknown'])}; severity within one step "
            f"{percent(found['severity_within_1'])}.",
        ]
    )


def repair() -> str:
    found = read("repair")
    by = {(r["tool"], r["kind"], r["severity"]): r for r in found["rows"]}
    tools = ("imc-lite", "symspellpy", "pyspellchecker")
    lines = [
        f"| damage | severity | {' | '.join(f'{t}: restored / intact words broken' for t in tools)} |",
        "|---|---|---|---|---|",
    ]
    for kind in ("typo", "ocr", "shorthand"):
        for severity in (2, 4):
            cells = []
            for tool in tools:
                row = by[tool, kind, severity]
                broken = f"{100 * row['broken'] / row['intact']:.2f} %"
                cells.append(f"{percent(row['restored'] / row['damaged'])} / {broken}")
            lines.append(f"| {kind} | {severity} | {' | '.join(cells)} |")
    cells = []
    for tool in tools:
        row = by[tool, "clean", 0]
        broken = f"{100 * row['broken'] / row['intact']:.2f} %"
        cells.append(f"{percent(row['unchanged'] / row['questions'])} unchanged / {broken}")
    lines.append(f"| none | – | {' | '.join(cells)} |")
    mine = [r for r in found["rows"] if r["tool"] == "imc-lite"]
    seconds = max(r["seconds_median"] for r in mine)
    return "\n".join(
        [
            *lines,
            "",
            f"{found['questions']} questions that were not trained on. Edits that break the meaning guard: "
            f"{sum(r['violations'] for r in mine)}. Slowest median of a condition: {seconds:.2f} s on one thread.",
        ]
    )


def runtime() -> str:
    run, quantized = read("runtime"), read("quantization")

    def agreement(where: str) -> str:
        row = quantized[where]
        return f"{percent(row['top1_agreement'])} of {row['positions']} next tokens (KL {row['kl_mean']:.4f})"

    cost, machine = run["answer"], run["machine"]
    lines = ["| measure | imc-lite | llama.cpp, same base model | ratio |", "|---|---|---|---|"]
    for name in ("prefill", "decode"):
        row = run[name]
        lines.append(
            f"| {name}, tokens/s | {row['imc_lite_tokens_s']} | {row['llama_cpp_tokens_s']} | {row['ratio_median']} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"One thread, {machine['processor']}. One `imc-lite answer` from start to exit: "
            f"{cost['seconds_median']} s, {cost['peak_mib']} MiB at the peak. The 8-bit decoder agrees with float32 on "
            f"{agreement('answer')} of the answers, and on {agreement('all')} when the words of the questions are "
            "counted too.",
        ]
    )


MAKERS = (answers, headline, noise, questions, controls, ablation, foreign, perception, repair, runtime)


def fill(text: str) -> str:
    """A page's text with the generated parts between `<!-- name -->` and `<!-- /name -->` renewed."""
    for make in MAKERS:
        pattern = rf"(<!-- {make.__name__} -->\n).*?(<!-- /{make.__name__} -->)"
        if re.search(pattern, text, flags=re.S):
            table = make()
            text = re.sub(pattern, lambda m, table=table: f"{m[1]}{table}\n{m[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    for name in PAGES:
        page = ROOT / name
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
