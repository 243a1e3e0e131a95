"""Speed by commit: one line of recipes/results/history.jsonl for each commit, kind of processor and measurement.

    {"what", "commit", "date", "processor", "more": {name: figure}, "less": {name: figure}}

Of `more` a larger figure is better, of `less` a smaller one.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from committed import ROOT

from imc_lite.files import write_atomically

TOLERATED = 0.1  # share that a figure may be worse by


def processor_name() -> str:
    """Of the model."""
    found = re.search(r"model name\s*: (.*)", _info())
    return found[1].strip() if found else platform.processor() or platform.machine()


def processor() -> str:
    """Model name, whether it has VNNI, and how many cores there are: kinds that are kept apart."""
    return f"{processor_name()}{' with VNNI' if 'vnni' in _info() else ''}, {os.cpu_count()} cores"


def _info() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short=9", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def append(file: Path, what: str, more: Mapping[str, float], less: Mapping[str, float]) -> list[str]:
    """Add the figures of this commit, in place of those that it had; in words, which are a tenth worse than those of
    the last other commit on the same kind of processor."""
    mine = {"what": what, "commit": commit(), "date": datetime.date.today().isoformat(), "processor": processor()}
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    alike = [line for line in lines if all(line[key] == mine[key] for key in ("what", "processor"))]
    before = [line for line in alike if line["commit"] != mine["commit"]]
    kept = [line for line in lines if line not in alike or line in before]
    kept.append(mine | {"more": dict(more), "less": dict(less)})
    data = "".join(json.dumps(line) + "\n" for line in kept).encode()
    write_atomically(file, lambda out: out.write(data))
    return worse(before[-1], kept[-1]) if before else []


def worse(before: Mapping, now: Mapping) -> list[str]:
    """In words, the figures of two lines that are more than a tenth worse."""
    found = []
    for name in before["more"].keys() & now["more"].keys():
        if now["more"][name] < (1 - TOLERATED) * before["more"][name]:
            found.append(name)
    for name in before["less"].keys() & now["less"].keys():
        if now["less"][name] > (1 + TOLERATED) * before["less"][name]:
            found.append(name)

    def figures(name: str) -> str:
        side = "more" if name in now["more"] else "less"
        return f"{before[side][name]:g} at {before['commit']}, {now[side][name]:g} now"

    return [f"{name}: {figures(name)}" for name in sorted(found)]
