"""Matching and calibration of tokens: one Triton launch each on CUDA, the PyTorch reference elsewhere.

Both are `torch.library` operators (`imc_lite::match`, `imc_lite::match_stats`, `imc_lite::calibrate`) with fakes:
torch.compile(fullgraph=True) and torch.export see through them, and PyTorch picks the implementation by device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from imc_lite.kernels import reference
from imc_lite.kernels.banks import MAX_WIDTH, CalibrationBank, MatchBank

from imc_lite.errors import ImcError

TOKEN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Match:
    """What `match` found in each batch row.

    logits, probabilities float32 [B, K]; novelty float32 [B], mean squared residual in units of the clean
    residual variance; bad bool [B]: the row held a NaN or Inf (or statistics beyond float32) and has logits 0,
    probabilities 0 and the largest float32 as novelty.
    """

    logits: torch.Tensor
    probabilities: torch.Tensor
    novelty: torch.Tensor
    bad: torch.Tensor


def match(hidden: torch.Tensor, bank: MatchBank, check: bool = False) -> Match:
    """Which noise do these tokens carry? Formulas: `reference.pool`, `reference.match_stats`.

    hidden: [B, L, N, D], the hidden states of L early layers, float32, float16 or bfloat16, any strides, D up
    to 4096; `bank` is made for S = 2 L D statistics and lies on the same device.
    With `check` a NaN or Inf raises ImcError; that waits for the GPU, so the default is to report it in `bad`.
    Raises ImcError on a wrong shape, dtype or device, or when gradients are wanted.
    """
    _check_input("hidden", hidden, 4, TOKEN_DTYPES, bank.mean)
    if hidden.shape[3] > MAX_WIDTH:
        raise ImcError(f"match: tokens of width {hidden.shape[3]} are wider than {MAX_WIDTH}; match narrower layers")
    _check_size("match", 2 * hidden.shape[1] * hidden.shape[3], bank.mean.shape[0])
    return _checked(Match(*torch.ops.imc_lite.match(hidden, *tensors(bank))), check)


def match_stats(stats: torch.Tensor, bank: MatchBank, check: bool = False) -> Match:
    """As `match`, for float32 statistics [B, S] that the encoder pooled itself."""
    _check_input("stats", stats, 2, (torch.float32,), bank.mean)
    _check_size("match", stats.shape[1], bank.mean.shape[0])
    return _checked(Match(*torch.ops.imc_lite.match_stats(stats, *tensors(bank))), check)


def calibrate(
    x: torch.Tensor, weights: torch.Tensor, bank: CalibrationBank, check: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry noisy tokens back to clean ones, (x', bad). Formula: `reference.calibrate`.

    x: [B, N, D], float32, float16 or bfloat16, any strides, any N; weights: float32 [B, K], 0 for a prototype
    that is not wanted (few are: three or more positive ones on a row are slow on a GPU); `bank` is made for the
    dtype of x and lies on the same device.
    A row without a positive weight comes back bit for bit. So does a token with a NaN or Inf, which is reported
    in bad, bool [B, N]; with `check` it raises ImcError instead, and waits for the GPU to know.
    Raises ImcError on a wrong shape, dtype or device, or when gradients are wanted.
    """
    _check_input("x", x, 3, (bank.down.dtype,), bank.down)
    _check_input("weights", weights, 2, (torch.float32,), bank.down)
    _check_size("calibrate", x.shape[2], bank.down.shape[1])
    if tuple(weights.shape) != (x.shape[0], bank.down.shape[0]):
        raise ImcError(
            f"calibrate: weights are {list(weights.shape)}, wanted {[x.shape[0], bank.down.shape[0]]}: one for each "
            "batch row and prototype"
        )
    out, bad = torch.ops.imc_lite.calibrate(x, weights, *tensors(bank))
    if check and bad.any():
        _refuse("calibrate", bad.any(1))
    return out, bad


@torch.library.custom_op("imc_lite::match", mutates_args=())
def _match_op(
    hidden: torch.Tensor,
    mean: torch.Tensor,
    whiten: torch.Tensor,
    prototypes: torch.Tensor,
    bias: torch.Tensor,
    precision: torch.Tensor,
    cross: torch.Tensor,
    gram: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return reference.match(hidden, mean, whiten, prototypes, bias, precision, cross, gram)


@torch.library.custom_op("imc_lite::match_stats", mutates_args=())
def _match_stats_op(
    stats: torch.Tensor,
    mean: torch.Tensor,
    whiten: torch.Tensor,
    prototypes: torch.Tensor,
    bias: torch.Tensor,
    precision: torch.Tensor,
    cross: torch.Tensor,
    gram: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return reference.match_stats(stats, mean, whiten, prototypes, bias, precision, cross, gram)


@torch.library.custom_op("imc_lite::calibrate", mutates_args=())
def _calibrate_op(
    x: torch.Tensor,
    weights: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    offset: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    # The operator is opaque to compilers, so here the prototypes that no row wants can be left out.
    wanted = (weights > 0).any(0).nonzero().flatten()
    return reference.calibrate(x, weights[:, wanted], down[wanted], up[wanted], offset[wanted], shift[wanted])


@_match_op.register_kernel("cuda")
@_match_stats_op.register_kernel("cuda")
def _match_cuda(x: torch.Tensor, *bank: torch.Tensor) -> tuple[torch.Tensor, ...]:
    from imc_lite.kernels.match import match_triton

    with torch.cuda.device(x.device):
        return match_triton(x, *bank)


@_calibrate_op.register_kernel("cuda")
def _calibrate_cuda(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from imc_lite.kernels.calibrate import calibrate_triton

    with torch.cuda.device(x.device):
        return calibrate_triton(x, *rest)


@_match_op.register_fake
@_match_stats_op.register_fake
def _match_fake(x: torch.Tensor, *bank: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows, prototypes = x.shape[0], bank[2].shape[0]
    single = x.new_empty((rows, prototypes), dtype=torch.float32)
    return (
        single,
        torch.empty_like(single),
        x.new_empty(rows, dtype=torch.float32),
        x.new_empty(rows, dtype=torch.bool),
    )


@_calibrate_op.register_fake
def _calibrate_fake(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:2], dtype=torch.bool)


def tensors(bank: MatchBank | CalibrationBank) -> tuple[torch.Tensor, ...]:
    """A bank's fields in the order the operators and `reference` take them."""
    return tuple(getattr(bank, name) for name in bank.__dataclass_fields__)


def _check_input(
    name: str, tensor: torch.Tensor, dims: int, dtypes: tuple[torch.dtype, ...], like: torch.Tensor
) -> None:
    if tensor.dim() != dims or 0 in tensor.shape:
        raise ImcError(f"{name} is {list(tensor.shape)}, wanted {dims} dimensions, none of them empty")
    if tensor.dtype not in dtypes:
        wanted = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise ImcError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, wanted {wanted}; convert it or the bank")
    if tensor.device != like.device:
        raise ImcError(f"{name} is on {tensor.device} and the bank on {like.device}; build the bank for that device")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ImcError(f"{name} requires grad, which the kernels do not carry; call them under torch.no_grad()")


def _check_size(what: str, size: int, wanted: int) -> None:
    if size != wanted:
        raise ImcError(f"{what}: the input has {size} channels, the bank {wanted}; build the bank for this encoder")


def _checked(found: Match, check: bool) -> Match:
    if check and found.bad.any():
        _refuse("match", found.bad)
    return found


def _refuse(what: str, rows: torch.Tensor) -> None:
    where = rows.nonzero().flatten().tolist()
    raise ImcError(f"{what}: NaN or Inf in the tokens of batch row {where}; check the image")
