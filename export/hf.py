"""A Hugging Face model written as a bundle that ONNX Runtime answers from, without torch, transformers or a network.

Every part is compared with the model it came from before the bundle appears under its name; the figures go into its
manifest.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from imc_lite.export.calibrate import without_traces
from imc_lite.export.describe import describe
from imc_lite.export.parity import Bounds, check
from imc_lite.export.trace import DecoderGraph, EmbedGraph, EncoderGraph, ProjectorGraph, Recorded, record

from imc_lite.bundle.manifest import write_manifest
from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError
from imc_lite.models.hf.load import load
from imc_lite.models.hf.model import HfMLLM
from imc_lite.pdc.prototypes import load_prototypes

OPSET = 18
BLOCK = 32  # weights that share a scale
ACCURACY = 4  # activations are rounded to 8 bits within a product, as in the default model
BITS = {"int8": 8, "int4": 4}
PRECISIONS = ("fp32", "fp16", *BITS)
SEED = 0


def export_checkpoint(
    name: str,
    destination: Path,
    *,
    precision: str = "fp32",
    prototypes: Path | None = None,
    encoder_only: bool = False,
    offline: bool = False,
    bounds: Bounds | None = None,
) -> Bundle:
    """Write a checkpoint as a bundle, all or nothing.

    Args:
        name: "organisation/name" on the Hugging Face hub, or a folder; loaded in float32 on the CPU.
        destination: a folder that is not there yet, in one that is.
        precision: of the language model's weights: "fp32", "fp16", "int8", "int4". Tower and projector stay float32:
            noise is read from them.
        prototypes: a file of `imc-lite prototypes build` for this tower, to go into the bundle.
        encoder_only: write the noise identifier alone.
        offline: never use the network.
        bounds: what may differ from torch; those of the precision by default.

    Raises:
        ImcError: no such model, one that cannot be exported, other prototypes, a part that differs from torch, or the
            destination is there already or cannot be written.
    """
    if destination.exists() or destination.is_symlink():
        raise ImcError(f"{destination} is there already; name a folder that is not")
    mllm = load(name, device="cpu", quant="none", offline=offline)
    if prototypes is not None:
        load_prototypes(prototypes, mllm.identity)
    try:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=destination.parent) as scratch:
            work = Path(scratch) / "bundle"
            work.mkdir()
            image = np.random.default_rng(SEED).integers(0, 256, (320, 240, 3), np.uint8)
            recorded = record(mllm, image)
            config = describe(mllm, recorded, image)
            _write_graphs(mllm, recorded, config, work, precision, encoder_only)
            (work / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
            if prototypes is not None:
                shutil.copyfile(prototypes, work / "prototypes.safetensors")
            facts = _facts(mllm, precision, encoder_only)
            write_manifest(work, facts)
            parity = check(mllm, Bundle(work), bounds or Bounds.of(precision), SEED)
            write_manifest(work, {**facts, "parity": parity})
            os.rename(work, destination)
    except OSError as error:
        raise ImcError(f"cannot write {destination} ({error.strerror}); choose another folder") from error
    return Bundle(destination)


def _facts(mllm: HfMLLM, precision: str, encoder_only: bool) -> dict[str, Any]:
    name = Path(mllm.id).name if Path(mllm.id).is_dir() else mllm.id  # no path of this machine on another
    return {
        "kind": "huggingface",
        "id": name,
        "version": mllm.version,
        "family": mllm.family.name,
        "precision": precision,
        "encoder_only": encoder_only,
        "identity": mllm.identity,
        "sources": [{"name": name, "licence": "as its checkpoint says"}],
    }


def _write_graphs(
    mllm: HfMLLM, recorded: Recorded, config: dict[str, Any], folder: Path, precision: str, encoder_only: bool
) -> None:
    model, decoder = mllm.model, config["decoder"]
    _trace(EncoderGraph(mllm, recorded), {"pixels": recorded.pixels}, ["tokens", "stats"], folder / "encoder.onnx")
    calibrate = resources.files("imc_lite.assets") / "calibrate.onnx"
    (folder / "calibrate.onnx").write_bytes(calibrate.read_bytes())
    if encoder_only:
        return
    with torch.inference_mode():
        tokens = mllm.look(recorded.given)[0].clone()
    _trace(ProjectorGraph(mllm, recorded), {"tokens": tokens}, ["embeds"], folder / "projector.onnx")
    embed = folder / "embed.onnx"
    _trace(EmbedGraph(model), {"ids": torch.tensor([1, 2])}, ["embeds"], embed, {"ids": {0: "S"}, "embeds": {0: "S"}})
    graph = DecoderGraph(model, decoder["masks"], decoder["deepstack"])
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
    places = torch.arange(past, past + steps).expand(1, steps)
    inputs = {
        "embeds": torch.randn(1, steps, shape["hidden"]),
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
            inputs[f"past_{i}_{s}"] = torch.randn(1, shape["kv_heads"], past, shape["head_dim"])
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
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch, _quiet(), torch.inference_mode(False):
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
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(str(path)), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=ACCURACY
    )
    with _quiet():
        quantizer.process()
    _save(quantizer.model.model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk to stdout and warn of what the parity check looks after."""
    # SmolVLM's check for padding pictures changes a flag in place; the exporter knows all but that one step.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    torch.onnx.register_custom_op_symbolic("aten::__ior_", lambda g, a, b: g.op("Or", a, b), OPSET)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.onnx.unregister_custom_op_symbolic("aten::__ior_", OPSET)
