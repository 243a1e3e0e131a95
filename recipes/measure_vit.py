"""What PDC gives back to a vision transformer that has learnt something, under noise that other projects wrote.

    pip install scikit-image torchio && pip install --no-deps imagecorruptions
    python recipes/measure_vit.py --data DATA --checkpoint runs/vit/checkpoint \\
        --prototypes runs/vit/prototypes.safetensors --bundle BUNDLE -o recipes/results/vit.json

The checkpoint is that of `distil_vit.py`, opened as any Hugging Face model, with prototypes of `imc-lite prototypes
build`. Pictures, noises, sizes, severities and questions are drawn as in `measure_generality.py`, fewer of them, since
a model in float32 takes half a second for an answer. Beside it stand the default model, which taught it, and the
transformer once more without prototypes of its own, on the very same views. Intervals: 95 % percentile bootstrap over
pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from measure_generality import Row, ask_about, look, report, some_of_each
from others_noise import generators
from sets import load_sets
from tqdm import tqdm

from imc_lite.bench.data import Case
from imc_lite.models.base import MLLM
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.hf.load import load
from imc_lite.pdc.prototypes import Prototypes, load_prototypes, packaged_prototypes

Agrees = Callable[[Sequence[tuple[str, str]], np.ndarray | None], list[bool]]


def views(
    model: MLLM, prototypes: Prototypes, cases: list[Case], asked: dict[int, list], name: str, seed: int
) -> Iterator[Row]:
    """Every picture clean and under every generator, to one model."""
    for i, case in enumerate(tqdm(cases, unit="picture", desc=name)):
        yield from look(model, prototypes, i, case, asked[i], generators(), seed)


def once(agrees: Agrees) -> Agrees:
    """`MLLM.agrees` that answers the same questions about the same tokens once: with and without prototypes of its own
    the transformer is asked about the same clean and noisy views."""
    known: dict[bytes, list[bool]] = {}

    def remembered(pairs: Sequence[tuple[str, str]], tokens: np.ndarray | None) -> list[bool]:
        assert tokens is not None, "every question is about a picture"
        key = sha256(tokens.tobytes() + json.dumps(pairs).encode()).digest()
        if key not in known:
            known[key] = agrees(pairs, tokens)
        return known[key]

    return remembered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with all sets")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of distil_vit.py")
    parser.add_argument("--prototypes", type=Path, required=True, help="built for it")
    parser.add_argument("--bundle", type=Path, required=True, help="of the default model")
    parser.add_argument("--limit", type=int, default=3, help="pictures of each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = some_of_each(load_sets(args.data, "test"), args.limit)
    asked = {i: ask_about(i, case, args.seed) for i, case in enumerate(cases)}
    teacher, student = OrtMLLM(args.bundle), load(str(args.checkpoint), device="cpu", offline=True)
    found: dict[str, object] = {}
    student.agrees = once(student.agrees)
    for name, model, opened in (
        ("default model", teacher, lambda: load_prototypes(teacher.prototypes_file(), teacher.identity)),
        ("vision transformer, nothing built", student, packaged_prototypes),
        ("vision transformer", student, lambda: load_prototypes(args.prototypes, student.identity)),
    ):
        prototypes = opened()
        rows = list(views(model, prototypes, cases, asked, name, args.seed))
        found[name] = report(rows, asked, args.seed) | {"fitted_to": prototypes.facts["images"]}
        if "cross_entropy" in prototypes.facts:
            found[name] |= {"cross_entropy": prototypes.facts["cross_entropy"]}
    facts = {
        "command": "python recipes/measure_vit.py --data DATA --checkpoint runs/vit/checkpoint --prototypes "
        "runs/vit/prototypes.safetensors --bundle BUNDLE -o recipes/results/vit.json",
        "seed": args.seed,
        "limit": args.limit,
        "generators_of": {name: version(name) for name in ("scikit-image", "imagecorruptions", "torchio")},
    }
    args.out.write_text(json.dumps(facts | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
