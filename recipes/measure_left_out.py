"""What PDC does to a kind of picture that its prototypes were never fitted to, under noise that other projects wrote.

    python recipes/measure_left_out.py --data DATA --bundle BUNDLE -o recipes/results/left_out.json

The training pictures of `build_prototypes.py` are encoded once under all conditions, with the same noise. Then one kind
of picture after the other is left out, prototypes are fitted to the rest, and used on test pictures of that kind: the
pictures, noise and questions are those of `measure_generality.py`, whose results beside these are of prototypes that
know the kind. The language model knows all kinds. Fitted to all pictures, the same code gives the packaged prototypes:
`fitted_to_all_kinds` is to be `prototypes`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from build_prototypes import further, pictures
from measure_generality import Row, Table, ask_about, look, named, some_of_each
from others_noise import generators
from sets import load_sets
from tqdm import tqdm

from imc_lite.bench.data import Case
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.pdc.fit.build import fit_prototypes
from imc_lite.pdc.fit.observe import Observations, observe_all, observe_clean
from imc_lite.pdc.prototypes import Prototypes, load_prototypes

# VQA-RAD has films and slices of heads too, so that neither is a kind of its own while it is there.
KINDS = {
    "radiology": ("vqa_rad", "child_cxr", "nih_cxr", "hannover_cxr", "brain_mri"),
    "blood films": ("bccd",),
    "dermoscopy": ("dermoscopy",),
    "photographs of feet": ("foot_photo",),
    "nuclei": ("nuclei",),
}


def fit(model: OrtMLLM, seen: Observations, kept: np.ndarray, clean: np.ndarray, seed: int) -> Prototypes:
    """To the training pictures in these places, and clean ones in those, as `build_prototypes` fits them."""
    rng = np.random.default_rng(seed)
    rng.permutation(len(kept))  # drawn there before
    tokens = seen.tokens if len(kept) == len(seen.tokens) else seen.tokens[kept]
    assert seen.further is not None
    return fit_prototypes(model, Observations(seen.own.of(kept), tokens, further=seen.further[clean]), seed, rng)


def used(task: tuple[Path, Prototypes, int, Case, int]) -> list[Row]:
    """What prototypes that do not know a picture's kind do to it."""
    bundle, prototypes, number, case, seed = task
    return [*look(opened(bundle), prototypes, number, case, ask_about(number, case, seed), generators(), seed)]


@cache
def opened(bundle: Path) -> OrtMLLM:
    """The model, once in every process."""
    return OrtMLLM(bundle)


def report(rows: list[Row], count: int, seed: int) -> dict[str, object]:
    """Of the test pictures of one kind."""
    table, noisy = Table(rows, count, seed), [r for r in rows if r.noise != "clean"]
    return {
        "pictures": len({r.picture for r in rows}),
        "clean": table.figures([r for r in rows if r.noise == "clean"]),
        "all": table.figures(noisy),
        "touched": round(float(np.mean([r.touched for r in noisy])), 4),
        "touched_clean": round(float(np.mean([r.touched for r in rows if r.noise == "clean"])), 4),
        "significantly_worse": [n for n, of in table.of("noise").items() if of["gain_95ci"][1] < 0],  # type: ignore[index]
        "by_noise": table.of("noise"),
        "named": named(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--others", type=int, default=24, help="training pictures of each set but VQA-RAD")
    parser.add_argument("--limit", type=int, default=8, help="test pictures of each set")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    model = OrtMLLM(args.bundle)
    training = load_sets(args.data, "train")
    images, source_of = pictures(training, args.others, args.seed), {case.path: case.source for case in training}
    # In the order in which `build_prototypes` takes them: the seed of a picture's noise is its place.
    sources = np.array([source_of[path] for path in images])
    rest = further(training, images, args.seed)
    sources_of_rest = np.array([source_of[path] for path in rest])
    cases = list(enumerate(some_of_each(load_sets(args.data, "test"), args.limit)))
    with tempfile.TemporaryFile() as scratch:
        seen = observe_all(model, images, args.seed, args.workers, None, scratch)
        seen = replace(seen, further=observe_clean(model, rest, args.seed, args.workers, None, None))
        whole = fit(model, seen, np.arange(len(images)), np.arange(len(rest)), args.seed)
        tasks = []
        for kind, some in KINDS.items():
            left, clean = (np.flatnonzero(~np.isin(which, some)) for which in (sources, sources_of_rest))
            without = fit(model, seen, left, clean, args.seed)
            tasks += [(args.bundle, without, i, case, args.seed) for i, case in cases if case.source in some]
            print(kind, without.digest()[:12], flush=True)
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        rows = [row for some in tqdm(pool.map(used, tasks), total=len(tasks), unit="picture") for row in some]
    packaged = load_prototypes(model.prototypes_file(), model.identity)
    table = Table(rows, len(cases), args.seed)
    facts = {
        "command": "python recipes/measure_left_out.py --data DATA --bundle BUNDLE -o recipes/results/left_out.json",
        "model": model.id,
        "version": model.version,
        "prototypes": packaged.digest()[:12],
        "fitted_to_all_kinds": whole.digest()[:12],
        "seed": args.seed,
        "generators_of": {name: version(name) for name in ("scikit-image", "imagecorruptions", "torchio")},
        "all": table.figures([row for row in rows if row.noise != "clean"]),
        "clean": table.figures([row for row in rows if row.noise == "clean"]),
        "by_set": table.of("source"),
        "kinds": {
            kind: report([row for row in rows if row.source in some], len(cases), args.seed)
            for kind, some in KINDS.items()
        },
    }
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
