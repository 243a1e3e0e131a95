"""From the tensors of a checkpoint, or the files of a bundle, to bytes on disk and in memory.

docs/models.md has the formulas, and tests hold them against what is written and measured.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path

from imc_lite.bundle.contents import COPIED
from imc_lite.bundle.manifest import read_manifest
from imc_lite.bundle.store import default_bundle_folder
from imc_lite.errors import ImcError
from imc_lite.models.hf.families import Family, family_of
from imc_lite.plan.headers import Checkpoint, Tensor, read_checkpoint

PRECISIONS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
BLOCK = 32  # weights that share a scale of four bytes
GRAPHS = 4 << 20  # bytes of the graphs themselves, config.json and manifest.json, at most
# What is in memory beside weights: interpreter, libraries, a picture.
ONNX_RUNTIME, TORCH = 256 << 20, 1 << 30


@dataclass(frozen=True)
class Way:
    """One way to run a model.

    Attributes:
        command: what asks for it.
        device: "cpu" or "cuda".
        disk: bytes that are written or fetched.
        memory: bytes of main memory at the peak of opening it, at most.
        device_memory: bytes of the GPU's memory for the weights; None on the CPU.
    """

    command: str
    device: str
    disk: int
    memory: int
    device_memory: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a model takes.

    Attributes:
        kind: "checkpoint" or "bundle".
        family: of a checkpoint or its bundle; None for the default model's.
        parameters: of vision tower, projector and language model; None where a bundle's manifest does not tell.
        ways: to run it.
    """

    kind: str
    family: str | None
    parameters: dict[str, int | None]
    ways: tuple[Way, ...]


def plan_checkpoint(model: str, *, offline: bool = False) -> Plan:
    """For a checkpoint's folder or organisation/name; see `imc_lite.plan.headers.read_checkpoint`.

    Raises:
        ImcError: it cannot be read, is of no supported family, or is quantized already.
    """
    found = read_checkpoint(model, offline=offline)
    family = family_of(str(found.config.get("model_type")))
    if found.config.get("quantization_config") is not None:
        raise ImcError("this checkpoint is quantized already and runs as it is; give the one that it was made from")
    parts = split(found, family)
    count = {part: sum(t.count for t in tensors.values()) for part, tensors in parts.items()}
    total = sum(count.values())
    stored = sum(t.stored for t in found.tensors.values())
    weights = {name: exported_weights(found, family, name) for name in PRECISIONS}
    exported = [
        Way(f"export --precision {name}", "cpu", size + found.tokenizer + GRAPHS, _opened_bundle(weights, name))
        for name, size in weights.items()
    ]
    whole = count["vision tower"] + count["projector"]
    head = sum(t.count for t in (_head(parts["language model"]) or {}).values())
    table = sum(t.count for t in _tables(parts["language model"]).values())
    kept = whole + max(head, table) + (table if head else 0)  # what is never in fewer bits: also the output layer
    rest = total - kept
    loaded = TORCH + 4 * total + stored
    ways = (
        *exported,
        Way("--device cpu --quant none", "cpu", stored, loaded),
        Way("--device cpu --quant int8", "cpu", stored, loaded + total),
        Way("--device cuda --quant none", "cuda", stored, TORCH + stored, 2 * total),
        # 4 bits a weight, and 8 bits and a little for every 64: https://arxiv.org/abs/2305.14314
        Way("--device cuda --quant int4", "cuda", stored, TORCH + stored, 2 * kept + math.ceil(rest * 0.52)),
    )
    return Plan("checkpoint", family.name, {**count}, ways)


def plan_bundle(model: str) -> Plan:
    """For `default` or a bundle's folder, from its manifest alone; the default model may not be built yet.

    Parameters are told by the sizes of files, in which weights stand on borders of pages: up to 2 % too many.

    Raises:
        ImcError: it has no readable manifest.
    """
    folder = default_bundle_folder() if model == "default" else Path(model)
    family, precision, eight = None, "", False
    if model == "default" and not folder.is_dir():
        sizes = _default_sizes()
    else:
        manifest = read_manifest(folder)
        sizes = {name: file["size"] for name, file in manifest["files"].items()}
        family, precision = manifest.get("family"), manifest.get("precision", "")
        eight = manifest.get("encoder", {}).get("precision") == "int8"
    weights = {name.removesuffix(".bin"): size for name, size in sizes.items() if name.endswith(".bin")}
    language = weights.get("decoder", 0) + weights.get("embed", 0)
    element = {"fp32": 4, "fp16": 2}.get(precision)
    parameters = {
        "vision tower": None if eight else weights.get("encoder", 0) // 4 or None,
        "projector": weights.get("projector", 0) // 4 or None,
        "language model": language // element if element and language else None,
    }
    # In half precision ONNX Runtime turns weights into float32 on the CPU, and packs those.
    grown = 5 if precision == "fp16" else 2
    memory = ONNX_RUNTIME + 2 * (sum(weights.values()) - language) + grown * language
    way = Way("--model, as it is", "cpu", sum(sizes.values()), memory)
    return Plan("bundle", family, parameters, (way,))


def split(found: Checkpoint, family: Family) -> dict[str, dict[str, Tensor]]:
    """The tensors of vision tower, projector and language model, told by the family's names for the first two."""
    tower = family.tower.rpartition(".")[2]
    projectors = {path.rpartition(".")[2] for path in family.projectors}
    parts: dict[str, dict[str, Tensor]] = {"vision tower": {}, "projector": {}, "language model": {}}
    for name, tensor in found.tensors.items():
        held = set(name.split("."))
        part = "projector" if held & projectors else "vision tower" if tower in held else "language model"
        parts[part][name] = tensor
    return parts


def exported_weights(found: Checkpoint, family: Family, precision: str) -> int:
    """Bytes of all weights that `imc-lite export --precision` writes.

    Tower and projector are float32, the table of embeddings float32 or float16, and the language model's products
    have their precision, with a scale of four bytes for 32 weights below 16 bits.
    """
    bits = PRECISIONS[precision]
    parts = split(found, family)
    language = parts["language model"]
    tables = _tables(language)
    products = {name: t for name, t in language.items() if name not in tables}
    if _head(language) is None:  # the output layer is the table once more
        products |= {f"{name}.head": t for name, t in tables.items()}
    size = 4 * sum(t.count for name, t in parts["vision tower"].items() if _reached(name, found, family))
    size += 4 * sum(t.count for t in parts["projector"].values())
    size += (4 if bits == 32 else 2) * sum(t.count for t in tables.values())
    for tensor in products.values():
        if bits < 16 and len(tensor.shape) == 2:
            blocks = tensor.shape[0] * math.ceil(tensor.shape[1] / BLOCK)
            size += blocks * (BLOCK * bits // 8 + 4)
        else:
            size += tensor.count * (2 if bits == 16 else 4)
    return size


def _reached(name: str, found: Checkpoint, family: Family) -> bool:
    """Whether a tensor of the tower is before the hidden state that the projector takes; LLaVA names an early one."""
    layer = found.config.get("vision_feature_layer")
    vision = found.config.get("vision_config")
    depth = vision.get("num_hidden_layers") if isinstance(vision, dict) else None
    if not isinstance(layer, int) or not isinstance(depth, int) or layer >= -1:
        return True
    lists = {path.rpartition(".")[2] for path in family.blocks}
    held = name.split(".")
    if "post_layernorm" in held:
        return False
    block = next((int(b) for a, b in pairwise(held) if a in lists and b.isdigit()), 0)
    return block < depth + layer + 1


def _opened_bundle(weights: dict[str, int], precision: str) -> int:
    """The peak of opening all sessions: weights, and once more while ONNX Runtime packs them for its products.

    In half precision it turns them into float32 on the CPU first.
    """
    size = weights[precision]
    return ONNX_RUNTIME + (size + 2 * weights["fp32"] if precision == "fp16" else 2 * size)


def _tables(language: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in language.items() if name.endswith("embed_tokens.weight")}


def _head(language: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The output layer, None where it is the table of embeddings."""
    return {name: t for name, t in language.items() if "lm_head" in name.split(".")} or None


def _default_sizes() -> dict[str, int]:
    """Weights of the default model as it will be built, from the packaged layout."""
    assets = resources.files("imc_lite.assets")
    layout = json.loads(assets.joinpath("layout.json").read_text(encoding="utf-8"))
    bytes_of = {"float32": 4, "uint8": 1, "float16": 2}
    return {
        f"{graph}.bin": sum(math.prod(e["shape"]) * bytes_of[e["dtype"]] for e in entries)
        for graph, entries in layout.items()
    } | {name: len(assets.joinpath(name).read_bytes()) for name in COPIED}
