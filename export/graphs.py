"""Encoder, projector and decoder as ONNX graphs with every weight in one external file each.

Written with `onnx.helper` rather than traced: the decoder needs ONNX Runtime's fused operators
(GroupQueryAttention with a shared cache, MatMulNBits), and fixed offsets let numpy fill in the weights on a
host that has neither torch nor onnx.

Operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto, helper

from imc_lite.models.default.spec import ENCODER

ALIGN = 4096  # a page, so that the runtime can map every weight
BLOCK = 32  # weights that share a scale: the block of GGUF's Q8_0, so that the head carries over exactly


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a Llama-type decoder; the defaults are SmolLM2-135M (arXiv 2502.02737)."""

    layers: int = 30
    hidden: int = 576
    heads: int = 9
    kv_heads: int = 3
    head_dim: int = 64
    inter: int = 1536
    vocab: int = 49152
    rope_theta: float = 100000.0
    eps: float = 1e-5
    positions: int = 2048
    rank: int = 16  # of the picture adapter in every linear
    accuracy_level: int = 4  # 4: activations in 8 bits too (fast); 1: float32 activations (exact, for tests)


@dataclass
class Template:
    """A graph under construction, and the layout of its external weights."""

    name: str
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    layout: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0

    def weight(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> str:
        """Declare an external weight at the next aligned offset; returns its name."""
        count = 1
        for dim in shape:
            count *= dim
        length = count * {"float32": 4, "uint8": 1}[dtype]
        tensor = TensorProto(name=name, dims=shape, data_type={"float32": 1, "uint8": 2}[dtype])
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": f"{self.name}.bin", "offset": str(self.size), "length": str(length)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        self.initializers.append(tensor)
        self.layout.append({"name": name, "dtype": dtype, "shape": list(shape), "offset": self.size})
        self.size += -(-length // ALIGN) * ALIGN
        return name

    def constant(self, name: str, values: list[int]) -> str:
        self.initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def add(self, op: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its first output."""
        outs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, outs, domain=domain, **attributes))
        return outs[0]

    def model(self, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="imc-lite")


def encoder(shallow: bool = False) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """EfficientNet-Lite2: pixels float32 [B, 3, 320, 320] -> tokens [B, 25, 1280], stats [B, 1664].

    `stats` holds, for the stem and blocks 0, 2, 5 and 10, each channel's mean and mean of squares in the four
    quadrants (quadrant-major): [means 4 C, squares 4 C] a depth, depths in order.

    With `shallow` it ends with `stats`, which are the same to the last bit: what names noise needs no more. The weights
    lie where the whole graph has them, in the same file.
    """
    t = Template("encoder")
    t.constant("flat", [0, -1])
    side, stats = ENCODER.side, []

    def conv(x: str, name: str, cin: int, cout: int, kernel: int, stride: int, group: int, act: bool) -> str:
        weight = t.weight(f"{name}.weight", (cout, cin // group, kernel, kernel))
        bias = t.weight(f"{name}.bias", (cout,))
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        shape: dict[str, Any] = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": pads,
            "group": group,
        }
        y = t.add("Conv", [x, weight, bias], f"{name}.out", **shape)
        return t.add("Clip", [y, "zero", "six"], f"{name}.act") if act else y

    def tap(x: str, name: str, channels: int) -> None:
        half = side // 2
        t.constant(f"{name}.grid", [0, channels, 2, half, 2, half])
        for suffix, source in (("mean", x), ("square", t.add("Mul", [x, x], f"{name}.squared"))):
            y = t.add("Reshape", [source, f"{name}.grid"], f"{name}.{suffix}.cells")
            y = t.add("ReduceMean", [y], f"{name}.{suffix}.pooled", axes=[3, 5], keepdims=0)
            y = t.add("Transpose", [y], f"{name}.{suffix}.turned", perm=[0, 2, 3, 1])
            stats.append(t.add("Reshape", [y, "flat"], f"{name}.{suffix}.flat"))

    for name, value in (("zero", 0.0), ("six", 6.0)):
        t.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    x = conv("pixels", "stem", 3, ENCODER.stem, 3, 2, 1, act=True)
    side //= 2
    tap(x, "stem.tap", ENCODER.stem)
    for block in ENCODER.shallow_blocks if shallow else ENCODER.blocks:
        name, mid, y = block.name, block.inside, x
        if block.expands:
            y = conv(y, f"{name}.expand", block.inputs, mid, 1, 1, 1, act=True)
        y = conv(y, f"{name}.depthwise", mid, mid, block.kernel, block.stride, mid, act=True)
        side //= block.stride
        y = conv(y, f"{name}.project", mid, block.outputs, 1, 1, 1, act=False)
        x = t.add("Add", [x, y], f"{name}.sum") if block.residual else y
        if block.tapped:
            tap(x, f"{name}.tap", block.outputs)
    outputs = [_value("stats", ["B", ENCODER.statistics])]
    if not shallow:
        x = conv(x, "head", ENCODER.blocks[-1].outputs, ENCODER.width, 1, 1, 1, act=True)
        x = t.add("AveragePool", [x], "pooled", kernel_shape=[2, 2], strides=[2, 2])
        x = t.add("Reshape", [x, t.constant("rows", [0, ENCODER.width, ENCODER.tokens])], "columns")
        t.add("Transpose", [x], "tokens", perm=[0, 2, 1])
        outputs = [_value("tokens", ["B", ENCODER.tokens, ENCODER.width]), *outputs]
    t.add("Concat", stats, "stats", axis=1)
    return t.model([_value("pixels", ["B", 3, ENCODER.side, ENCODER.side])], outputs), t.layout


def projector(hidden: int = 1152, out: int = 576) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """LayerNorm, two linears with an exact GELU, learned positions: tokens [B, 25, 1280] -> embeds [B, 25, 576]."""
    t = Template("projector")
    norm = [t.weight("norm.weight", (ENCODER.width,)), t.weight("norm.bias", (ENCODER.width,))]
    x = t.add("LayerNormalization", ["tokens", *norm], "normed", axis=-1, epsilon=1e-5)
    x = t.add("MatMul", [x, t.weight("fc1.weight", (ENCODER.width, hidden))], "fc1.product")
    x = t.add("BiasGelu", [x, t.weight("fc1.bias", (hidden,))], "fc1.out", domain="com.microsoft")
    x = t.add("MatMul", [x, t.weight("fc2.weight", (hidden, out))], "fc2.product")
    x = t.add("Add", [x, t.weight("fc2.bias", (out,))], "fc2.out")
    t.add("Add", [x, t.weight("position", (ENCODER.tokens, out))], "embeds")
    seen, given = (_value(n, ["B", ENCODER.tokens, w]) for n, w in (("tokens", ENCODER.width), ("embeds", out)))
    return t.model([seen], [given]), t.layout


def decoder(config: DecoderConfig) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """A Llama decoder with 8-bit weights, a low-rank adapter that can be turned off, and a cache updated in place.

    The adapter (LoRA, arXiv 2106.09685) is not merged: `x @ A.T`, times `adapter`, goes beside x into the product with
    the weights, whose rows go on with B. Turned off it adds zeros.

    Inputs: inputs_embeds float32 [1, S, hidden]; position_ids int64 [1, S]; attention_bias float32 [1, 1, S, T]
    (0 or a large negative number; what no causal mask can say, such as candidates that must not see one
    another); seqlens_k int32 [1] = T - 1; total_length int32 [1] = T; where int64 [n], the positions whose
    logits are wanted; adapter float32 [1], 1 or 0; past_{i}_k/v float32 [1, kv_heads, M, head_dim].
    Outputs: logits float32 [n, vocab]; present_{i}_k/v, bound to the same buffers as the past.
    """
    c, t = config, Template("decoder")
    q_size, kv_size = c.heads * c.head_dim, c.kv_heads * c.head_dim
    cos = t.weight("cos", (c.positions, c.head_dim // 2))
    sin = t.weight("sin", (c.positions, c.head_dim // 2))
    cache: list[int | str] = ["B", c.kv_heads, "M", c.head_dim]
    inputs = [
        _value("inputs_embeds", [1, "S", c.hidden]),
        _value("position_ids", [1, "S"], TensorProto.INT64),
        _value("attention_bias", [1, 1, "S", "T"]),
        _value("seqlens_k", [1], TensorProto.INT32),
        _value("total_length", [1], TensorProto.INT32),
        _value("where", ["n"], TensorProto.INT64),
        _value("adapter", [1]),
    ]
    outputs = [_value("logits", ["n", c.vocab])]

    def linear(x: str, name: str, k: int, n: int, out: str) -> str:
        weights = [
            t.weight(f"{name}.q", (n, k // BLOCK, BLOCK), "uint8"),
            t.weight(f"{name}.s", (n, k // BLOCK)),
        ]
        shape = {"K": k, "N": n, "bits": 8, "block_size": BLOCK, "accuracy_level": c.accuracy_level}
        return t.add("MatMulNBits", [x, *weights], out, domain="com.microsoft", **shape)

    def adapted(x: str, name: str, k: int, n: int, parts: int) -> str:
        """A linear of `parts` that have an adapter each; the adapters' rows are filled up to whole blocks."""
        rows = -(-parts * c.rank // BLOCK) * BLOCK
        low = linear(x, f"{name}.low", k, rows, f"{name}.low.out")
        low = t.add("Mul", [low, "adapter"], f"{name}.low.on")
        x = t.add("Concat", [x, low], f"{name}.in", axis=-1)
        return linear(x, name, k + rows, n, f"{name}.out")

    def skip_norm(residual: str, x: str, name: str) -> tuple[str, str]:
        outs = [f"{name}.out", "", "", f"{name}.sum"]
        inputs = [residual, x, t.weight(name, (c.hidden,))]
        t.add("SkipSimplifiedLayerNormalization", inputs, outs, domain="com.microsoft", epsilon=c.eps)
        return outs[0], outs[3]

    norm = t.weight("l0.norm1", (c.hidden,))
    x = t.add("SimplifiedLayerNormalization", ["inputs_embeds", norm], "l0.norm1.out", axis=-1, epsilon=c.eps)
    residual = "inputs_embeds"
    for i in range(c.layers):
        qkv = adapted(x, f"l{i}.qkv", c.hidden, q_size + 2 * kv_size, 3)
        inputs += [_value(f"past_{i}_{s}", cache) for s in "kv"]
        outputs += [_value(f"present_{i}_{s}", cache) for s in "kv"]
        past = [f"past_{i}_k", f"past_{i}_v"]
        attention = t.add(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_length", cos, sin, "position_ids", "attention_bias"],
            [f"l{i}.attention", f"present_{i}_k", f"present_{i}_v"],
            domain="com.microsoft",
            num_heads=c.heads,
            kv_num_heads=c.kv_heads,
            do_rotary=1,
        )
        y = adapted(attention, f"l{i}.o", q_size, c.hidden, 1)
        x, residual = skip_norm(residual, y, f"l{i}.norm2")
        y = adapted(x, f"l{i}.gu", c.hidden, 2 * c.inter, 2)
        t.add("Split", [y], [f"l{i}.gate", f"l{i}.up"], axis=-1)
        y = t.add("Sigmoid", [f"l{i}.gate"], f"l{i}.sigmoid")
        y = t.add("Mul", [f"l{i}.gate", y], f"l{i}.silu")
        y = t.add("Mul", [y, f"l{i}.up"], f"l{i}.gated")
        y = adapted(y, f"l{i}.down", c.inter, c.hidden, 1)
        x, residual = skip_norm(residual, y, f"l{i + 1}.norm1" if i + 1 < c.layers else "norm")
    # Two thirds of a short prompt's head work is saved by asking only for the positions that are read.
    x = t.add("Gather", [x, "where"], "picked", axis=1)
    x = t.add("Reshape", [x, t.constant("rows", [-1, c.hidden])], "picked.rows")
    linear(x, "head", c.hidden, c.vocab, "logits")
    return t.model(inputs, outputs), t.layout


def _value(name: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)
