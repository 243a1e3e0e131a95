"""Every kernel of the package, for whatever tests, compiles or times them all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensors = tuple[torch.Tensor, ...]

FOLDERS = ("match", "calibrate")


@dataclass(frozen=True)
class Shape:
    """Sizes of one problem; a kernel uses those that it has.

    Attributes:
        batch, layers, tokens, width: of the hidden states, [batch, tokens, width] or [batch, layers, tokens, width].
        prototypes, rank: of the fitted constants.
        active: prototypes with a positive weight in each row.
        apart: by how many the active prototypes of one row are moved against the row before; 0: all rows want the same.
    """

    batch: int
    tokens: int
    width: int
    layers: int = 4
    prototypes: int = 36
    rank: int = 64
    active: int = 1
    apart: int = 0


@dataclass(frozen=True)
class Kernel:
    """One operator, its specification, its Triton kernel, and how to test and time them.

    `reference`, `exact`, `triton` and `operator` take the same tensors, which `inputs` makes, and return tuples of
    tensors in the same order.

    Attributes:
        name: of the operator, below `torch.ops.imc_lite`.
        operator: the operator itself; PyTorch picks its implementation by device.
        reference: the specification.
        exact: the same formula in float64 throughout.
        triton: launches the kernel.
        launched: name of the `triton.jit` function that it launches, in the module of `triton`.
        inputs: (shape, dtype of the tokens, device, seed) -> random tensors.
        tolerance: greatest `error` of an output against `exact`, by dtype of the tokens.
        odd_shapes: tested; sizes of one, primes, and one more than a block.
        compiled: dtype and shape that must compile for sm_90 without spilling registers.
        moved: bytes that one call must read and write at least, for the benchmark; None: not timed.
        for_eager: the inputs without what plain PyTorch can leave out, so that it is not timed on needless work.
    """

    name: str
    operator: Any
    reference: Callable[..., Tensors]
    exact: Callable[..., Tensors]
    triton: Callable[..., Tensors]
    launched: str
    inputs: Callable[[Shape, torch.dtype, str, int], Tensors]
    tolerance: Mapping[torch.dtype, float]
    odd_shapes: tuple[Shape, ...]
    compiled: tuple[tuple[torch.dtype, Shape], ...]
    moved: Callable[..., int] | None = None
    for_eager: Callable[..., Tensors] = lambda *inputs: inputs


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square error of the worst row (the last axis), relative to the root mean square of the whole.

    Of the whole, a few spoilt rows of a large batch would be lost in the mean.
    """
    found, exact = found.double(), exact.double()
    return float(((found - exact).square().mean(-1).max() / exact.square().mean().clamp_min(1e-30)).sqrt())


def kernels() -> list[Kernel]:
    """All of them; imports torch and Triton.

    Set TRITON_INTERPRET=1 first where there is no GPU.
    """
    specs = [importlib.import_module(f"imc_lite.kernels.{folder}.spec") for folder in FOLDERS]
    return [kernel for spec in specs for kernel in spec.KERNELS]
