"""Noise matching as one Triton launch; the formulas are those of `imc_lite.kernels.match.reference`.

A program owns BLOCK_D columns of one layer of one batch row. It pools all N tokens of these columns, so that no sum
over tokens crosses programs, and writes its share of z = u W, of u cross and of sum r u^2. Programs of a batch row draw
tickets from a counter when they are done; the one with the last ticket adds the shares, in index order, and finishes
the row, as in NVIDIA's threadFenceReduction sample. So B x L x D / BLOCK_D programs read the tokens, one launch is
enough, and the result does not depend on which program came last. One program a row would be simpler, but at batch 1
all layers would then be read by a single multiprocessor, which takes about 100 us.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_tickets: dict[tuple[int, int], torch.Tensor] = {}  # by device and stream


def match_triton(
    x: torch.Tensor,
    mean: torch.Tensor,
    whiten: torch.Tensor,
    prototypes: torch.Tensor,
    bias: torch.Tensor,
    precision: torch.Tensor,
    cross: torch.Tensor,
    gram: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`reference.match` of hidden x [B, L, N, D] or `reference.match_stats` of stats x [B, S], any strides."""
    pooled = x.dim() == 4
    (batch, layers, tokens, width) = x.shape if pooled else (x.shape[0], 1, 1, x.shape[1])
    strides = x.stride() if pooled else (x.stride(0), 0, 0, x.stride(1))
    prototype_count, rank = prototypes.shape
    block_d, block_r = 64, max(16, triton.next_power_of_2(rank))
    block_t = min(256, max(16, triton.next_power_of_2(tokens)))
    chunks = layers * triton.cdiv(width, block_d)
    logits = x.new_empty((batch, prototype_count), dtype=torch.float32)
    probabilities = torch.empty_like(logits)
    novelty = x.new_empty(batch, dtype=torch.float32)
    bad = x.new_empty(batch, dtype=torch.bool)
    partial = x.new_empty((batch, chunks, 2 * block_r + 2), dtype=torch.float64)
    _match_kernel[(batch * chunks,)](
        x, mean, whiten, prototypes, bias, precision, cross, gram,
        partial, _zeroed_tickets(x.device, batch), logits, probabilities, novelty, bad,
        tokens, *strides,
        K=prototype_count, R=rank, S=mean.shape[0], D=width, CHUNKS=chunks,
        BLOCK_K=triton.next_power_of_2(prototype_count), BLOCK_R=block_r, BLOCK_C=32 if rank <= 64 else 16,
        BLOCK_T=block_t, BLOCK_D=block_d, POOL=pooled,
        num_warps=8, enable_fp_fusion=True,
    )  # fmt: skip
    return logits, probabilities, novelty, bad


def _zeroed_tickets(device: torch.device, batch: int) -> torch.Tensor:
    """int32 zeros, at least `batch` of them, that no launch in flight uses.

    The kernel leaves its tickets at zero, so one buffer a stream serves every launch on it. A CUDA graph gets
    its own, zeroed by each replay, since replays may run on other streams.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(batch, dtype=torch.int32, device=device)
    key = (device.index, torch.cuda.current_stream(device).cuda_stream)
    if key not in _tickets or _tickets[key].numel() < batch:
        _tickets[key] = torch.zeros(max(1024, batch), dtype=torch.int32, device=device)
    return _tickets[key]


@triton.jit
def _share(
    stat, s, live, mean_ptr, whiten_ptr, cross_ptr, precision_ptr,
    R: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """What the statistics stat (float64) at positions s add to z, to u cross and to sum r u^2; 1 if not finite."""
    finite = tl.abs(stat) < float("inf")
    u = tl.where(live & finite, stat - tl.load(mean_ptr + s, mask=live, other=0.0).to(tl.float64), 0.0)
    r = tl.arange(0, BLOCK_R)
    at = s[:, None] * R + r[None, :]
    mask = live[:, None] & (r[None, :] < R)
    z = tl.sum(u[:, None] * tl.load(whiten_ptr + at, mask=mask, other=0.0).to(tl.float64), axis=0)
    q = tl.sum(u[:, None] * tl.load(cross_ptr + at, mask=mask, other=0.0).to(tl.float64), axis=0)
    precision = tl.load(precision_ptr + s, mask=live, other=0.0).to(tl.float64)
    energy = tl.sum(precision * u * u, axis=0)
    bad = tl.max(tl.where(live & (finite == 0), 1, 0), axis=0)
    return z, q, energy, bad


@triton.jit
def _signed_log(v):
    return tl.where(v < 0, -1.0, 1.0) * tl.log(1.0 + tl.abs(v))


@triton.jit
def _pool(column_ptr, stride_n, live, N, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """Mean and standard deviation over N tokens, float32 [BLOCK_D], in one read.

    Blocks are merged as in Chan, Golub & LeVeque 1979, http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773:
    no difference of large squares, so an outlying channel keeps its digits.
    """
    mean = tl.zeros([BLOCK_D], tl.float32)
    square = tl.zeros([BLOCK_D], tl.float32)
    start = 0
    # Not `range(0, N, ...)`: Triton 3.6's interpreter fails on a run-time bound under numpy 2.4.
    while start < N:
        n = start + tl.arange(0, BLOCK_T)
        mask = (n < N)[:, None] & live[None, :]
        x = tl.load(column_ptr[None, :] + n[:, None].to(tl.int64) * stride_n, mask=mask, other=0.0).to(tl.float32)
        count = tl.minimum(N - start, BLOCK_T).to(tl.float32)
        block_mean = tl.sum(x, axis=0) / count
        deviation = tl.where(mask, x - block_mean[None, :], 0.0)
        delta = block_mean - mean
        total = count + start
        mean += delta * (count / total)
        square += tl.sum(deviation * deviation, axis=0) + delta * delta * (count * start / total)
        start += BLOCK_T
    return mean, tl.sqrt(square / N)


@triton.jit
def _finish(
    b, partial_ptr, prototypes_ptr, bias_ptr, gram_ptr, logits_ptr, probabilities_ptr, novelty_ptr, bad_ptr,
    K: tl.constexpr, R: tl.constexpr, S: tl.constexpr, CHUNKS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the shares of batch row b and write its answers."""
    WIDTH: tl.constexpr = 2 * BLOCK_R + 2
    r = tl.arange(0, BLOCK_R)
    z = tl.zeros([BLOCK_R], tl.float64)
    q = tl.zeros([BLOCK_R], tl.float64)
    energy = tl.zeros([BLOCK_C], tl.float64)
    broken = tl.zeros([BLOCK_C], tl.float64)
    for first in range(0, CHUNKS, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        here = c < CHUNKS
        row = partial_ptr + (b * CHUNKS + c) * WIDTH
        # .cg: other multiprocessors wrote these, so not from this one's L1.
        wanted = here[:, None] & (r[None, :] < R)
        z += tl.sum(tl.load(row[:, None] + r[None, :], mask=wanted, other=0.0, cache_modifier=".cg"), axis=0)
        q += tl.sum(tl.load(row[:, None] + BLOCK_R + r[None, :], mask=wanted, other=0.0, cache_modifier=".cg"), axis=0)
        energy += tl.load(row + 2 * BLOCK_R, mask=here, other=0.0, cache_modifier=".cg")
        broken += tl.load(row + 2 * BLOCK_R + 1, mask=here, other=0.0, cache_modifier=".cg")
    bad = tl.sum(broken, axis=0) > 0

    k = tl.arange(0, BLOCK_K)
    p = tl.load(prototypes_ptr + k[:, None] * R + r[None, :], mask=(k[:, None] < K) & (r[None, :] < R), other=0.0)
    apart = z[None, :] - p.to(tl.float64)
    bias = tl.load(bias_ptr + k, mask=k < K, other=0.0).to(tl.float64)
    logits = tl.where(k < K, bias - 0.5 * tl.sum(apart * apart, axis=1), float("-inf"))
    odds = tl.exp(logits - tl.max(logits, axis=0))
    probabilities = odds / tl.sum(odds, axis=0)
    tl.store(logits_ptr + b * K + k, tl.where(bad, 0.0, logits).to(tl.float32), mask=k < K)
    tl.store(probabilities_ptr + b * K + k, tl.where(bad, 0.0, probabilities).to(tl.float32), mask=k < K)

    square = (r[:, None] < R) & (r[None, :] < R)
    gram = tl.load(gram_ptr + r[:, None] * R + r[None, :], mask=square, other=0.0)
    lift = tl.sum(gram * z[:, None], axis=0)
    residual = tl.sum(energy, axis=0) + tl.sum(z * (lift - 2.0 * q), axis=0)
    novelty = tl.where(residual > 0, residual, 0.0) / S
    tl.store(novelty_ptr + b, tl.where(bad, 3.4028234663852886e38, novelty).to(tl.float32))
    tl.store(bad_ptr + b, bad)


@triton.jit
def _match_kernel(
    x_ptr, mean_ptr, whiten_ptr, prototypes_ptr, bias_ptr, precision_ptr, cross_ptr, gram_ptr,
    partial_ptr, ticket_ptr, logits_ptr, probabilities_ptr, novelty_ptr, bad_ptr,
    N, stride_b, stride_l, stride_n, stride_d,
    K: tl.constexpr, R: tl.constexpr, S: tl.constexpr, D: tl.constexpr, CHUNKS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = 2 * BLOCK_R + 2
    COLUMNS: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    b = (tl.program_id(0) // CHUNKS).to(tl.int64)
    c = tl.program_id(0) % CHUNKS
    layer = c // COLUMNS
    d = (c % COLUMNS) * BLOCK_D + tl.arange(0, BLOCK_D)
    live = d < D
    column_ptr = x_ptr + b * stride_b + layer.to(tl.int64) * stride_l + d.to(tl.int64) * stride_d
    if POOL:
        mean, deviation = _pool(column_ptr, stride_n, live, N, BLOCK_T, BLOCK_D)
        s = 2 * layer * D + d
        z, q, energy, bad = _share(
            _signed_log(mean.to(tl.float64)), s, live, mean_ptr, whiten_ptr, cross_ptr, precision_ptr, R, BLOCK_R
        )
        z1, q1, energy1, bad1 = _share(
            _signed_log(deviation.to(tl.float64)), s + D, live, mean_ptr, whiten_ptr, cross_ptr, precision_ptr,
            R, BLOCK_R,
        )  # fmt: skip
        z, q, energy, bad = z + z1, q + q1, energy + energy1, tl.maximum(bad, bad1)
    else:
        stat = tl.load(column_ptr, mask=live, other=0.0).to(tl.float64)
        z, q, energy, bad = _share(stat, d, live, mean_ptr, whiten_ptr, cross_ptr, precision_ptr, R, BLOCK_R)

    r = tl.arange(0, BLOCK_R)
    row = partial_ptr + (b * CHUNKS + c) * WIDTH
    tl.store(row + r, z)
    tl.store(row + BLOCK_R + r, q)
    tl.store(row + 2 * BLOCK_R, energy)
    tl.store(row + 2 * BLOCK_R + 1, bad.to(tl.float64))
    # All threads' stores come before the ticket, and the ticket releases them to the program that comes last.
    tl.debug_barrier()
    arrived = tl.atomic_add(ticket_ptr + b, 1, sem="acq_rel", scope="gpu")
    if arrived == CHUNKS - 1:
        tl.store(ticket_ptr + b, 0)
        _finish(
            b, partial_ptr, prototypes_ptr, bias_ptr, gram_ptr, logits_ptr, probabilities_ptr, novelty_ptr, bad_ptr,
            K, R, S, CHUNKS, BLOCK_K, BLOCK_R, BLOCK_C,
        )  # fmt: skip
