"""Facts about the machine and the installed packages, read without importing any of them."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

# Which 8-bit arithmetic a processor has decides speed, and how sums are rounded.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
# Of a container's control group, version 2 and version 1: its limit and what is used, in bytes, and of what is used,
# files that can be dropped.
GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def cpu() -> dict[str, Any]:
    """Model, usable cores, and which of `CPU_FLAGS` the processor has."""
    facts = read_facts("/proc/cpuinfo")
    flags = facts.get("flags", "").split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = facts.get("model name") or platform.processor() or platform.machine()
    return {"model": model, "cores": cores, **{flag: flag in flags for flag in CPU_FLAGS}}


def memory() -> dict[str, int]:
    """Total and available memory, as far as the system says; MiB."""
    facts = read_facts("/proc/meminfo")
    kib = {"total": facts.get("MemTotal"), "available": facts.get("MemAvailable")}
    return {name: int(value.split()[0]) // 1024 for name, value in kib.items() if value}


def free_memory() -> int | None:
    """Bytes that a new process may take: what is available, or less where a container's limit leaves less."""
    found = [memory()["available"] << 20] if "available" in memory() else []
    for group in GROUPS:
        left = _left_of_limit(Path("/sys/fs/cgroup"), *group)
        found += [] if left is None else [left]
    return min(found, default=None)


def free_disk(folder: Path) -> int | None:
    """Bytes free where `folder` is or would be made."""
    try:
        return shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.is_dir())).free
    except (OSError, StopIteration):
        return None


def gpus() -> list[str]:
    """Names of the NVIDIA cards that the driver knows."""
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [read_facts(str(card)).get("Model", "unnamed") for card in cards]


def version(package: str) -> str | None:
    """The installed version of a package, by its name on the package index."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def providers() -> list[str]:
    """Execution providers that the installed ONNX Runtime carries, told by its libraries.

    A provider that is carried may still not run: CUDA's needs a card, its driver and its libraries.
    """
    carried = set()
    for package in ("onnxruntime", "onnxruntime-gpu"):
        if version(package) is not None:
            carried.add("cpu")
            names = [file.stem for file in metadata.files(package) or ()]
            carried |= {n.rpartition("_providers_")[2] for n in names if "onnxruntime_providers_" in n}
    return sorted(carried - {"shared"})


def _left_of_limit(root: Path, limit: str, used: str, stat: str, droppable: str) -> int | None:
    """Bytes below a control group's limit; None where there is no such group or limit."""
    try:
        most, now = int((root / limit).read_text()), int((root / used).read_text())
        files = dict(line.split() for line in (root / stat).read_text().splitlines())
        return max(most - now + int(files.get(droppable, 0)), 0)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def read_facts(file: str) -> dict[str, str]:
    """The first value of each `name: value` line; nothing where there is no such file."""
    facts: dict[str, str] = {}
    try:
        for line in Path(file).read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return facts
