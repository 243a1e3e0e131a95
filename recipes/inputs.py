"""Fingerprints of what a step reads, and the record of what every committed result was made from.

The record holds, for each step: SHA-256 of every input and output, seconds, machine and date. Of the recipes' own
sources comments, docstrings and layout do not count. The package's code is not looked at: tests hold what it computes.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import safe_open
from steps import FILES, TENSORS, Step

from imc_lite.files import write_atomically

RECORD = "recipes/results/all.json"


def inputs_of(step: Step, root: Path, data: Path) -> dict[str, str]:
    """SHA-256 of everything that a step reads, by name: those of `FILES`, "command", and its sources."""
    found = {"command": sha256(step.command.encode()).hexdigest()}
    for name in step.reads:
        files = files_of(name, root, data)
        if not files and FILES[name][0].startswith("DATA/"):
            raise SystemExit(f"all: {data} holds no lists of {name}, which step {step.name} reads; check --data")
        found[name] = _digest_of_tensors(files, TENSORS[name]) if name in TENSORS else _digest(files)
    for path in sources(step.command, root):
        text = ast.unparse(_without_docstrings(ast.parse(path.read_bytes())))
        found[path.relative_to(root).as_posix()] = sha256(text.encode()).hexdigest()
    return found


def files_of(name: str, root: Path, data: Path) -> list[Path]:
    """The files of a name in `FILES`, in a fixed order."""
    found = []
    for pattern in FILES[name]:
        below, rest = (data, pattern[5:]) if pattern.startswith("DATA/") else (root, pattern)
        found += [p for p in sorted(below.glob(rest)) if p.is_file() and p != root / RECORD]
    return found


def sources(command: str, root: Path) -> list[Path]:
    """The recipe that a command runs, and the recipes that it imports, directly or through others."""
    folder = root / "recipes"
    left = [root / word for word in command.split() if word.startswith("recipes/") and word.endswith(".py")]
    found: set[Path] = set()
    while left:
        path = left.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        left += [folder / f"{name}.py" for name in _imports(ast.parse(path.read_bytes()))]
    return sorted(found)


def outputs_of(step: Step, root: Path) -> dict[str, str]:
    """SHA-256 of what a step has written; what is missing is left out."""
    return {name: _digest([root / name]) for name in step.writes if (root / name).is_file()}


def why_stale(step: Step, entry: Mapping[str, Any] | None, inputs: Mapping[str, str], root: Path) -> list[str]:
    """In words, why a step's result is not current; empty where it is.

    Args:
        step: the step.
        entry: of the record; None where it was never run.
        inputs: as they are now.
        root: of the repository.
    """
    if entry is None:
        return ["never run"]
    before = entry["inputs"]
    reasons = [f"{name} changed" for name, digest in inputs.items() if name in before and before[name] != digest]
    reasons += [f"{name} is new" for name in inputs.keys() - before.keys()]
    reasons += [f"{name} is gone" for name in before.keys() - inputs.keys()]
    now = outputs_of(step, root)
    for name in step.writes:
        if name not in now:
            reasons.append(f"{name} is missing")
        elif entry["outputs"].get(name) != now[name]:
            reasons.append(f"{name} is not the one that was made")
    return reasons


def read_record(root: Path) -> dict[str, dict[str, Any]]:
    """The record, by step; empty where there is none."""
    path = root / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_record(root: Path, record: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the record in place, all or nothing."""
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    write_atomically(root / RECORD, lambda file: file.write(text.encode()))


def _digest(paths: list[Path]) -> str:
    """Of the content of files and their names, whatever folder they are in."""
    digest = sha256()
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name}".encode() + sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest_of_tensors(paths: list[Path], beginning: str) -> str:
    """Of the tensors whose names begin so."""
    digest = sha256()
    for path in paths:
        with safe_open(path, "numpy") as file:
            for name in sorted(n for n in file.keys() if n.startswith(beginning)):  # noqa: SIM118
                tensor = file.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                node.body = node.body[1:]
    return tree
