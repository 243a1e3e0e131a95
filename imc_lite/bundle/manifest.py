"""manifest.json: what a bundle is, and the size and SHA-256 of every file in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from imc_lite.bundle.contents import FileFacts, read_inside, sha256
from imc_lite.errors import ImcError, shown

FORMAT = 1
NAME = "manifest.json"
LARGEST = 1 << 20  # bytes of a manifest; ours have two thousand
REQUIRED = ("config.json", "encoder.onnx")  # files without which no bundle runs
HUGGINGFACE = "huggingface"
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
DIGEST = re.compile(r"[0-9a-f]{64}")
LONGEST = 200  # characters of a text that is printed


class _Known(TypedDict):
    format: int
    id: str
    version: str
    files: dict[str, FileFacts]


class Manifest(_Known, total=False):
    """manifest.json, checked: `read_manifest` and `write_manifest` give and take nothing else.

    kind, family, precision, identity, parity: of an exported Hugging Face model.
    encoder: of an encoder in 8 bits, what it was made from.
    encoder_only: it names noise and answers nothing.
    """

    kind: str
    family: str
    precision: str
    encoder_only: bool
    identity: dict[str, str]
    encoder: dict[str, Any]
    sources: list[dict[str, str]]
    parity: dict[str, float]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle's folder.

    Raises:
        ImcError: there is none, it is of another format, or it is not what a manifest is; it is said where.
    """
    try:
        found = json.loads(read_inside(folder, NAME, LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise ImcError(f"{shown(folder)} is not a bundle (no readable {NAME}); build one: imc-lite pull") from error
    if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] != FORMAT:
        raise ImcError(
            f"bundle {shown(folder)} has format {shown(found['format'])}, this version reads {FORMAT}; build it again"
        )
    try:
        return checked(found)
    except ValueError as error:
        raise ImcError(f"{shown(folder)} is not a bundle ({NAME}: {error}); build it again: imc-lite pull") from error


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts, and size and SHA-256 of every file in the folder. To be called last.

    Raises:
        ImcError: these are no facts of a bundle; it is said where.
        OSError: it cannot be written.
    """
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != NAME
    }
    try:
        text = json.dumps(checked({"format": FORMAT, **facts, "files": files}), indent=1) + "\n"
    except ValueError as error:
        raise ImcError(f"this makes no bundle ({NAME}: {error}); give another model or name") from error
    with open(folder / NAME, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def checked(found: object) -> Manifest:
    """`found`, which is a manifest.

    Raises:
        ValueError: it is none; the text says why.
    """
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    for key in ("format", "id", "version", "files"):
        if key not in found:
            raise ValueError(f'it has no "{key}"')
    _require(type(found["format"]) is int and found["format"] == FORMAT, "format", str(FORMAT))
    for key in ("id", "version"):
        _require(_is_text(found[key]) and found[key], key, f"a text of at most {LONGEST} characters")
    for key in ("kind", "family", "precision"):
        _require(_is_text(found.get(key, "")), key, f"a text of at most {LONGEST} characters")
    _require(isinstance(found.get("encoder_only", False), bool), "encoder_only", "true or false")
    for key in ("identity", "encoder", "parity"):
        _require(isinstance(found.get(key, {}), dict), key, "an object")
    _require(all(map(_is_text, found.get("identity", {}).values())), "identity", "of texts")
    _require(_is_text(found.get("encoder", {}).get("of", "")), "encoder", "of texts")
    _require(all(map(_is_number, found.get("parity", {}).values())), "parity", "of numbers")
    sources = found.get("sources", [])
    _require(isinstance(sources, list) and all(map(_is_source, sources)), "sources", "a list of names and licences")
    exported = found.get("kind") == HUGGINGFACE
    if exported and not {"encoder", "preprocessing"} <= found.get("identity", {}).keys():
        raise ValueError("it does not say which encoder it is of")
    _check_files(found["files"], REQUIRED if exported else (*REQUIRED, "encoder.bin"))
    return cast(Manifest, found)


def _check_files(files: object, required: tuple[str, ...]) -> None:
    _require(isinstance(files, dict), "files", "an object")
    assert isinstance(files, dict)
    for name, facts in files.items():
        if not PLAIN.fullmatch(name) or name.casefold() == NAME:
            raise ValueError(f"{shown(name)!r} is no plain file name")
        if not isinstance(facts, dict):
            raise ValueError(f"{name} has no size and SHA-256")
        size, digest = facts.get("size"), facts.get("sha256")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
            raise ValueError(f"{name} has no size")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise ValueError(f"{name} has no SHA-256")
    if len({name.casefold() for name in files}) < len(files):
        raise ValueError("two files have names that some disks take for the same")
    for name in required:
        if name not in files:
            raise ValueError(f"it names no {name}")


def _require(right: object, key: str, what: str) -> None:
    if not right:
        raise ValueError(f'its "{key}" is not {what}')


def _is_text(found: object) -> bool:
    return isinstance(found, str) and len(found) <= LONGEST and found.isprintable()


def _is_number(found: object) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool)


def _is_source(found: object) -> bool:
    return isinstance(found, dict) and all(map(_is_text, found.values())) and {"name", "licence"} <= found.keys()
