"""Does PDC harm a kind of picture that its prototypes never saw?

    python recipes/measure_foreign.py --data DATA --bundle BUNDLE -o recipes/results/foreign.json

Prototypes are built from radiology alone (VQA-RAD training pictures) and used on blood films: clean, and under seven
noises at severity 4. Template questions about cells and modality, with and without PDC; paired intervals over pictures.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imc_lite.bench.data import Case, load_cases
from imc_lite.bench.stats import interval
from imc_lite.bench.templates import ask, cell_questions, truths
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.image import IMAGE_KINDS, apply_to_image
from imc_lite.pdc.fit.build import build_prototypes
from imc_lite.pipeline import IMC


def asked(case: Case, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Template questions about a blood film and its cells, with their answers."""
    rows = [ask(kind, value, rng) for kind, value in truths(case.source, case.labels).items()]
    boxes = [(k, (x0 + x1) / 2, (y0 + y1) / 2) for k, x0, y0, x1, y1 in case.labels["boxes"]]
    return rows + list(cell_questions(boxes, rng, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=48, help="radiology pictures for the prototypes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    model, rng = OrtMLLM(args.bundle), np.random.default_rng(args.seed)
    radiology = [c.path for c in load_cases(args.data, "train") if c.source == "vqa_rad"]
    imc = IMC(model, build_prototypes(model, radiology, seed=args.seed, limit=args.pictures))
    films = [c for c in load_cases(args.data, "test") if c.source == "bccd"]
    verdicts: dict[str, Counter] = {}
    hits: dict[str, list[tuple[int, bool, bool]]] = {}
    for i, case in enumerate(tqdm(films, unit="picture")):
        image = load_image(case.path)
        pairs = asked(case, rng)
        for kind in ("clean", *IMAGE_KINDS):
            view = image if kind == "clean" else apply_to_image(image, kind, 4, args.seed + 200_000 + i)
            seen = imc.see(view)
            verdicts.setdefault(kind, Counter())[seen.report.noise.kind] += 1
            plain = model.agrees(pairs, model.perceive(view).tokens)
            changed = seen.report.restored or seen.report.calibrated
            calibrated = model.agrees(pairs, seen.tokens) if changed else plain
            hits.setdefault(kind, []).extend((i, a, b) for a, b in zip(plain, calibrated, strict=True))
    table = {}
    for kind, rows in hits.items():
        owners, plain, calibrated = (np.array(v) for v in zip(*rows, strict=True))
        gain = calibrated.astype(float) - plain
        table[kind] = {
            "n": len(rows),
            "plain": round(float(plain.mean()), 4),
            "pdc": round(float(calibrated.mean()), 4),
            "gain_95ci": interval(gain, owners, rng),
            "named": dict(verdicts[kind]),
        }
    command = "python recipes/measure_foreign.py --data DATA --bundle BUNDLE -o recipes/results/foreign.json"
    args.out.write_text(json.dumps({"command": command, "seed": args.seed, "conditions": table}, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
