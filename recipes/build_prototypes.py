"""Noise prototypes of the default model, from training pictures only.

    python recipes/build_prototypes.py --data DATA --bundle BUNDLE -o imc_lite/assets/prototypes.safetensors

All VQA-RAD training pictures and 24 of each other set, as many of each class where a set has classes and enough of
them, under noise as it is met; and 48 more of the nuclei, whose microscopes and stains differ most. Nearly all of the
time is the encoder's, 82 passes a picture and 36 through its first layers alone. 100 more of each other set are seen
clean alone, by themselves and several in one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sets import load_sets

from imc_lite.bench.data import Case
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.pdc.fit.build import build_prototypes

MORE = {"nuclei": 2}  # times as many again
CLEAN = 100  # pictures of a set


def pictures(cases: list[Case], others: int, seed: int) -> list[Path]:
    """All of VQA-RAD, then `others` of each other set, its classes in turn, then more of those that differ most."""
    by_source: dict[str, list[Case]] = {}
    for case in cases:
        by_source.setdefault(case.source, []).append(case)
    rng = np.random.default_rng(seed)
    chosen, further = by_source.pop("vqa_rad"), []
    for source, mine in by_source.items():
        drawn = list(in_turn([mine[i] for i in rng.permutation(len(mine))]))
        chosen += drawn[:others]
        further += drawn[others : others * (1 + MORE.get(source, 0))]
    return [case.path for case in chosen + further]


def further(cases: list[Case], chosen: list[Path], seed: int) -> list[Path]:
    """More of each set, which are seen clean alone."""
    used, by_source = set(chosen), dict[str, list[Case]]()
    for case in cases:
        if case.path not in used:
            by_source.setdefault(case.source, []).append(case)
    rng = np.random.default_rng(seed)
    return [mine[i].path for mine in by_source.values() for i in rng.permutation(len(mine))[:CLEAN]]


def in_turn(cases: list[Case]) -> Iterator[Case]:
    """One of each class, then the next of each, until the last class is out."""
    waiting: dict[str, list[Case]] = {}
    for case in cases:
        waiting.setdefault(case.labels.get("label", case.labels.get("projection", "")), []).append(case)
    for turn in range(len(cases)):
        for _, mine in sorted(waiting.items()):
            yield from mine[turn : turn + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--bundle", type=Path, required=True, help="any with the encoder that they are for")
    parser.add_argument("--others", type=int, default=24, help="pictures of each set but VQA-RAD")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    cases = load_sets(args.data, "train")
    images = pictures(cases, args.others, args.seed)
    rest = further(cases, images, args.seed)
    build_prototypes(OrtMLLM(args.bundle), images, args.seed, workers=args.workers, further=rest).save(args.out)


if __name__ == "__main__":
    main()
