"""What damaged questions cost the default model's answers, and what repair gives back.

    python recipes/measure_questions.py --data DATA --bundle BUNDLE -o recipes/results/questions.json

One template question about every test picture (the pictures are clean), four kinds of damage at severities 2 and 4.
An answer counts when every one of its tokens is the model's first choice. Unlike the clinicians' questions, these are
answered from the picture, so a loss here is the damage's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.bench.data import load_cases
from imc_lite.bench.judge import judge
from imc_lite.bench.stats import interval
from imc_lite.bench.templates import ask, truths
from imc_lite.images import load_image
from imc_lite.models.ort import OrtMLLM
from imc_lite.noise.text import TEXT_KINDS, apply
from imc_lite.sms.agents import repair

SEVERITIES = (2, 4)


def measure(job: tuple) -> list[tuple[int, bool, bool, bool]]:
    """(picture, right when the question is clean, damaged, repaired) for every test picture."""
    args, kind, severity = job
    model, rng, rows = OrtMLLM(args.bundle), np.random.default_rng(args.seed), []
    for i, case in enumerate(tqdm(load_cases(args.data, "test"), desc=f"{kind} {severity}")):
        tokens = model.perceive(load_image(case.path)).tokens
        labels = list(truths(case.source, case.labels).items())
        question, answer = ask(*labels[rng.integers(len(labels))], rng)
        damaged = apply(question, kind, severity, args.seed + i)
        views = (question, damaged, repair(model, damaged).repaired)
        rows.append((i, *judge(model, tokens, [(view, answer) for view in views])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    jobs = [(args, kind, severity) for kind in TEXT_KINDS for severity in SEVERITIES]
    with multiprocessing.Pool(args.workers) as pool:
        found = pool.map(measure, jobs, chunksize=1)
    rng = np.random.default_rng(args.seed)
    table = {}
    for (_, kind, severity), rows in zip(jobs, found, strict=True):
        owners = np.array([r[0] for r in rows])
        clean, damaged, repaired = (np.array([r[j] for r in rows], float) for j in (1, 2, 3))
        row = {"n": len(rows)}
        for name, hits in (("clean", clean), ("damaged", damaged), ("repaired", repaired)):
            row |= {name: round(float(hits.mean()), 4), f"{name}_95ci": interval(hits, owners, rng)}
        row["loss_95ci"] = interval(clean - damaged, owners, rng)
        row["repair_gain_95ci"] = interval(repaired - damaged, owners, rng)
        table[f"{kind} {severity}"] = row
    lost = {k: r for k, r in table.items() if r["loss_95ci"][0] > 0}
    shares = [(r["repaired"] - r["damaged"]) / (r["clean"] - r["damaged"]) for r in lost.values()]
    report = {
        "command": "python recipes/measure_questions.py --data DATA --bundle BUNDLE "
        "-o recipes/results/questions.json",
        "seed": args.seed,
        "significant": list(lost),
        "recovered_share": round(float(np.mean(shares)), 4) if shares else None,
        "conditions": table,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
