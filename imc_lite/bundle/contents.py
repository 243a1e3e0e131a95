"""The files of a bundle's folder, looked at before they are believed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, TypedDict

from imc_lite.errors import ImcError, shown

# Of the default model.
GRAPHS = ("encoder", "projector", "decoder")
COPIED = ("calibrate.onnx", "prototypes.safetensors", "confidence.safetensors")  # nothing to fill in
OF_WEIGHTS = ("confidence.safetensors",)  # of these, what belongs to the packaged weights alone
REMEDY = "build it again: imc-lite pull, or imc-lite export"
LARGEST_JSON = 1 << 24  # bytes


class FileFacts(TypedDict):
    """Size in bytes and SHA-256 in hexadecimal of one file."""

    size: int
    sha256: str


def check_file(folder: Path, name: str, facts: FileFacts) -> Path:
    """The path of a file that is as its manifest says.

    Raises:
        ImcError: it is missing, no file of this folder, or was changed; it is named.
    """
    shown_path = shown(folder / name)
    try:
        path = inside(folder, name)
        whole = path.stat().st_size == facts["size"] and sha256(path) == facts["sha256"]
    except FileNotFoundError as error:
        raise ImcError(f"bundle file {shown_path} is missing; {REMEDY}") from error
    except OSError as error:
        raise ImcError(f"bundle file {shown_path} cannot be read ({error.strerror or error}); {REMEDY}") from error
    if not whole:
        raise ImcError(f"bundle file {shown_path} was changed since it was built; {REMEDY}")
    return folder / name


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a bundle.

    Raises:
        ImcError: it holds something else.
    """
    try:
        found = json.loads(read_inside(folder, name, LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ImcError(f"bundle file {shown(folder / name)} is no JSON object that can be read; {REMEDY}")
    return found


def inside(folder: Path, name: str) -> Path:
    """The path of a regular file in a folder; a link may lead to another file in there.

    Raises:
        OSError: it is missing, a folder or a pipe, or a link that leads out of the folder.
    """
    path = Path(os.path.realpath(folder / name))
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("no file")
    if path.parent != Path(os.path.realpath(folder)):
        raise OSError("a link out of the folder")
    return path


def read_inside(folder: Path, name: str, largest: int) -> str:
    """The text of a file in a folder, of at most `largest` bytes.

    Raises:
        OSError: as for `inside`.
        ValueError: it is larger, or not UTF-8.
    """
    path = inside(folder, name)
    if path.stat().st_size > largest:
        raise ValueError("too large")
    return path.read_text(encoding="utf-8")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
