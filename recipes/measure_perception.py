"""Which noise is named how often, on test pictures, and what looking for it costs.

    python recipes/measure_perception.py --data DATA --bundle BUNDLE -o recipes/results/perception.json

Every test picture clean, under every noise that can be named at severities 1-5, and under kinds that are in no bank.
Severity 1 is reported but not counted in the totals. Expected calibration error: 15 equal bins of the verdict's
probability.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.bench.data import load_cases
from imc_lite.bench.stats import interval
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS, IMAGE_NOISE, apply_to_image
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.pdc.treat import name_noise
from imc_lite.pipeline import IMC

KINDS = (*IMAGE_KINDS, *FURTHER_KINDS)


def calibration_error(hits: np.ndarray, confidence: np.ndarray, bins: int = 15) -> float:
    """Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602."""
    owner = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(hits[owner == b].mean() - confidence[owner == b].mean()) * (owner == b).mean() for b in set(owner)]
    return round(float(sum(gaps)), 4)


def strength_error(pairs: list[tuple[int, float]]) -> float:
    """Mean distance of the strength that is told from the severity that was put on, at severities 1-5."""
    put, told = np.array(pairs).T
    return round(float(np.abs(told - put).mean()), 4)


def cost(imc: IMC, image: np.ndarray, seed: int) -> dict[str, float]:
    """Medians in milliseconds: the encoder's pass, and everything that PDC adds to it."""
    views = {"clean": image}
    views |= {kind: apply_to_image(image, kind, 3, seed) for kind in ("motion_blur", "gaussian", "impulse")}
    found: dict[str, list] = {}
    for _ in range(15):
        for name, view in views.items():
            seen = imc.see(view)
            found.setdefault(f"{name}: encoder pass", []).append(seen.perceive_s)
            found.setdefault(f"{name}: added", []).append(seen.calibrate_s)
    return {name: round(1000 * float(np.median(v)), 3) for name, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    model = OrtMLLM(args.bundle)
    prototypes = load_prototypes(model.bundle.file("prototypes.safetensors"), model.identity)
    imc = IMC(model, prototypes)
    rng, unseen = np.random.default_rng(args.seed), IMAGE_NOISE.names("unseen")
    views = [("clean", 0), *((k, s) for k in (*KINDS, *unseen) for s in range(1, 6))]
    named: dict[str, Counter] = {}
    cases = load_cases(args.data, "test")
    # First, so that what runs beside it needs to wait for a moment only.
    milliseconds = cost(imc, load_image(cases[-1].path), args.seed)
    rows = []
    strengths: dict[str, list[tuple[int, float]]] = {}
    for i, case in enumerate(tqdm(cases, unit="picture")):
        image = load_image(case.path)
        for kind, severity in views:
            noisy = image if kind == "clean" else apply_to_image(image, kind, severity, args.seed + 100_000 + i)
            noise = name_noise(model, prototypes, noisy, model.perceive(noisy).stats).noise
            named.setdefault(f"{kind} {severity}", Counter())[noise.kind] += 1
            if kind in (*KINDS, "clean") and severity != 1:
                rows.append((i, kind, noise.kind == kind, noise.probability, abs(noise.severity - severity) <= 1))
            if kind in KINDS and noise.kind == kind:
                strengths.setdefault(kind, []).append((severity, noise.strength))
    owners, kinds, hits, confidence, near = (np.array(v) for v in zip(*rows, strict=True))
    hits = hits.astype(float)
    report = {
        "command": "python recipes/measure_perception.py --data DATA --bundle BUNDLE "
        "-o recipes/results/perception.json",
        "seed": args.seed,
        "images": len(cases),
        "accuracy": round(float(hits.mean()), 4),
        "accuracy_95ci": interval(hits, owners, rng),
        "by_kind": {
            kind: {"accuracy": round(float(hits[kinds == kind].mean()), 4),
                   "95ci": interval(hits[kinds == kind], owners[kinds == kind], rng)}
            for kind in ("clean", *KINDS)
        },
        "severity_within_1": round(float(near[hits == 1].mean()), 4),
        "strength_error": {kind: strength_error(pairs) for kind, pairs in strengths.items()},
        "expected_calibration_error": calibration_error(hits, confidence),
        "clean_called_unknown": round(named["clean 0"]["unknown"] / len(cases), 4),
        "unseen_called_unknown_or_clean": {
            kind: {
                verdict: round(sum(named[f"{kind} {s}"][verdict] for s in range(1, 6)) / (5 * len(cases)), 4)
                for verdict in ("unknown", "clean")
            }
            for kind in unseen
        },
        "milliseconds": milliseconds,
        "named": {view: dict(counts) for view, counts in named.items()},
    }  # fmt: skip
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "named"}, indent=1))


if __name__ == "__main__":
    main()
