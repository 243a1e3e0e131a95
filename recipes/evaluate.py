"""Score a bundle on test images it was never trained on, beside its controls.

    python recipes/evaluate.py --data DATA --bundle BUNDLE -o recipes/results/answers.json

Exact match after lower-casing and stripping punctuation, closed and open VQA-RAD questions apart, and
template questions by kind; each with the right picture, a blank one and another case's ("shuffled").
Intervals: 95 % percentile bootstrap over images (questions about one image are not independent).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.bench.data import Case, load_cases, normalize
from imc_lite.bench.stats import interval
from imc_lite.bench.templates import ask, cell_questions, truths
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM


def questions_of(case: Case, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """(group, question, expected answer) of one case."""
    for q in case.questions:
        yield "vqa_rad closed" if q["closed"] else "vqa_rad open", q["question"], q["answer"]
    for kind, value in truths(case.source, case.labels).items():
        for _ in range(2):
            yield f"template {kind}", *ask(kind, value, rng)
    if case.source == "bccd":
        boxes = [(k, (x0 + x1) / 2, (y0 + y1) / 2) for k, x0, y0, x1, y1 in case.labels["boxes"]]
        for pair in cell_questions(boxes, rng, 5):
            yield "template cells", *pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    model = OrtMLLM(args.bundle, threads=args.threads)
    cases = load_cases(args.data, "test")
    tokens = [model.perceive(load_image(c.path)).tokens for c in tqdm(cases, desc="encode")]
    blank = model.perceive(np.zeros((320, 320, 3), np.uint8)).tokens
    # A shuffled picture is any other case's, drawn once per case over all three data sets.
    shuffled = [tokens[(i + rng.integers(1, len(cases))) % len(cases)] for i in range(len(cases))]
    asked = [(i, *q) for i, c in enumerate(cases) for q in questions_of(c, rng)]
    conditions = {"image": tokens, "blank": [blank] * len(cases), "shuffled": shuffled}
    rows = []
    for name, views in conditions.items():
        for i, group, question, answer in tqdm(asked, desc=name):
            given = model.generate(question, views[i]).text
            rows.append((name, group, i, normalize(given) == normalize(answer)))
    groups: dict[str, dict] = {}
    names = sorted({g for _, g, _, _ in rows})
    for group in [*names, "template (mean of kinds)"]:
        groups[group] = {}
        for name in conditions:
            if group in names:
                mine = [(i, hit) for n, g, i, hit in rows if n == name and g == group]
                owners, hits = (np.array(v) for v in zip(*mine, strict=True))
                groups[group]["n"] = len(mine)
                groups[group][name] = round(float(hits.mean()), 4)
                groups[group][f"{name}_95ci"] = interval(hits.astype(float), owners, rng)
            else:
                kinds = [groups[g][name] for g in names if g.startswith("template")]
                groups[group][name] = round(float(np.mean(kinds)), 4)
    report = {
        "command": "python recipes/evaluate.py --data DATA --bundle BUNDLE -o recipes/results/answers.json",
        "model": model.id,
        "seed": args.seed,
        "images": len(cases),
        "questions": len(asked),
        "groups": groups,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(groups, indent=1))


if __name__ == "__main__":
    main()
