"""How the calibrating kernel is tested, compiled ahead and timed."""

from __future__ import annotations

import torch
from imc_lite.kernels.calibrate import LowRankMaps, reference
from imc_lite.kernels.calibrate.op import only_wanted
from imc_lite.kernels.calibrate.triton import calibrate_triton
from imc_lite.kernels.registry import Kernel, Shape


def _inputs(shape: Shape, dtype: torch.dtype, device: str, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(device).manual_seed(seed)

    def randn(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator, device=device)

    maps = LowRankMaps.build(
        noisy_mean=randn(shape.prototypes, shape.width),
        clean_mean=randn(shape.prototypes, shape.width),
        down=randn(shape.prototypes, shape.width, shape.rank) * shape.width**-0.5,
        up=randn(shape.prototypes, shape.rank, shape.width) * shape.rank**-0.5,
        dtype=dtype,
        device=device,
    )
    weights = torch.zeros(shape.batch, shape.prototypes)
    for row in range(shape.batch):
        for j in range(shape.active):
            weights[row, (shape.apart * row + 2 * j) % shape.prototypes] = 0.3 + 0.5 * j
    return randn(shape.batch, shape.tokens, shape.width).to(dtype), weights.to(device), *maps.tensors()


def _exact(x: torch.Tensor, weights: torch.Tensor, *maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nothing rounded; only finite tokens."""
    out = x.double()
    for weight, down, up, offset, shift in zip(weights.T.double(), *(t.double() for t in maps), strict=True):
        if (weight > 0).any():
            out = out + weight[:, None, None] * ((x.double() @ down - offset) @ up + shift)
    return out, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)


def _moved(x: torch.Tensor, weights: torch.Tensor, down: torch.Tensor, up: torch.Tensor, *_: torch.Tensor) -> int:
    """Every token in and out, and the factors of the maps that are wanted once."""
    wanted = int((weights > 0).any(0).sum())
    return 2 * x.nbytes + wanted * (down[0].nbytes + up[0].nbytes)


# Batch, tokens, width, rank, maps; each with one, two and three active ones a row (three take another loop).
_ODD = ((1, 1, 1, 1, 3), (2, 17, 129, 9, 5), (1, 33, 161, 64, 36), (1, 5, 70, 128, 4))
CALIBRATE = Kernel(
    name="calibrate",
    operator=torch.ops.imc_lite.calibrate,
    reference=reference.calibrate,
    exact=_exact,
    triton=calibrate_triton,
    launched="_calibrate_kernel",
    inputs=_inputs,
    tolerance={torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3},
    odd_shapes=(
        Shape(batch=1, tokens=33, width=257, rank=64, prototypes=36),
        *(
            Shape(batch, tokens, width, rank=rank, prototypes=count, active=active, apart=3)
            for batch, tokens, width, rank, count in _ODD
            for active in (1, 2, 3)
        ),
    ),
    compiled=(
        (torch.float16, Shape(batch=8, tokens=576, width=1024)),
        (torch.bfloat16, Shape(batch=1, tokens=729, width=1152)),
        # What Qwen3-VL's merger and its three deepstack mergers take, side by side.
        (torch.bfloat16, Shape(batch=1, tokens=784, width=4 * 1152)),
    ),
    moved=_moved,
    for_eager=only_wanted,
)
KERNELS = (CALIBRATE,)
