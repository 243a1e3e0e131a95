"""What PDC does under noise of other projects by which nothing was chosen, over test pictures of every set.

    pip install scikit-image torchio && pip install --no-deps imagecorruptions
    python recipes/measure_unseen.py --data DATA --bundle BUNDLE -o recipes/results/unseen.json

As `measure_generality.py`, with the generators of `unseen_noise.py`. Most of them have no name here, and the right
verdict on those is "unknown"; what counts is that nothing gets worse. Intervals: 95 % percentile bootstrap over
pictures.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from measure_generality import Table, ask_about, look, some_of_each
from sets import load_sets
from tqdm import tqdm
from unseen_noise import generators

from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.pdc.prototypes import load_prototypes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=8, help="pictures of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    model = OrtMLLM(args.bundle)
    prototypes = load_prototypes(model.prototypes_file(), model.identity)
    cases = some_of_each(load_sets(args.data, "test"), args.limit)
    rows = [
        row
        for i, case in enumerate(tqdm(cases, unit="picture"))
        for row in look(model, prototypes, i, case, ask_about(i, case, args.seed), generators(), args.seed)
        if row.noise != "clean"
    ]
    table = Table(rows, len(cases), args.seed)
    by_noise = table.of("noise")
    report = {
        "command": "python recipes/measure_unseen.py --data DATA --bundle BUNDLE -o recipes/results/unseen.json",
        "model": model.id,
        "version": model.version,
        "seed": args.seed,
        "generators_of": {name: version(name) for name in ("scikit-image", "imagecorruptions", "torchio")},
        "pictures": len(cases),
        "all": table.figures(rows),
        "significantly_worse": [n for n, found in by_noise.items() if found["gain_95ci"][1] < 0],  # type: ignore[index]
        "by_noise": by_noise,
        "verdicts": {n: dict(Counter(r.verdict for r in rows if r.noise == n).most_common()) for n in by_noise},
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
