"""`match` and `match_stats`: one Triton launch on CUDA, the PyTorch reference elsewhere.

Both are `torch.library` operators (`imc_lite::match`, `imc_lite::match_stats`) with fake implementations:
torch.compile(fullgraph=True) and torch.export see through them, and PyTorch picks the implementation by device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from imc_lite.kernels.checks import TOKEN_DTYPES, check_input, check_width, refuse_rows
from imc_lite.kernels.match import reference
from imc_lite.kernels.match.prototypes import WhitenedPrototypes

from imc_lite.errors import ImcError

MAX_WIDTH = 4096


@dataclass(frozen=True)
class Match:
    """What `match` found in each batch row.

    Attributes:
        logits: float32 [B, K].
        probabilities: float32 [B, K], of the prototypes.
        novelty: float32 [B], mean squared residual in units of the clean residual variance.
        bad: bool [B]: the row held a NaN or Inf (or statistics beyond float32); its logits and probabilities are 0
            and its novelty is the largest float32.
    """

    logits: torch.Tensor
    probabilities: torch.Tensor
    novelty: torch.Tensor
    bad: torch.Tensor


def match(hidden: torch.Tensor, prototypes: WhitenedPrototypes, check: bool = False) -> Match:
    """Which noise do these tokens carry? The formulas are those of `imc_lite.kernels.match.reference`.

    Args:
        hidden: [B, L, N, D], the hidden states of L early layers, float32, float16 or bfloat16, any strides, D up to
            4096.
        prototypes: for S = 2 L D statistics, on the same device.
        check: raise on a NaN or Inf, which waits for the GPU; else it is reported in `Match.bad`.

    Raises:
        ImcError: a wrong shape, dtype or device; gradients are wanted; with `check`, a NaN or Inf.
    """
    check_input("hidden", hidden, 4, TOKEN_DTYPES, prototypes.mean.device)
    if hidden.shape[3] > MAX_WIDTH:
        raise ImcError(f"match: tokens of width {hidden.shape[3]} are wider than {MAX_WIDTH}; match narrower layers")
    check_width("match", 2 * hidden.shape[1] * hidden.shape[3], prototypes.mean.shape[0])
    return _checked(Match(*torch.ops.imc_lite.match(hidden, *prototypes.tensors())), check)


def match_stats(stats: torch.Tensor, prototypes: WhitenedPrototypes, check: bool = False) -> Match:
    """As `match`, for statistics float32 [B, S] that the encoder pooled itself."""
    check_input("stats", stats, 2, (torch.float32,), prototypes.mean.device)
    check_width("match", stats.shape[1], prototypes.mean.shape[0])
    return _checked(Match(*torch.ops.imc_lite.match_stats(stats, *prototypes.tensors())), check)


def _checked(found: Match, check: bool) -> Match:
    if check and found.bad.any():
        refuse_rows("match", found.bad)
    return found


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


@_match_op.register_kernel("cuda")
@_match_stats_op.register_kernel("cuda")
def _match_cuda(x: torch.Tensor, *prototypes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    from imc_lite.kernels.match.triton import match_triton

    with torch.cuda.device(x.device):
        return match_triton(x, *prototypes)


@_match_op.register_fake
@_match_stats_op.register_fake
def _match_fake(x: torch.Tensor, *prototypes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows, count = x.shape[0], prototypes[2].shape[0]
    single = x.new_empty((rows, count), dtype=torch.float32)
    return (
        single,
        torch.empty_like(single),
        x.new_empty(rows, dtype=torch.float32),
        x.new_empty(rows, dtype=torch.bool),
    )
