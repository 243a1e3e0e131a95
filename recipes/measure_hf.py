"""A Hugging Face model of real size, with random weights: what PDC takes of an answer's time, and memory.

    python recipes/measure_hf.py -o recipes/results/hf.json

The shapes are those of SmolVLM-500M (https://huggingface.co/HuggingFaceTB/SmolVLM-500M-Instruct): a SigLIP tower of
512 x 512 pixels and SmolLM2-360M. Random weights answer nonsense in the time real ones take. Prototypes are random
too, of the sizes that `imc-lite prototypes build` gives: matching and calibrating take the same time whatever they
hold. On CUDA the language model has 4-bit weights (bitsandbytes) and both run in the package's Triton kernels.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from imc_lite.images.load import load_image
from imc_lite.models.hf.load import load
from imc_lite.models.hf.model import HfMLLM
from imc_lite.pdc.features import features
from imc_lite.pdc.fit.discriminant import CONDITIONS, fit
from imc_lite.pdc.fit.low_rank_map import RANK
from imc_lite.pdc.remedies import LowRankMap

SIDE, PATCH, SHRINK = 512, 16, 4
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": SIDE,
    "patch_size": PATCH,
}
LANGUAGE = {
    "model_type": "llama",
    "vocab_size": 49280,
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "max_position_embeddings": 8192,
}
SPECIAL = ("<s>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>")
QUESTION, NEW_TOKENS = "Is there a pleural effusion on the left side?", 16
ROUNDS = 7


def write_checkpoint(folder: Path, seed: int) -> None:
    """Random weights in bfloat16, and a processor whose tokenizer knows bytes."""
    torch.manual_seed(seed)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(BPE({token: i for i, token in enumerate([*SPECIAL, *letters])}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    longest = {"longest_edge": SIDE}
    pixels = Idefics3ImageProcessorPil(size=longest, max_image_size=longest)
    Idefics3Processor(pixels, tokenizer, image_seq_len=(SIDE // PATCH // SHRINK) ** 2).save_pretrained(folder)
    ids = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "pad_token_id": 1}
    config = SmolVLMConfig(vision_config=VISION, text_config=LANGUAGE, scale_factor=SHRINK, **ids)
    SmolVLMForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)


def milliseconds(call: Callable[[], object], device: str) -> float:
    """Median of rounds after one that warms up."""
    spent = []
    for _ in range(ROUNDS + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        spent.append(1000 * (time.perf_counter() - began))
    return float(np.median(spent[1:]))


def measure(model: HfMLLM, image: np.ndarray, device: str, seed: int) -> dict[str, float]:
    seen = model.perceive(image)
    values = features(seen.stats, model.statistics)[None]
    rng = np.random.default_rng(seed)
    near = values + rng.normal(0, 0.1, (16, len(CONDITIONS), values.shape[1]))
    matcher = replace(fit(near, seed, 1), statistics=model.statistics)
    width = seen.tokens.shape[1]
    sizes = {"down": (width, RANK), "up": (RANK, width), "offset": RANK, "shift": width}
    fitted = LowRankMap(**{name: rng.normal(0, 1e-3, size).astype(np.float32) for name, size in sizes.items()})
    model.ends = [-1]  # a random model may end at once
    found = {
        "tower": milliseconds(lambda: model.perceive(image), device),
        "match": milliseconds(lambda: matcher.match(seen.stats, model.evidence), device),
        "calibrate": milliseconds(lambda: model.calibrate(seen.tokens, fitted), device),
        f"generate {NEW_TOKENS} tokens": milliseconds(
            lambda: model.generate(QUESTION, seen.tokens, NEW_TOKENS), device
        ),
    }
    assert len(model.generate(QUESTION, seen.tokens, NEW_TOKENS).logprobs) == NEW_TOKENS
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=Path("tests/images/synpic28602.jpg"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), args.seed)
        model = load(folder, device=device, offline=True)
    spent = measure(model, load_image(args.image), device, args.seed)
    total = sum(spent.values())
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * resource.getrusage(0).ru_maxrss
    facts = {
        "command": "python recipes/measure_hf.py -o recipes/results/hf.json",
        "seed": args.seed,
        "model": "random weights in SmolVLM-500M's shapes",
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {args.threads} threads",
        "system": platform.machine(),
        "language model": "4 bits (NF4)" if device == "cuda" else "float32",
        "milliseconds": spent,
        "share of PDC": round((spent["match"] + spent["calibrate"]) / total, 5),
        "peak memory, MiB": round(peak / 2**20),
    }
    args.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
