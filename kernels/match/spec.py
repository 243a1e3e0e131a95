"""How the matching kernel is tested, compiled ahead and timed."""

from __future__ import annotations

import torch
from imc_lite.kernels.checks import TOKEN_DTYPES
from imc_lite.kernels.match import WhitenedPrototypes, reference
from imc_lite.kernels.match.triton import match_triton
from imc_lite.kernels.registry import Kernel, Shape


def _tokens(shape: Shape, dtype: torch.dtype, device: str, seed: int) -> tuple[torch.Tensor, ...]:
    size = (shape.batch, shape.layers, shape.tokens, shape.width)
    generator = torch.Generator(device).manual_seed(seed)
    hidden = (3 * torch.randn(size, generator=generator, device=device)).to(dtype)
    return hidden, *_prototypes(2 * shape.layers * shape.width, shape, generator)


def _statistics(shape: Shape, dtype: torch.dtype, device: str, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(device).manual_seed(seed)
    stats = torch.randn(shape.batch, shape.width, generator=generator, device=device).to(dtype)
    return stats, *_prototypes(shape.width, shape, generator)


def _prototypes(size: int, shape: Shape, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    def randn(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator, device=generator.device)

    return WhitenedPrototypes.build(
        mean=randn(size),
        whiten=randn(size, shape.rank) * size**-0.5,
        prototypes=randn(shape.prototypes, shape.rank),
        bias=randn(shape.prototypes),
        precision=randn(size).abs(),
        reconstruct=randn(shape.rank, size),
        device=generator.device,
    ).tensors()


def _exact(hidden: torch.Tensor, *prototypes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    tokens = hidden.double()
    moments = torch.stack((tokens.mean(2), tokens.std(2, correction=0)), 2).flatten(1)
    return reference.match_stats(moments.sign() * moments.abs().log1p(), *prototypes)


MATCH = Kernel(
    name="match",
    operator=torch.ops.imc_lite.match,
    reference=reference.match,
    exact=_exact,
    triton=match_triton,
    launched="_match_kernel",
    inputs=_tokens,
    # Tokens are read in their dtype and nothing is rounded to it afterwards.
    tolerance=dict.fromkeys(TOKEN_DTYPES, 1e-5),
    odd_shapes=(
        Shape(batch=1, layers=1, tokens=1, width=1, prototypes=2, rank=1),
        Shape(batch=2, layers=3, tokens=17, width=65, prototypes=5, rank=7),
        Shape(batch=1, layers=2, tokens=257, width=96, prototypes=36, rank=20),
        Shape(batch=1, layers=1, tokens=300, width=64, prototypes=8, rank=5),
    ),
    compiled=((torch.float16, Shape(batch=1, tokens=196, width=768, rank=35)),),
    moved=lambda hidden, *_: hidden.nbytes,
)
MATCH_STATS = Kernel(
    name="match_stats",
    operator=torch.ops.imc_lite.match_stats,
    reference=reference.match_stats,
    exact=reference.match_stats,  # float64 throughout
    triton=match_triton,
    launched="_match_kernel",
    inputs=_statistics,
    tolerance={torch.float32: 1e-5},
    odd_shapes=(
        Shape(batch=1, tokens=1, width=1, prototypes=1, rank=1),
        Shape(batch=3, tokens=1, width=257, prototypes=36, rank=35),
        Shape(batch=2, tokens=1, width=130, prototypes=64, rank=128),
    ),
    compiled=((torch.float32, Shape(batch=1, tokens=1, width=832, rank=35)),),
)
KERNELS = (MATCH, MATCH_STATS)
