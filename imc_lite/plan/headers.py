"""The tensors of a checkpoint by name, shape and type; no weight is read."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imc_lite.errors import ImcError, shown

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
LARGEST_JSON = 1 << 26  # bytes of a configuration or index
# Bytes of an element, by the name that safetensors has for its type.
ELEMENT = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True)
class Tensor:
    """Shape and bytes of an element; types of one byte or less count as one."""

    shape: tuple[int, ...]
    element: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def stored(self) -> int:
        """Bytes in the file."""
        return self.count * self.element


@dataclass(frozen=True)
class Checkpoint:
    """What config.json says, every tensor by name, and bytes of tokenizer.json (0 where it is not at hand)."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: int = 0


def read_checkpoint(model: str, *, offline: bool = False) -> Checkpoint:
    """A checkpoint's folder, or organisation/name: from the hub's cache, or else from the hub, headers alone.

    Raises:
        ImcError: it is not there, has no safetensors, or the hub gives no answer.
    """
    if Path(model).is_dir():
        return _read_folder(Path(model))
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ImcError("huggingface_hub is not installed; pip install huggingface_hub") from error
    try:
        cached = hub.try_to_load_from_cache(model, CONFIG)
    except ValueError as error:
        raise ImcError(f"{shown(model)} is no name on the hub; give organisation/name, or a folder") from error
    if isinstance(cached, str):
        folder = Path(cached).parent
        if offline or (folder / SINGLE).exists() or _shards_are_in(folder):
            return _read_folder(folder)
    if offline:
        raise ImcError(f"{shown(model)} is not in the hub's cache; leave --offline out to ask the hub for headers")
    print(f"imc-lite: asking the hub for the configuration and headers of {shown(model)}, no weights", file=sys.stderr)
    try:
        config = json.loads(Path(hub.hf_hub_download(model, CONFIG)).read_text(encoding="utf-8"))
        found = hub.get_safetensors_metadata(model)
    except Exception as error:  # hub and network have exceptions of their own
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ImcError(
            f"the hub says nothing of {shown(model)} ({shown(why)}); check the name, log in, or give a folder"
        ) from error
    tensors = {
        name: Tensor(tuple(tensor.shape), ELEMENT.get(tensor.dtype, 1))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    return Checkpoint(config, tensors)


def _read_folder(folder: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    config, tensors = _json(folder / CONFIG), {}
    for file in _shards(folder):
        try:
            with safe_open(folder / file, "np") as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    part = opened.get_slice(name)
                    tensors[name] = Tensor(tuple(part.get_shape()), ELEMENT.get(str(part.get_dtype()), 1))
        except (OSError, SafetensorError) as error:
            raise ImcError(
                f"{shown(folder / file)} is missing or no safetensors; fetch the checkpoint again"
            ) from error
    tokenizer = folder / "tokenizer.json"
    return Checkpoint(config, tensors, tokenizer.stat().st_size if tokenizer.is_file() else 0)


def _shards(folder: Path) -> list[str]:
    """The files that hold weights, as transformers finds them."""
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise ImcError(f"{shown(folder)} holds no {SINGLE}; only safetensors are read")
        return [SINGLE]
    places = _json(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise ImcError(f"{shown(folder / INDEX)} names no files of its folder; fetch the checkpoint again")
    return names


def _shards_are_in(folder: Path) -> bool:
    return (folder / INDEX).is_file() and all((folder / name).exists() for name in _shards(folder))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= LARGEST_JSON else None
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ImcError(f"{shown(file)} is missing or no JSON object; fetch the checkpoint again")
    return found
