"""Write the README's tables from the committed result files: `python recipes/tables.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "recipes" / "results"


def answers() -> str:
    groups = json.loads((RESULTS / "answers.json").read_text())["groups"]
    lines = ["| questions | n | right picture | blank | another case's |", "|---|---|---|---|---|"]
    for name, row in groups.items():
        cells = [name, str(row.get("n", ""))]
        for condition in ("image", "blank", "shuffled"):
            text = f"{100 * row[condition]:.1f} %"
            if interval := row.get(f"{condition}_95ci"):
                text += f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"
            cells.append(text)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def runtime() -> str:
    run = json.loads((RESULTS / "runtime.json").read_text())
    quantized = json.loads((RESULTS / "quantization.json").read_text())
    cost, machine = run["answer"], run["machine"]
    lines = [
        "| measure | imc-lite | llama.cpp, same base model | ratio |",
        "|---|---|---|---|",
    ]
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
            f"{100 * quantized['top1_agreement']:.1f} % of {quantized['positions']} next tokens "
            f"(KL {quantized['kl_mean']:.4f}).",
            "",
            "Made by `python recipes/benchmark_runtime.py` ([results](recipes/results/runtime.json)) and "
            "`python recipes/measure_quantization.py` ([results](recipes/results/quantization.json)).",
        ]
    )


def fill(text: str) -> str:
    """README text with the generated parts between `<!-- name -->` and `<!-- /name -->` renewed."""
    for name, make in (("answers", answers), ("runtime", runtime)):
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>{make()}\n\g<2>", text, flags=re.S)
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8")), encoding="utf-8")
