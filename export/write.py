"""The graphs of a Hugging Face model as files: traced, and its language model's weights in fewer bits where wished."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import onnx
import torch
from imc_lite.export.calibrate import without_traces
from imc_lite.export.quiet import quiet
from imc_lite.export.trace import DecoderGraph, EmbedGraph, EncoderGraph, ProjectorGraph, Recorded

from imc_lite.models.hf.model import HfMLLM

OPSET = 18
BLOCK = 32  # weights that share a scale
ACCURACY = 4  # activations are rounded to 8 bits within a product, as in the default model
BITS = {"int8": 8, "int4": 4}
PRECISIONS = ("fp32", "fp16", *BITS)
SEED = 0


def write_graphs(
    mllm: HfMLLM, recorded: Recorded, config: dict[str, Any], folder: Path, precision: str, encoder_only: bool
) -> None:
    """Write the graphs, each with its weights beside it, and the tokenizer.

    Args:
        mllm: the model, in float32 on the CPU.
        recorded: a pass of its tower.
        config: of `imc_lite.export.describe.describe`.
        folder: to write into; its parent takes what is needed in between.
        precision: of the language model, one of `PRECISIONS`.
        encoder_only: leave the language model out.
    """
    decoder = config["decoder"]
    _trace(EncoderGraph(mllm, recorded), {"pixels": recorded.pixels}, ["tokens", "stats"], folder / "encoder.onnx")
    calibrate = resources.files("imc_lite.assets") / "calibrate.onnx"
    (folder / "calibrate.onnx").write_bytes(calibrate.read_bytes())
    if encoder_only:
        return
    with torch.inference_mode():
        tokens = mllm.look(recorded.given)[0].clone()
    _trace(ProjectorGraph(mllm, recorded), {"tokens": tokens}, ["embeds"], folder / "projector.onnx")
    embed = folder / "embed.onnx"
    _trace(EmbedGraph(mllm), {"ids": torch.tensor([1, 2])}, ["embeds"], embed, {"ids": {0: "S"}, "embeds": {0: "S"}})
    graph = DecoderGraph(mllm, decoder["masks"], decoder["deepstack"])
    inputs, outputs, free = _decoder_example(decoder)
    _trace(graph, inputs, outputs, folder / "decoder.onnx", free)
    if precision != "fp32":
        _halve(embed)
    if precision == "fp16":
        _halve(folder / "decoder.onnx")
    elif precision in BITS:
        _quantize(folder / "decoder.onnx", BITS[precision])
    backend = mllm.processor.tokenizer.backend_tokenizer
    copied = type(backend).from_str(backend.to_str())
    copied.no_truncation()
    copied.no_padding()
    copied.save(str(folder / "tokenizer.json"))


def _decoder_example(shape: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[str], dict[str, dict[int, str]]]:
    """Inputs to trace with, names of the outputs, and which of all their sizes are free."""
    steps, past = 5, 3
    random = torch.Generator().manual_seed(SEED)  # the caller's own is left alone
    places = torch.arange(past, past + steps).expand(1, steps)
    inputs = {
        "embeds": torch.randn(1, steps, shape["hidden"], generator=random),
        "positions": places if shape["axes"] == 1 else places.expand(shape["axes"], 1, steps).clone(),
        "where": torch.tensor([steps - 1, 0]),
    }
    free = {"embeds": {1: "S"}, "positions": {inputs["positions"].dim() - 1: "S"}, "where": {0: "n"}}
    for name in shape["masks"]:
        inputs[name] = torch.zeros(1, 1, steps, past + steps)
        free[name] = {2: "S", 3: "T"}
    if shape["deepstack"]:
        inputs["deepstack"] = torch.zeros(shape["deepstack"], steps, shape["hidden"])
        free["deepstack"] = {1: "S"}
    outputs = ["logits"]
    free["logits"] = {0: "n"}
    for i in range(shape["layers"]):
        for s in "kv":
            inputs[f"past_{i}_{s}"] = torch.randn(1, shape["kv_heads"], past, shape["head_dim"], generator=random)
            outputs.append(f"present_{i}_{s}")
            free |= {f"past_{i}_{s}": {2: "P"}, f"present_{i}_{s}": {2: "T"}}
    return inputs, outputs, free


def _trace(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: list[str],
    path: Path,
    free: dict[str, dict[int, str]] | None = None,
) -> None:
    """Export by tracing: torch.export refuses what several towers do with their grids."""
    with (
        tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch,
        quiet(),
        _or_in_place(),
        torch.inference_mode(False),
    ):
        raw = Path(scratch) / path.name
        with torch.no_grad():
            torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                str(raw),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes=free,
            )
        _save(without_traces(onnx.load(str(raw)), path.stem), path)


@contextlib.contextmanager
def _or_in_place() -> Iterator[None]:
    """Within, the exporter knows `a |= b`, with which SmolVLM looks for pictures that are padding."""
    torch.onnx.register_custom_op_symbolic("aten::__ior_", lambda g, a, b: g.op("Or", a, b), OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::__ior_", OPSET)


def _save(model: onnx.ModelProto, path: Path) -> None:
    """A graph and, beside it, its weights in one file; also those that were already there are written anew."""
    weights = path.with_suffix(".bin")
    path.unlink(missing_ok=True)
    weights.unlink(missing_ok=True)
    onnx.save(model, str(path), save_as_external_data=True, location=weights.name)
    if weights.exists():
        weights.chmod(path.stat().st_mode)  # onnx makes it private; another user may run this bundle


def _halve(path: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    _save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True, disable_shape_infer=True), path)


def _quantize(path: Path, bits: int) -> None:
    """Weights of the language model's products in blocks of 32 with a scale each."""
    with quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(path)), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=ACCURACY
        )
        quantizer.process()
    _save(quantizer.model.model, path)
