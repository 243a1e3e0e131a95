"""How long remedies take to fit for wide towers, beside the tower's own passes.

    python recipes/measure_wide.py -o recipes/results/wide.json

Made-up tokens: each picture is a mixture of a few hundred directions, as many a tower's are, and every noise turns
some of them. Time does not depend on what they hold. 1,152 columns are those of SigLIP-so400m (MedGemma), 5,120 of a
tower of 1,280 whose tokens stand side by side for four projectors. Processor time of all threads together.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from imc_lite.pdc.fit.crossfit import draw_folds
from imc_lite.pdc.fit.discriminant import NAMED
from imc_lite.pdc.fit.low_rank_map import RESTORED, fit_remedies
from imc_lite.pdc.fit.observe import tokens_kept

WIDTHS = 1152, 5120
GRID = 1024  # tokens that a picture has at least
DIRECTIONS = 300


def made_up(path: Path, pictures: int, width: int, seed: int) -> np.ndarray:
    """Tokens float16 [P, V, N, D] in a file, as `observe_all` leaves them."""
    rng = np.random.default_rng(seed)
    conditions = [("clean", 0), *NAMED, *(NAMED[i] for i in RESTORED)]
    shape = (pictures, len(conditions), tokens_kept(GRID, width), width)
    tokens = np.memmap(path, np.float16, "w+", shape=shape)
    spread = rng.normal(size=(DIRECTIONS, width)).astype(np.float32) / np.sqrt(np.arange(1, 1 + DIRECTIONS))[:, None]
    turned = {kind: 0.1 * rng.normal(size=(DIRECTIONS, DIRECTIONS)) / DIRECTIONS**0.5 for kind, _ in NAMED}
    for picture in tokens:
        inside = rng.normal(size=(shape[2], DIRECTIONS))
        for view, (kind, severity) in zip(picture, conditions, strict=True):
            # A little of each condition's own, so that no two views are the same.
            view[:] = (inside + severity * inside @ turned[kind] + 0.05 * rng.normal(size=inside.shape)) @ spread
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    found = {}
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as folder:
            tokens = made_up(Path(folder) / "tokens", args.pictures, width, args.seed)
            rng = np.random.default_rng(args.seed)
            wall, spent = time.perf_counter(), time.process_time()
            _, maps, _ = fit_remedies(tokens, draw_folds(len(tokens), rng))
            found[str(width)] = {
                "tokens_of_a_picture": tokens.shape[2],
                "maps": len(maps["down"]),
                "processor_seconds": round(time.process_time() - spent, 1),
                "seconds": round(time.perf_counter() - wall, 1),
                "scratch_gib": round(tokens.nbytes / 2**30, 2),
                "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            }
            print(json.dumps({width: found[str(width)]}), flush=True)
    facts = {
        "command": "python recipes/measure_wide.py -o recipes/results/wide.json",
        "seed": args.seed,
        "pictures": args.pictures,
        "conditions": tokens.shape[1],
        "system": platform.machine(),
        "columns": found,
    }
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
