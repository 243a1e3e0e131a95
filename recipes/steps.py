"""What has to be made again when the weights, the prototypes or the packaged pictures change: every step of the
table in recipes/README.md that reads them, and why the others do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from committed import ROOT

TABLE = ROOT / "recipes" / "README.md"
# What steps read, as patterns below the root; `DATA/` stands for the folder of the data sets. Of these the lists are
# looked at, not every picture.
FILES = {
    "weights": ("imc_lite/assets/default.safetensors",),
    "encoder": ("imc_lite/assets/default.safetensors",),  # its tensors alone: noise is named without the other ones
    "encoder graph": ("imc_lite/assets/encoder.onnx", "imc_lite/assets/preprocessing.json"),
    # Not shallow.onnx: it is a part of the encoder's, and gives the same.
    "graphs": (
        *(f"imc_lite/assets/{graph}.onnx" for graph in ("calibrate", "decoder", "encoder", "projector")),
        "imc_lite/assets/layout.json",
        "imc_lite/assets/preprocessing.json",
    ),
    "prototypes": ("imc_lite/assets/prototypes.safetensors",),
    "edition": ("imc_lite/assets/bench/**/*",),
    "confidence": ("imc_lite/assets/confidence.safetensors",),
    "words": ("imc_lite/assets/words.txt",),
    "first sets": ("DATA/vqa_rad/qa.json", "DATA/hannover_cxr/labels.json", "DATA/bccd/labels.json"),
    "all sets": ("DATA/*/qa.json", "DATA/*/labels.json"),
    "slake": ("DATA/slake_text/*.json",),
    "test pictures": ("tests/images/*.jpg",),
    "results": ("recipes/results/*.json", "recipes/results/*/results.json"),
}
TENSORS = {"encoder": "encoder."}  # of the files of a name, only tensors whose names begin so
MODEL = ("weights", "graphs")
ENCODER = ("encoder", "encoder graph")
IMC = (*MODEL, "prototypes", "words")


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Attributes:
        name: of the row.
        command: as the table has it.
        reads: names in `FILES`; the sources of the recipe are found by its imports.
        writes: files below the root.
        cores: that it keeps busy.
        alone: it measures time or memory, so nothing may run beside it.
    """

    name: str
    command: str
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()
    cores: int = 1
    alone: bool = False


def made(reads: tuple[str, ...], *writes: str, **how: int) -> dict[str, Any]:
    """What `Step` says of a row beside its command."""
    return {"reads": reads, "writes": writes, **how}


PLAN: dict[str, dict[str, Any]] = {
    "prototypes": made((*ENCODER, "all sets"), "imc_lite/assets/prototypes.safetensors", cores=2),
    "benchmark": made(
        (*IMC, "confidence", "edition"), "recipes/results/bench/results.json", "recipes/results/bench/table.md"
    ),
    "answers": made((*MODEL, "first sets"), "recipes/results/answers.json"),
    "findings": made((*MODEL, "all sets"), "recipes/results/findings.json"),
    "quantization": made((*MODEL, "first sets"), "recipes/results/quantization.json"),
    "noise named elsewhere": made((*ENCODER, "prototypes", "edition"), "recipes/results/portability.json"),
    # They ask without repair.
    "noise of other projects": made((*MODEL, "prototypes", "all sets"), "recipes/results/generality.json"),
    "noise of other projects by which nothing was chosen": made(
        (*MODEL, "prototypes", "all sets"), "recipes/results/unseen.json"
    ),
    "error left by the map": made((*ENCODER, "first sets"), "recipes/results/maps.json"),
    "a kind of picture the prototypes never saw": made((*MODEL, "first sets"), "recipes/results/foreign.json"),
    "every kind of picture left out": made((*IMC, "all sets"), "recipes/results/left_out.json", cores=2),
    "the README's picture": made((*IMC, "confidence", "test pictures"), "docs/noisy_scan.png"),
    "damaged questions": made((*MODEL, "words", "first sets", "slake"), "recipes/results/repair.json", alone=True),
    "noise named": made((*ENCODER, "prototypes", "first sets"), "recipes/results/perception.json", alone=True),
    "encoder in 8 bits": made((*MODEL, "prototypes", "edition"), "recipes/results/encoder.json", alone=True),
    "speed": made((*IMC, "edition", "test pictures"), "recipes/results/runtime.json", alone=True),
    # Its pictures are clean, so nothing is restored or mapped.
    "server": made((*MODEL, "words", "test pictures"), "recipes/results/server.json", alone=True),
    "archive": made((*IMC, "test pictures"), "recipes/results/archive.json", alone=True),
    "tables": made(("results",)),
}
APART = {
    "base weights": "are fetched",
    "pictures": "before training",
    "train the encoder": "makes the weights",
    "train": "makes the weights",
    "train on": "makes the weights",
    "train on again": "makes the weights",
    "set apart": "makes the weights",
    "ship": "makes the weights",
    "graph templates": "follow from the architecture",
    "word list": "reads no weights",
    "confidence": "reads the validation part of the pictures, which training leaves in runs/",
    "what the confidence is worth": "reads that part too",
    "bundle": "is built before the first step that needs it",
    "a Hugging Face model of real size": "random weights of its own",
    "Hugging Face models as bundles": "random weights of its own",
    "a vision transformer that has learnt something": "an hour of training, for itself alone",
    "pictures for its prototypes": "go with that transformer",
    "its prototypes": "go with that transformer",
    "its benchmark": "goes with that transformer",
    "it under noise of other projects": "goes with that transformer",
    "prototypes of wide towers": "made-up tokens",
    "restorers of libraries": "change with the restorers' version, not with weights",
    "strange questions": "nothing may fail, whatever the weights",
    "benchmark edition": "test pictures and questions alone",
    "it as other programs read it": "goes with that transformer",
    "calls through to another server": "needs a server beside it",
    "calls with pictures through to another server": "needs a server beside it",
    "benchmark in front of a server": "needs a server beside it",
    "benchmark in front of llama-server": "needs a server beside it",
    "DICOM files": "reads no weights",
    "kernels on a GPU": "reads no weights",
    "the tokenizer beside llama.cpp's": "reads no weights",
    "damaged pictures": "nothing may fail, whatever the weights",
    "strange requests": "nothing may fail, whatever the weights",
    "hours of requests": "nothing may fail, whatever the weights",
    "damaged rows, manifests and outputs": "reads no weights",
    "commands killed at random moments": "nothing may be lost, whatever the weights",
}


def commands(table: Path = TABLE) -> dict[str, str]:
    """The command of every row of the table."""
    return dict(re.findall(r"^\| ([^|]+?) \| `([^`]+)`", table.read_text(encoding="utf-8"), flags=re.M))


def steps() -> list[Step]:
    """All steps, in the order in which they are started where nothing else decides."""
    found = commands()
    return [Step(name, found[name], **facts) for name, facts in PLAN.items()]
