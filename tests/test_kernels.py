"""Every kernel of the registry against its specification and float64: on a GPU where there is one, else interpreted."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

import imc_lite.kernels  # noqa: E402
from imc_lite.kernels import registry  # noqa: E402
from kernel_cases import DEVICE, NO_BFLOAT16, assert_near, poisoned  # noqa: E402, F401

KERNELS = registry.kernels()
EACH = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
CASES = [
    pytest.param(
        *(kernel, shape, dtype),
        id=f"{kernel.name}-{index}-{str(dtype).removeprefix('torch.')}",
        marks=[*[NO_BFLOAT16] * (dtype == torch.bfloat16), *[pytest.mark.slow] * (shape.tokens * shape.width > 2000)],
    )
    for kernel in KERNELS
    for index, shape in enumerate(kernel.odd_shapes)
    for dtype in kernel.tolerance
]


@pytest.mark.parametrize(("kernel", "shape", "dtype"), CASES)
def test_kernel_and_specification_agree_with_float64(kernel, shape, dtype):
    inputs = kernel.inputs(shape, dtype, DEVICE, 0)
    found, specified, exact = (f(*inputs) for f in (kernel.triton, kernel.reference, kernel.exact))
    for a, b in ((found, exact), (specified, exact), (found, specified)):
        assert_near(a, b, kernel.tolerance[dtype])


@pytest.mark.skipif(DEVICE != "cuda", reason="no GPU on this machine")
@EACH
@pytest.mark.parametrize("size", [(64, 196, 768), (8, 576, 1024), (1, 729, 1152)])
def test_every_row_of_a_whole_batch_is_right_each_time(kernel, size):
    """In sizes that take every way of sharing the work: what a race spoils is a few rows, others at each launch."""
    for dtype, tolerance in kernel.tolerance.items():
        inputs = kernel.inputs(registry.Shape(*size), dtype, DEVICE, 0)
        first, *others = (kernel.triton(*inputs) for _ in range(4))
        assert_near(first, kernel.exact(*inputs), tolerance)
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@EACH
def test_the_operator_is_the_specification_on_a_cpu(kernel):
    for shape in kernel.odd_shapes:
        inputs = kernel.inputs(shape, torch.float32, "cpu", 1)
        assert_near(kernel.operator(*inputs), kernel.reference(*inputs), 1e-6)


@EACH
def test_the_operator_passes_opcheck(kernel):
    shape = replace(kernel.odd_shapes[-1], width=8, tokens=5, rank=3, prototypes=4)
    torch.library.opcheck(kernel.operator.default, kernel.inputs(shape, torch.float32, DEVICE, 0))


@EACH
def test_inputs_of_any_stride_are_read_in_place(kernel):
    shape = replace(kernel.odd_shapes[-1], batch=2, width=24, tokens=7, rank=4, prototypes=6)
    x, *rest = kernel.inputs(shape, torch.float32, DEVICE, 0)
    wide = torch.cat((x, -x), -1)
    turned = x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    for given in (wide[..., ::2], wide[..., x.shape[-1] :], turned, x[:1].expand_as(x)):
        assert not given.is_contiguous()
        found = kernel.triton(given, *rest)
        assert all(f.is_contiguous() for f in found)
        assert_near(found, kernel.exact(given, *rest), kernel.tolerance[torch.float32])


def test_a_new_kernel_is_one_folder_and_one_line_in_the_registry(tmp_path, monkeypatch):
    (tmp_path / "double").mkdir()
    (tmp_path / "double" / "__init__.py").touch()
    (tmp_path / "double" / "spec.py").write_text(
        """
import torch, triton, triton.language as tl
from imc_lite.kernels.registry import Kernel, Shape

@triton.jit
def _double_kernel(x_ptr, y_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at, mask=at < N), mask=at < N)

def _launch(x):
    out = torch.empty_like(x)
    _double_kernel[(triton.cdiv(x.numel(), 16),)](x, out, x.numel(), BLOCK=16)
    return (out,)

def _inputs(shape, dtype, device, seed):
    return (torch.randn(shape.width, device=device).to(dtype),)

DOUBLE = Kernel(
    name="double", operator=None, reference=lambda x: (2 * x,), exact=lambda x: (2 * x.double(),), triton=_launch,
    launched="_double_kernel", inputs=_inputs, tolerance={torch.float16: 1e-3},
    odd_shapes=(Shape(batch=1, tokens=1, width=17),), compiled=(),
)
KERNELS = (DOUBLE,)
"""
    )
    monkeypatch.setattr(imc_lite.kernels, "__path__", [*imc_lite.kernels.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "FOLDERS", (*registry.FOLDERS, "double"))
    (found,) = (kernel for kernel in registry.kernels() if kernel not in KERNELS)
    (shape,) = found.odd_shapes
    test_kernel_and_specification_agree_with_float64(found, shape, torch.float16)


def test_no_folder_is_left_out_of_the_registry():
    root = Path(registry.__file__).parent
    assert set(registry.FOLDERS) == {spec.parent.name for spec in root.glob("*/spec.py")}
