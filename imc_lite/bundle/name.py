"""The name of the default bundle, which says what it is built from."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from imc_lite.bundle import wheel as base
from imc_lite.bundle.contents import COPIED, GRAPHS, sha256
from imc_lite.errors import ImcError
from imc_lite.files import write_atomically

PARTS = ("default.safetensors", "layout.json", *COPIED, *(f"{g}.onnx" for g in GRAPHS))
KEPT = "default.json"


def bundle_name(cache: Path) -> str:
    """`default-` and a part of the SHA-256 of all that the bundle is built from.

    That is 47 MB of the package, too much to read at every start: where `keep_name` has kept the name in this cache, it
    holds until one of the package's files is written again, moved or replaced.
    """
    with _parts() as paths:
        kept = _kept(cache)
        if kept is not None and kept["of"] == _states(paths):
            return kept["name"]
        parts = [base.SHA256, *map(sha256, paths)]
    return f"default-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"


def keep_name(cache: Path, name: str) -> None:
    """Keep what `bundle_name` has found for the next start, where the cache can be written."""
    with _parts() as paths:
        now = {"of": _states(paths), "name": name}
    if _kept(cache) != now:
        text = json.dumps(now) + "\n"
        with suppress(ImcError):
            write_atomically(cache / KEPT, lambda file: file.write(text.encode()))


@contextmanager
def _parts() -> Iterator[list[Path]]:
    assets = resources.files("imc_lite.assets")
    with ExitStack() as stack:
        yield [stack.enter_context(resources.as_file(assets / part)) for part in PARTS]


def _states(paths: list[Path]) -> list[Any]:
    """What changes when a file is written or replaced; not even who sets a file's times can set when that was done."""
    found = [(path, os.stat(path)) for path in paths]
    return [base.SHA256, *([str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for p, s in found)]


def _kept(cache: Path) -> dict[str, Any] | None:
    """What `keep_name` has kept, if anything that can be read."""
    try:
        found = json.loads((cache / KEPT).read_bytes())
        whole = set(found) == {"of", "name"} and re.fullmatch(r"default-[0-9a-f]{16}", found["name"])
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return found if whole else None
