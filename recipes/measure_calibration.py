"""What image noise costs the default model's answers, and what PDC gives back.

    python recipes/measure_calibration.py --data DATA --bundle BUNDLE -o recipes/results/calibration.json

Test pictures, seven noises at severities 2 and 4. An answer counts when every one of its tokens is the model's first
choice, so that all questions about a picture are judged in one pass. Arms: `none`; `shift`, the mean of clean minus
the mean of noisy tokens added (the naive reading of prototypes, told the noise); `transport` and `restore`, each alone
(told the noise, severity 4 only); `pdc`, as the product does it, identifying the noise itself. The comparison maps are
fitted on training pictures here. Also: which share of the tokens' error is left, by rank and by number of pictures.
Each finished condition is kept beside the output, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.bench.data import Case, load_cases
from imc_lite.bench.judge import judge
from imc_lite.bench.stats import interval
from imc_lite.bench.templates import ask, cell_questions, truths
from imc_lite.calibration import Transport, load_prototypes
from imc_lite.images import load_image
from imc_lite.models.ort import OrtMLLM
from imc_lite.noise.image import IMAGE_KINDS, apply
from imc_lite.pipeline import IMC
from imc_lite.prototypes import RANK, fit_transport, transport
from imc_lite.restore import RESTORERS, restore

SEVERITIES = (2, 4)
FULL, SHORT = ("none", "shift", "pdc"), ("transport", "restore")
RANKS, COUNTS = (8, 16, 32, 64, 128), (20, 50)


def asked(case: Case, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """(group, question, answer): the data set's own, and one template a label."""
    rows = [(f"vqa_rad {'closed' if q['closed'] else 'open'}", q["question"], q["answer"]) for q in case.questions]
    rows += [("template", *ask(kind, value, rng)) for kind, value in truths(case.source, case.labels).items()]
    if case.source == "bccd":
        boxes = [(k, (x0 + x1) / 2, (y0 + y1) / 2) for k, x0, y0, x1, y1 in case.labels["boxes"]]
        rows += [("cells", *pair) for pair in cell_questions(boxes, rng, 2)]
    return rows


def fit_all(model: OrtMLLM, cases: list[Case], seed: int) -> tuple[dict, dict]:
    """Maps of every condition from training pictures, and token errors by rank and number of pictures."""
    clean, views = [], {}
    for i, case in enumerate(tqdm(cases, desc="training pictures")):
        image = load_image(case.path)
        clean.append(model.perceive(image).tokens)
        for kind in IMAGE_KINDS:
            for severity in SEVERITIES:
                views.setdefault((kind, severity), []).append(
                    model.perceive(apply(image, kind, severity, seed + i)).tokens
                )
    target = np.stack(clean)
    flat = target.reshape(-1, target.shape[2])
    held = np.arange(len(cases)) % 4 == 0
    variance = float(((target[held] - flat.mean(0)) ** 2).mean())
    fits, errors = {}, {"rank": {}, "pictures": {}}
    for condition, tokens in tqdm(views.items(), desc="maps"):
        noisy = np.stack(tokens)
        fits[condition] = fit_transport(noisy.reshape(flat.shape), flat, RANK)

        def left(train: np.ndarray, rank: int, noisy: np.ndarray = noisy) -> float:
            x, y = (a[train].reshape(-1, a.shape[2]) for a in (noisy, target))
            mapped = transport(noisy[held], fit_transport(x, y, rank))
            return float(((mapped - target[held]) ** 2).mean()) / variance

        free = np.flatnonzero(~held)
        for rank in RANKS:
            errors["rank"].setdefault(rank, []).append(left(free, rank))
        for count in (*COUNTS, len(free)):
            errors["pictures"].setdefault(count, []).append(left(free[:count], RANK))
    return fits, {k: {str(n): round(float(np.mean(e)), 4) for n, e in v.items()} for k, v in errors.items()}


def tokens_of(imc: IMC, arm: str, image: np.ndarray, kind: str, severity: int, fitted: dict) -> tuple[np.ndarray, str]:
    """What an arm shows the language model, and the verdict it acted on."""
    if arm == "pdc":
        seen = imc.see(image)
        return seen.tokens, seen.report.noise.kind
    if arm == "restore":
        return imc.model.perceive(restore(image, kind, severity)).tokens, kind
    tokens = imc.model.perceive(image).tokens
    if arm == "shift":
        tokens = tokens + fitted["shift"]
    if arm == "transport":
        tokens = imc.model.calibrate(tokens, Transport(**fitted))
    return tokens, kind


def conditions() -> Iterator[tuple[str, str, int]]:
    for arm in (*FULL, *SHORT):
        for kind in IMAGE_KINDS:
            if arm != "restore" or kind in RESTORERS:
                yield from ((arm, kind, severity) for severity in (SEVERITIES if arm in FULL else SEVERITIES[-1:]))


def run(job: tuple) -> None:
    """Judge one condition and write it into the scratch folder; what is there already stands."""
    args, arm, kind, severity = job
    target = scratch(args) / f"{kind} {severity} {arm}.json"
    if target.exists():
        return
    model = OrtMLLM(args.bundle)
    imc = IMC(model, load_prototypes(model.bundle.file("prototypes.safetensors"), model.identity))
    rng = np.random.default_rng(args.seed)
    fitted: dict[str, np.ndarray] = {}
    if kind != "clean":
        maps = np.load(scratch(args) / "maps.npz")
        fitted = {n: maps[f"{kind} {severity} {n}"] for n in ("down", "up", "offset", "shift")}
    hits, verdicts, same = [], [], 0
    for i, case in enumerate(tqdm(load_cases(args.data, "test"), desc=target.stem)):
        # All questions are drawn before some are left out, so that every arm is asked the same.
        mine = [q for q in asked(case, rng) if arm not in SHORT or not q[0].startswith("vqa_rad")]
        image = load_image(case.path)
        noisy = image if kind == "clean" else apply(image, kind, severity, args.seed + 100_000 + i)
        tokens, verdict = tokens_of(imc, arm, noisy, kind, severity, fitted)
        if kind == "clean":
            same += bool((tokens == model.perceive(image).tokens).all())
        verdicts.append(verdict)
        found = judge(model, tokens, [(question, answer) for _, question, answer in mine])
        hits += [(group, i, hit) for (group, _, _), hit in zip(mine, found, strict=True)]
    named = float(np.mean([v == kind for v in verdicts]))
    part = target.with_suffix(".part")
    part.write_text(json.dumps({"hits": hits, "named": named, "identical": same}))
    part.rename(target)


def scratch(args: argparse.Namespace) -> Path:
    return args.out.with_suffix(".parts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=120, help="training pictures for the comparison maps")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    scratch(args).mkdir(parents=True, exist_ok=True)
    if not (scratch(args) / "errors.json").exists():
        train = load_cases(args.data, "train")
        rng = np.random.default_rng(args.seed)
        fits, errors = fit_all(
            OrtMLLM(args.bundle), [train[i] for i in rng.permutation(len(train))[: args.pictures]], args.seed
        )
        arrays = {f"{kind} {severity} {n}": a for (kind, severity), f in fits.items() for n, a in f.items()}
        np.savez(scratch(args) / "maps.npz", **arrays)
        (scratch(args) / "errors.json").write_text(json.dumps(errors))
    jobs = [(args, "none", "clean", 0), (args, "pdc", "clean", 0), *((args, *c) for c in conditions())]
    with multiprocessing.Pool(args.workers) as pool:
        pool.map(run, jobs, chunksize=1)
    done = {f"{k} {s} {a}": json.loads((scratch(args) / f"{k} {s} {a}.json").read_text()) for _, a, k, s in jobs}
    done["errors"] = json.loads((scratch(args) / "errors.json").read_text())
    model = OrtMLLM(args.bundle).id
    args.out.write_text(json.dumps(report(done, model, args.seed), indent=1) + "\n")


def report(done: dict, model: str, seed: int) -> dict:
    """Accuracies with intervals, and the recovered share over the conditions with a significant loss."""
    rng = np.random.default_rng(seed)
    groups = ("template", "cells", "vqa_rad closed", "vqa_rad open")

    def cell(name: str, group: str) -> dict | None:
        rows = [(i, hit) for g, i, hit in done[name]["hits"] if g == group]
        if not rows:
            return None
        owners, hits = (np.array(v) for v in zip(*rows, strict=True))
        accuracy = round(float(hits.mean()), 4)
        return {"n": len(rows), "accuracy": accuracy, "95ci": interval(hits.astype(float), owners, rng)}

    table = {
        name: {"named": done[name]["named"], **{g: c for g in groups if (c := cell(name, g))}}
        for name in done
        if name != "errors"
    }
    recovered, alone = {}, {}
    for group in groups:
        recovered[group] = shares(done, group, SEVERITIES, FULL, rng)
        alone[group] = shares(done, group, SEVERITIES[-1:], (*FULL, *SHORT), rng)
    clean = done["clean 0 pdc"]
    return {
        "command": "python recipes/measure_calibration.py --data DATA --bundle BUNDLE "
        "-o recipes/results/calibration.json",
        "model": model,
        "seed": seed,
        "clean_images_with_bit_identical_tokens": clean["identical"],
        "clean_answers_that_differ": sum(
            a != b for a, b in zip(done["clean 0 none"]["hits"], clean["hits"], strict=True)
        ),
        "recovered_share": recovered,
        "recovered_share_severity_4": alone,
        "token_error_left": done["errors"],
        "conditions": table,
    }


def shares(
    done: dict, group: str, severities: tuple[int, ...], arms: tuple[str, ...], rng: np.random.Generator
) -> dict:
    """Mean share of the lost accuracy that each arm gives back, over the conditions with a significant loss."""

    def hits(name: str) -> np.ndarray:
        return np.array([hit for g, _, hit in done[name]["hits"] if g == group], float)

    clean = hits("clean 0 none")
    owners = np.array([i for g, i, _ in done["clean 0 none"]["hits"] if g == group])
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    significant = []
    for kind in IMAGE_KINDS:
        for severity in severities:
            noisy = hits(f"{kind} {severity} none")
            if interval(clean - noisy, owners, rng)[0] <= 0:
                continue
            significant.append(f"{kind} {severity}")
            for arm in arms:
                # Where there is nothing to restore, restoring alone is doing nothing.
                name = f"{kind} {severity} {arm if arm != 'restore' or kind in RESTORERS else 'none'}"
                got = hits(name)
                if len(got):
                    found[arm].append(float((got.mean() - noisy.mean()) / (clean.mean() - noisy.mean())))
    return {"significant": significant, **{arm: round(float(np.mean(v)), 4) for arm, v in found.items() if v}}


if __name__ == "__main__":
    main()
