"""Low-rank calibration of tokens as one Triton launch; the formula is that of `imc_lite.kernels.calibrate.reference`.

A program owns BLOCK_N tokens of one batch row and passes over their D columns twice: first it sums x V_k - offset_k, in
float32, then it writes x + w_k [h U_k + shift_k]. The first pass reads the tokens from memory, the second finds them in
the L2 cache: BLOCK_N is chosen so that the tokens under work fill at most 3/4 of it. (Holding [BLOCK_N, D] in registers
instead was compiled for sm_90 and spilled at 64 tokens of width 768.) Maps without weight are never read. One or two
maps on a row keep their projections in registers; three and more are projected again for every block of columns, which
is slow, but needs no scratch memory and rounds once.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl


def calibrate_triton(
    x: torch.Tensor,
    weights: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    offset: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`reference.calibrate` as one launch; x [B, N, D] and weights [B, K] may have any strides."""
    batch, tokens, width = x.shape
    prototype_count, _, rank = down.shape
    block_n, block_d, num_warps, num_stages = _blocks(batch, tokens, width, rank, x.dtype, *_chip(x.device))
    out = x.new_empty(x.shape)
    bad = x.new_empty((batch, tokens), dtype=torch.bool)
    _calibrate_kernel[(batch * triton.cdiv(tokens, block_n),)](
        x, out, bad, weights, down, up, offset, shift,
        tokens, *x.stride(), *weights.stride(),
        K=prototype_count, D=width, R=rank,
        BLOCK_K=triton.next_power_of_2(prototype_count), BLOCK_N=block_n, BLOCK_D=block_d,
        BLOCK_R=max(16, triton.next_power_of_2(rank)),
        num_warps=num_warps, num_stages=num_stages, enable_fp_fusion=True,
    )  # fmt: skip
    return out, bad


def _blocks(
    batch: int, tokens: int, width: int, rank: int, dtype: torch.dtype, multiprocessors: int, l2_bytes: int
) -> tuple[int, int, int, int]:
    """BLOCK_N, BLOCK_D, warps, pipeline stages.

    Few tokens a program fill the chip at small batch; many share one reading of the factors at large batch.
    The busiest multiprocessor moves per program, in rows of D: its tokens in twice and out once, and 2 R of
    factors. Warps and stages are the ones with which ptxas reports no spills for sm_90.
    """
    if dtype == torch.float32:
        return 32, 32, 4, 3
    best = (16, 64, 4, 4)
    least = None
    for block_n, num_warps in ((16, 4), (32, 4), (64, 8), (128, 16)):
        if block_n > 16 and multiprocessors * block_n * width * dtype.itemsize > 0.75 * l2_bytes:
            break
        if block_n == 128 and rank > 64:
            break
        turns = triton.cdiv(batch * triton.cdiv(tokens, block_n), multiprocessors)
        traffic = turns * (3 * block_n + 2 * rank)
        if least is None or traffic <= least:
            best, least = (block_n, 64, num_warps, 4), traffic
    return best


@functools.cache
def _chip(device: torch.device) -> tuple[int, int]:
    """Multiprocessors and bytes of L2; an H200's where there is no GPU to ask."""
    if device.type != "cuda":
        return 132, 60 << 20
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.L2_cache_size


@triton.jit
def _next_active(w, ks, after, BLOCK_K: tl.constexpr):
    """The smallest k > after with a positive weight, BLOCK_K when there is none."""
    return tl.min(tl.where((w > 0) & (ks > after), ks, BLOCK_K), axis=0)


@triton.jit
def _load_down(down_ptr, k, d0, D: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr):
    d = d0 + tl.arange(0, BLOCK_D)
    r = tl.arange(0, BLOCK_R)
    pointers = down_ptr + k.to(tl.int64) * D * R + d[:, None] * R + r[None, :]
    return tl.load(pointers, mask=(d[:, None] < D) & (r[None, :] < R), other=0.0, eviction_policy="evict_last")


@triton.jit
def _load_up(up_ptr, k, d0, D: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr):
    d = d0 + tl.arange(0, BLOCK_D)
    r = tl.arange(0, BLOCK_R)
    pointers = up_ptr + k.to(tl.int64) * D * R + r[:, None] * D + d[None, :]
    return tl.load(pointers, mask=(d[None, :] < D) & (r[:, None] < R), other=0.0, eviction_policy="evict_last")


@triton.jit
def _load_tokens(rows_ptr, stride_d, live, d0, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = d0 + tl.arange(0, BLOCK_D)
    pointers = rows_ptr[:, None] + d[None, :].to(tl.int64) * stride_d
    return tl.load(pointers, mask=live[:, None] & (d[None, :] < D), other=0.0)


@triton.jit
def _store_tokens(rows_ptr, live, d0, value, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = d0 + tl.arange(0, BLOCK_D)
    mask = live[:, None] & (d[None, :] < D)
    # Written once and not read again here: leaves L2 first.
    tl.store(rows_ptr[:, None] + d[None, :], value, mask=mask, eviction_policy="evict_first")


@triton.jit
def _not_finite(x):
    """1 for each row of x with a NaN or Inf (a comparison with NaN is false)."""
    finite = tl.abs(x.to(tl.float32)) < float("inf")
    return tl.max(tl.where(finite, 0, 1), axis=1)


@triton.jit
def _centre(acc, offset_ptr, k, dtype, R: tl.constexpr, BLOCK_R: tl.constexpr):
    """Projection minus offset, as operand of the next product, and the float32 factor taken out of each row.

    float16 ends at 65504 and fades below 6e-5, so there each row is brought to a largest magnitude of 1.
    """
    r = tl.arange(0, BLOCK_R)
    h = acc - tl.load(offset_ptr + k * R + r, mask=r < R, other=0.0)[None, :]
    if dtype == tl.float16:
        size = tl.max(tl.abs(h), axis=1)
        size = tl.where((size > 0) & (size < float("inf")), size, 1.0)
        h = h / size[:, None]
    else:
        size = tl.full([acc.shape[0]], 1.0, tl.float32)
    return h.to(dtype), size


@triton.jit
def _project(
    rows_ptr, stride_d, live, down_ptr, offset_ptr, k,
    D: tl.constexpr, R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """x V_k - offset_k with the tokens read from memory, and which tokens are not finite.

    In the loop the product alone may use the tokens: where they were also looked at for NaN and Inf, Triton 3.6 let the
    loads of later columns overwrite them before the tensor cores of an H100 had read them. A token that is not finite
    makes its sums so (0 Inf is NaN), and only then are tokens looked at, since sums also overflow by themselves.
    """
    acc = tl.zeros([BLOCK_N, BLOCK_R], tl.float32)
    for d0 in range(0, D, BLOCK_D):
        x = _load_tokens(rows_ptr, stride_d, live, d0, D, BLOCK_D)
        acc = tl.dot(x, _load_down(down_ptr, k, d0, D, R, BLOCK_D, BLOCK_R), acc, input_precision="ieee")
    bad = tl.zeros([BLOCK_N], tl.int32)
    if tl.max(_not_finite(acc), axis=0) > 0:
        for d0 in range(0, D, BLOCK_D):
            bad = tl.maximum(bad, _not_finite(_load_tokens(rows_ptr, stride_d, live, d0, D, BLOCK_D)))
    h, size = _centre(acc, offset_ptr, k, rows_ptr.dtype.element_ty, R, BLOCK_R)
    return h, size, bad


@triton.jit
def _add_lift(base, h, size, up, shift_ptr, k, weight, d0, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """base + weight (size h up + shift_k), columns d0 onwards, float32."""
    d = d0 + tl.arange(0, BLOCK_D)
    shift = tl.load(shift_ptr + k * D + d, mask=d < D, other=0.0)
    lifted = tl.dot(h, up, input_precision="ieee")
    return base + lifted * (weight * size)[:, None] + (weight * shift)[None, :]


@triton.jit
def _calibrate_kernel(
    x_ptr, y_ptr, bad_ptr, w_ptr, down_ptr, up_ptr, offset_ptr, shift_ptr,
    N, stride_xb, stride_xn, stride_xd, stride_wb, stride_wk,
    K: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    dtype = x_ptr.dtype.element_ty
    blocks = tl.cdiv(N, BLOCK_N)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = n < N
    rows_ptr = x_ptr + b * stride_xb + n.to(tl.int64) * stride_xn
    out_ptr = y_ptr + (b * N + n) * D
    flag_ptr = bad_ptr + b * N + n

    ks = tl.arange(0, BLOCK_K)
    w = tl.load(w_ptr + b * stride_wb + ks * stride_wk, mask=ks < K, other=0.0)
    k0 = _next_active(w, ks, -1, BLOCK_K)
    k1 = _next_active(w, ks, k0, BLOCK_K)

    if k0 == BLOCK_K:
        bad = tl.zeros([BLOCK_N], tl.int32)
        for d0 in range(0, D, BLOCK_D):
            x = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D)
            bad = tl.maximum(bad, _not_finite(x))
            _store_tokens(out_ptr, live, d0, x, D, BLOCK_D)
        tl.store(flag_ptr, bad != 0, mask=live)
    else:
        w0 = tl.sum(tl.where(ks == k0, w, 0.0), axis=0)
        h0, size0, bad = _project(rows_ptr, stride_xd, live, down_ptr, offset_ptr, k0, D, R, BLOCK_N, BLOCK_D, BLOCK_R)
        tl.store(flag_ptr, bad != 0, mask=live)
        copied = (bad != 0)[:, None]
        k2 = _next_active(w, ks, k1, BLOCK_K)
        if k1 == BLOCK_K:
            for d0 in range(0, D, BLOCK_D):
                x = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D)
                u = _load_up(up_ptr, k0, d0, D, R, BLOCK_D, BLOCK_R)
                y = _add_lift(x.to(tl.float32), h0, size0, u, shift_ptr, k0, w0, d0, D, BLOCK_D)
                _store_tokens(out_ptr, live, d0, tl.where(copied, x, y.to(dtype)), D, BLOCK_D)
        elif k2 == BLOCK_K:
            w1 = tl.sum(tl.where(ks == k1, w, 0.0), axis=0)
            h1, size1, _ = _project(
                rows_ptr, stride_xd, live, down_ptr, offset_ptr, k1, D, R, BLOCK_N, BLOCK_D, BLOCK_R
            )
            for d0 in range(0, D, BLOCK_D):
                x = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D)
                u = _load_up(up_ptr, k0, d0, D, R, BLOCK_D, BLOCK_R)
                y = _add_lift(x.to(tl.float32), h0, size0, u, shift_ptr, k0, w0, d0, D, BLOCK_D)
                u = _load_up(up_ptr, k1, d0, D, R, BLOCK_D, BLOCK_R)
                y = _add_lift(y, h1, size1, u, shift_ptr, k1, w1, d0, D, BLOCK_D)
                _store_tokens(out_ptr, live, d0, tl.where(copied, x, y.to(dtype)), D, BLOCK_D)
        else:
            # Not pipelined: the loops inside are, and registers are short.
            for d0 in tl.range(0, D, BLOCK_D, num_stages=1):
                y = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D).to(tl.float32)
                k = k0
                while k < BLOCK_K:
                    weight = tl.sum(tl.where(ks == k, w, 0.0), axis=0)
                    h, size, _ = _project(
                        rows_ptr, stride_xd, live, down_ptr, offset_ptr, k, D, R, BLOCK_N, BLOCK_D, BLOCK_R
                    )
                    u = _load_up(up_ptr, k, d0, D, R, BLOCK_D, BLOCK_R)
                    y = _add_lift(y, h, size, u, shift_ptr, k, weight, d0, D, BLOCK_D)
                    k = _next_active(w, ks, k, BLOCK_K)
                x = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D)
                _store_tokens(out_ptr, live, d0, tl.where(copied, x, y.to(dtype)), D, BLOCK_D)
