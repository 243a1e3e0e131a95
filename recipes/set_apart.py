"""The weights that are shipped: what a trained adapter knows beyond the text adapter stands beside it, at a lower rank.

    python recipes/set_apart.py --text imc_lite/assets/default.safetensors --encoder runs/encoder/encoder.safetensors \\
        --adapter runs/again/adapter.safetensors -o runs/default.safetensors

The adapter was trained on the base weights, with which the text adapter is merged, so that is taken off again:
b @ a - b_text @ a_text, of which the nearest matrix of a lower rank is kept (Eckart and Young 1936).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from model import LORA_TARGETS
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]


def beyond(adapter: Tensors, text: Tensors, rank: int) -> Tensors:
    """The text adapter as it is, and what the other one is beyond it, `rank` rows a linear: float16, by the names that
    bundles are built from."""
    found: Tensors = {}
    layers = 1 + max(int(name.split(".")[2]) for name in text)
    for linear in (f"layers.{i}.{short}" for i in range(layers) for short in LORA_TARGETS):
        taken = {m: text[f"text.{linear}.{m}"] for m in "ab"}
        a = np.concatenate([adapter[f"lora.{linear}.a"], taken["a"]], dtype=np.float64)
        b = np.concatenate([adapter[f"lora.{linear}.b"], -taken["b"]], 1, dtype=np.float64)
        found |= {f"text.{linear}.{m}": value for m, value in taken.items()}
        found |= {f"picture.{linear}.{m}": value for m, value in zip("ab", truncated(a, b, rank), strict=True)}
    return found


def truncated(a: np.ndarray, b: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors [rank, in], [out, rank], float16, of the matrix of that rank that is nearest to b @ a."""
    (qa, ra), (qb, rb) = np.linalg.qr(a.T), np.linalg.qr(b)
    left, values, right = np.linalg.svd(rb @ ra.T)
    root = np.sqrt(values[:rank])
    return ((right[:rank] * root[:, None]) @ qa.T).astype(np.float16), ((qb @ left[:, :rank]) * root).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="safetensors with the text adapter, `text.*`")
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True, help="adapter.safetensors of train.py")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    adapter = load_file(args.adapter)
    text = {name: value for name, value in load_file(args.text).items() if name.startswith("text.")}
    projector = {name: value for name, value in adapter.items() if name.startswith("projector.")}
    save_file(load_file(args.encoder) | projector | beyond(adapter, text, args.rank), args.out)


if __name__ == "__main__":
    main()
