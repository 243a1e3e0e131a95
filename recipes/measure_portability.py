"""Is noise named the same where arithmetic rounds otherwise?

    python recipes/measure_portability.py --bundle BUNDLE -o recipes/results/portability.json

The encoder of packaged pictures, clean and under every noise at severities 2 and 4, by ONNX Runtime as shipped, by
ONNX Runtime without its processor's own data layouts, and by PyTorch: three orders of the same sums, as other
processors have others. Counted are the verdicts (kind, severity, in-distribution or not) that differ from the shipped
ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from tqdm import tqdm

from imc_lite.bench.data import load_edition
from imc_lite.bundle.store import Bundle
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.default.preprocess import preprocess
from imc_lite.models.default.torch import DefaultTorchMLLM
from imc_lite.noise.image import IMAGE_KINDS, apply_to_image
from imc_lite.pdc.prototypes import load_prototypes

EVERY = 2  # so many pictures apart
SEVERITIES = (2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle(args.bundle)
    shipped, in_torch = OrtMLLM(bundle), DefaultTorchMLLM(bundle, "cpu")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    plain = ort.InferenceSession(str(bundle.file("encoder.onnx")), options, ["CPUExecutionProvider"])
    matcher = load_prototypes(shipped.prototypes_file(), shipped.identity).matcher
    ways = {
        "shipped": lambda image: shipped.perceive(image).stats,
        "ONNX Runtime, basic optimizations": lambda i: plain.run(["stats"], {"pixels": preprocess(i)[None]})[0][0],
        "PyTorch": lambda image: in_torch.perceive(image).stats,
    }
    views, other = 0, dict.fromkeys(list(ways)[1:], 0)
    apart = dict.fromkeys(other, 0.0)
    for i, case in enumerate(tqdm(load_edition()[::EVERY])):
        image = load_image(case.path)
        for kind, severity in (("clean", 0), *((k, s) for k in IMAGE_KINDS for s in SEVERITIES)):
            view = image if kind == "clean" else apply_to_image(image, kind, severity, args.seed + 100_000 + i)
            verdicts, stats = {}, {name: way(view) for name, way in ways.items()}
            for name, values in stats.items():
                noise, in_distribution = matcher.match(values)
                verdicts[name] = (noise.kind, noise.severity, in_distribution)
            views += 1
            for name in other:
                other[name] += verdicts[name] != verdicts["shipped"]
                apart[name] = max(apart[name], float(np.abs(stats[name] - stats["shipped"]).max()))
    command = "python recipes/measure_portability.py --bundle BUNDLE -o recipes/results/portability.json"
    rows = {n: {"verdicts that differ": other[n], "largest difference of a statistic": apart[n]} for n in other}
    facts = {"command": command, "seed": args.seed, "views": views, "ways": rows}
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
