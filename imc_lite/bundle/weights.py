"""From the base model's GGUF and our safetensors to the arrays that the graph templates name.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 32
FUSED = {"qkv": ("q", "k", "v"), "o": ("o",), "gu": ("gate", "up"), "down": ("down",)}  # linears of one product
Named = tuple[str, np.ndarray]


def quantize_8bit(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, K] -> (uint8 [N, K/32, 32] around 128, float32 scales [N, K/32]), symmetric a block."""
    blocks = weight.reshape(len(weight), -1, BLOCK)
    scales = np.abs(blocks).max(2) / 127
    safe = np.where(scales > 0, scales, 1)
    codes = np.rint(blocks / safe[..., None]).astype(np.int16) + 128
    return codes.astype(np.uint8), scales.astype(np.float32)


def encoder_tensors(trained: dict[str, np.ndarray]) -> Iterator[Named]:
    """The folded convolutions, float32."""
    for name, tensor in trained.items():
        if name.startswith("encoder."):
            yield name.removeprefix("encoder."), tensor.astype(np.float32)


def projector_tensors(trained: dict[str, np.ndarray]) -> Iterator[Named]:
    """The projector, linears transposed to what MatMul takes."""
    for name, tensor in trained.items():
        if name.startswith("projector."):
            short = name.removeprefix("projector.")
            yield short, (tensor.T if short in ("fc1.weight", "fc2.weight") else tensor).astype(np.float32)


def decoder_tensors(reader: Any, trained: dict[str, np.ndarray], positions: int) -> Iterator[Named]:
    """Base weights with the text adapter merged in float32, and the picture adapter beside them; 8-bit by blocks of
    32. The Q8_0 head carries over exactly.

    Args:
        reader: an open `gguf.GGUFReader` of a Llama-type model.
        trained: `{text,picture}.layers.{i}.{q,k,v,o,gate,up,down}.{a,b}`; W = W_base + b @ a of the text adapter.
        positions: rows of the rotary tables.
    """
    config = decoder_config(reader)
    tensors = {t.name: t for t in reader.tensors}
    yield from _rotary(config["head_dim"], config["rope_theta"], positions)
    for i in range(config["layers"]):
        for name, parts in FUSED.items():
            weight = np.concatenate([merged_linear(tensors, trained, config, i, part) for part in parts])
            down, up = adapter_beside(trained, i, parts)
            for short, array in ((f"{name}.low", down), (name, np.concatenate([weight, up], 1))):
                codes, scales = quantize_8bit(array)
                yield f"l{i}.{short}.q", codes
                yield f"l{i}.{short}.s", scales
        yield f"l{i}.norm1", np.array(tensors[f"blk.{i}.attn_norm.weight"].data, np.float32)
        yield f"l{i}.norm2", np.array(tensors[f"blk.{i}.ffn_norm.weight"].data, np.float32)
    yield "norm", np.array(tensors["output_norm.weight"].data, np.float32)
    yield from _head(tensors["token_embd.weight"])


def adapter_beside(trained: dict[str, np.ndarray], layer: int, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The picture adapters of fused linears as one: float32 A [rank of all in whole blocks, in] and B [out, the same],
    each part's rows and columns apart from the others'."""
    pairs = [[trained[f"picture.layers.{layer}.{part}.{m}"].astype(np.float32) for m in "ab"] for part in parts]
    rank = -(-sum(len(a) for a, _ in pairs) // BLOCK) * BLOCK
    down = np.zeros((rank, pairs[0][0].shape[1]), np.float32)
    up = np.zeros((sum(len(b) for _, b in pairs), rank), np.float32)
    row = column = 0
    for a, b in pairs:
        down[column : column + len(a)] = a
        up[row : row + len(b), column : column + len(a)] = b
        row, column = row + len(b), column + len(a)
    return down, up


def decoder_config(reader: Any) -> dict[str, Any]:
    """Shape of the decoder as the GGUF states it."""

    def value(key: str) -> Any:
        return reader.get_field(f"llama.{key}").contents()

    return {
        "layers": value("block_count"),
        "hidden": value("embedding_length"),
        "heads": value("attention.head_count"),
        "kv_heads": value("attention.head_count_kv"),
        "head_dim": value("rope.dimension_count"),
        "inter": value("feed_forward_length"),
        "vocab": value("vocab_size"),
        "rope_theta": value("rope.freq_base"),
        "eps": value("attention.layer_norm_rms_epsilon"),
    }


def merged_linear(
    tensors: dict[str, Any], trained: dict[str, np.ndarray], config: dict[str, Any], layer: int, name: str
) -> np.ndarray:
    """One linear of one layer, float32 [out, in], text adapter merged."""
    from gguf.quants import dequantize

    stored = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}.get(name, f"ffn_{name}")
    tensor = tensors[f"blk.{layer}.{stored}.weight"]
    weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if name in ("q", "k"):
        # GGUF interleaves the two rotary halves of every head; the runtime rotates halves.
        heads = config["heads"] if name == "q" else config["kv_heads"]
        pairs = weight.reshape(heads, config["head_dim"] // 2, 2, -1)
        weight = pairs.swapaxes(1, 2).reshape(weight.shape)
    a, b = (trained[f"text.layers.{layer}.{name}.{m}"].astype(np.float32) for m in "ab")
    return weight + b @ a


def _rotary(head_dim: int, theta: float, positions: int) -> Iterator[Named]:
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angles = np.arange(positions)[:, None] * frequencies
    yield "cos", np.cos(angles).astype(np.float32)
    yield "sin", np.sin(angles).astype(np.float32)


def _head(tensor: Any) -> Iterator[Named]:
    """Q8_0 blocks (a float16 scale and 32 signed bytes) are the runtime's own format but for the offset."""
    blocks = np.asarray(tensor.data).reshape(len(tensor.data), -1, 2 + BLOCK)
    yield "head.q", (blocks[..., 2:] ^ 0x80)
    yield "head.s", blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)


def read_trained(path: Path, beginning: str = "") -> dict[str, np.ndarray]:
    """The tensors of a safetensors file whose names begin so, in the order of the file."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        names: list[str] = file.keys()
        return {name: file.get_tensor(name) for name in names if name.startswith(beginning)}
