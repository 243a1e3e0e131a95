"""What the tests of the kernels share."""

import os

import pytest
import torch
from imc_lite.kernels.registry import error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NO_BFLOAT16 = pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter has no bfloat16 arithmetic")
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=NO_BFLOAT16)]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fresh memory holds NaN, so that an output the kernel forgets is seen."""
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like

    def poison(tensor):
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 1)

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: poison(new_empty(self, *a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))


def randn(*shape, seed=0, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(DEVICE, dtype)


def assert_near(found, wanted, tolerance):
    """Numbers within the tolerance, verdicts the same."""
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape
        if w.dtype == torch.bool:
            assert torch.equal(f, w)
        else:
            assert error(f, w) < tolerance
