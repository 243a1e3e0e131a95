"""Noise prototypes of the default model, from training pictures only.

    python recipes/build_prototypes.py --data DATA --bundle BUNDLE -o imc_lite/assets/prototypes.safetensors

All VQA-RAD training pictures, and as many blood films and chest radiographs as keep the three kinds of picture
near balance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from imc_lite.bench.data import load_cases
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.pdc.fit.build import build_prototypes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--others", type=int, default=80, help="pictures of each other data set")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    by_source: dict[str, list[Path]] = {}
    for case in load_cases(args.data, "train"):
        by_source.setdefault(case.source, []).append(case.path)
    rng = np.random.default_rng(args.seed)
    images = by_source.pop("vqa_rad")
    for paths in by_source.values():
        images += [paths[i] for i in sorted(rng.permutation(len(paths))[: args.others])]
    build_prototypes(OrtMLLM(args.bundle), images, seed=args.seed, workers=args.workers).save(args.out)


if __name__ == "__main__":
    main()
