"""`calibrate`: one Triton launch on CUDA, the PyTorch reference elsewhere.

A `torch.library` operator (`imc_lite::calibrate`) with a fake implementation: torch.compile(fullgraph=True) and
torch.export see through it, and PyTorch picks the implementation by device.
"""

from __future__ import annotations

import torch
from imc_lite.kernels.calibrate import reference
from imc_lite.kernels.calibrate.maps import LowRankMaps
from imc_lite.kernels.checks import check_input, check_width, refuse_rows

from imc_lite.errors import ImcError


def calibrate(
    x: torch.Tensor, weights: torch.Tensor, maps: LowRankMaps, check: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry noisy tokens back to clean ones. The formula is that of `imc_lite.kernels.calibrate.reference`.

    Args:
        x: tokens [B, N, D], float32, float16 or bfloat16, any strides, any N.
        weights: float32 [B, K], of each map in each row, 0 for one that is not wanted. Few are: three or more positive
            ones in a row are slow on a GPU.
        maps: for tokens of this dtype, on the same device.
        check: raise on a NaN or Inf, which waits for the GPU.

    Returns:
        Tokens like x, and bad, bool [B, N]: the token held a NaN or Inf. Such a token comes back bit for bit, and so
        does a row without a positive weight.

    Raises:
        ImcError: a wrong shape, dtype or device; gradients are wanted; with `check`, a NaN or Inf.
    """
    check_input("x", x, 3, (maps.down.dtype,), maps.down.device)
    check_input("weights", weights, 2, (torch.float32,), maps.down.device)
    check_width("calibrate", x.shape[2], maps.down.shape[1])
    if tuple(weights.shape) != (x.shape[0], maps.down.shape[0]):
        raise ImcError(
            f"calibrate: weights are {list(weights.shape)}, wanted {[x.shape[0], maps.down.shape[0]]}: one for each "
            "batch row and map"
        )
    out, bad = torch.ops.imc_lite.calibrate(x, weights, *maps.tensors())
    if check and bad.any():
        refuse_rows("calibrate", bad.any(1))
    return out, bad


def only_wanted(x: torch.Tensor, weights: torch.Tensor, *maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The same arguments without the maps that no row wants."""
    wanted = (weights > 0).any(0).nonzero().flatten()
    return x, weights[:, wanted], *(t[wanted] for t in maps)


@torch.library.custom_op("imc_lite::calibrate", mutates_args=())
def _calibrate_op(
    x: torch.Tensor,
    weights: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    offset: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    # Compilers do not look into the operator, so which maps are left out may depend on the weights.
    return reference.calibrate(*only_wanted(x, weights, down, up, offset, shift))


@_calibrate_op.register_kernel("cuda")
def _calibrate_cuda(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from imc_lite.kernels.calibrate.triton import calibrate_triton

    with torch.cuda.device(x.device):
        return calibrate_triton(x, *rest)


@_calibrate_op.register_fake
def _calibrate_fake(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:2], dtype=torch.bool)
