"""How much of the tokens' error the low-rank map leaves, by its rank and by how many pictures it is fitted on.

    python recipes/measure_maps.py --data DATA --bundle BUNDLE -o recipes/results/maps.json

Training pictures only, a quarter of them held out; seven noises at severities 2 and 4. The error is the mean squared
distance to the clean tokens over their variance, averaged over the fourteen conditions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.bench.data import load_cases
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.image import IMAGE_KINDS, apply_to_image
from imc_lite.pdc.fit.low_rank_map import RANK, fit_low_rank_map

SEVERITIES = (2, 4)
RANKS, COUNTS = (8, 16, 32, 64, 128), (20, 50, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    model, train = OrtMLLM(args.bundle), load_cases(args.data, "train")
    chosen = [train[i] for i in np.random.default_rng(args.seed).permutation(len(train))[: args.pictures]]
    clean, noisy = [], {}
    for i, case in enumerate(tqdm(chosen, unit="picture")):
        image = load_image(case.path)
        clean.append(model.perceive(image).tokens)
        for condition in ((kind, severity) for kind in IMAGE_KINDS for severity in SEVERITIES):
            tokens = model.perceive(apply_to_image(image, *condition, args.seed + i)).tokens
            noisy.setdefault(condition, []).append(tokens)
    target = np.stack(clean)
    width = target.shape[2]
    held = np.arange(len(chosen)) % 4 == 0
    free = np.flatnonzero(~held)
    variance = float(((target[held] - target.reshape(-1, width).mean(0)) ** 2).mean())
    errors: dict[str, dict[int, list[float]]] = {"none": {0: []}, "rank": {}, "pictures": {}}
    for views in tqdm([np.stack(v) for v in noisy.values()], unit="noise"):

        def left(fitted_on: np.ndarray, rank: int, views: np.ndarray = views) -> float:
            x, y = (a[fitted_on].reshape(-1, width) for a in (views, target))
            mapped = fit_low_rank_map(x, y, rank).apply(views[held])
            return float(((mapped - target[held]) ** 2).mean()) / variance

        errors["none"][0].append(float(((views[held] - target[held]) ** 2).mean()) / variance)
        for rank in RANKS:
            errors["rank"].setdefault(rank, []).append(left(free, rank))
        for count in (*(c for c in COUNTS if c < len(free)), len(free)):
            errors["pictures"].setdefault(count, []).append(left(free[:count], RANK))
    means = {k: {str(n): round(float(np.mean(e)), 4) for n, e in v.items()} for k, v in errors.items()}
    report = {
        "command": "python recipes/measure_maps.py --data DATA --bundle BUNDLE -o recipes/results/maps.json",
        "seed": args.seed,
        "pictures": {"fitted_on": len(free), "held_out": int(held.sum())},
        "token_error_without_map": means["none"]["0"],
        "token_error_left": {k: means[k] for k in ("rank", "pictures")},
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
