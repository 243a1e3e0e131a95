"""Low-rank calibration of tokens as one Triton launch; the formula is `reference.calibrate`.

A program owns BLOCK_N tokens of one batch row. It reads them once into registers (KEEP), projects them with
V_k, lifts the result with U_k and writes them once; the factors stream through from L2. Where the tokens do
not fit into registers (float32, wide D) the second pass reads them again, mostly from L2. Prototypes without
weight are never read. With more than two prototypes on one row the projections of the third and later ones
are computed again for every block of columns: no scratch memory, and sums stay in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


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
    tl.store(rows_ptr[:, None] + d[None, :], value, mask=live[:, None] & (d[None, :] < D))


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
    """x V_k - offset_k with the tokens read from memory, and which tokens are not finite."""
    acc = tl.zeros([BLOCK_N, BLOCK_R], tl.float32)
    bad = tl.zeros([BLOCK_N], tl.int32)
    for d0 in range(0, D, BLOCK_D):
        x = _load_tokens(rows_ptr, stride_d, live, d0, D, BLOCK_D)
        bad = tl.maximum(bad, _not_finite(x))
        acc = tl.dot(x, _load_down(down_ptr, k, d0, D, R, BLOCK_D, BLOCK_R), acc, input_precision="ieee")
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
    KEEP: tl.constexpr,
):  # fmt: skip
    CHUNKS: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    dtype = x_ptr.dtype.element_ty
    blocks = tl.cdiv(N, BLOCK_N)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    n = (tl.program_id(0) % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = n < N
    rows_ptr = x_ptr + b * stride_xb + n.to(tl.int64) * stride_xn
    out_ptr = y_ptr + (b * N + n) * D
    flag_ptr = bad_ptr + b * N + n

    xs = ()
    if KEEP:
        for i in tl.static_range(CHUNKS):
            xs = xs + (_load_tokens(rows_ptr, stride_xd, live, i * BLOCK_D, D, BLOCK_D),)

    ks = tl.arange(0, BLOCK_K)
    w = tl.load(w_ptr + b * stride_wb + ks * stride_wk, mask=ks < K, other=0.0)
    k0 = _next_active(w, ks, -1, BLOCK_K)
    k1 = _next_active(w, ks, k0, BLOCK_K)

    bad = tl.zeros([BLOCK_N], tl.int32)
    if KEEP:
        for i in tl.static_range(CHUNKS):
            bad = tl.maximum(bad, _not_finite(xs[i]))

    if k0 == BLOCK_K:
        if KEEP:
            for i in tl.static_range(CHUNKS):
                _store_tokens(out_ptr, live, i * BLOCK_D, xs[i], D, BLOCK_D)
        else:
            for d0 in range(0, D, BLOCK_D):
                x = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D)
                bad = tl.maximum(bad, _not_finite(x))
                _store_tokens(out_ptr, live, d0, x, D, BLOCK_D)
        tl.store(flag_ptr, bad != 0, mask=live)
    else:
        w0 = tl.sum(tl.where(ks == k0, w, 0.0), axis=0)
        if KEEP:
            # The next factor is asked for before the product that uses this one.
            acc = tl.zeros([BLOCK_N, BLOCK_R], tl.float32)
            v = _load_down(down_ptr, k0, 0, D, R, BLOCK_D, BLOCK_R)
            for i in tl.static_range(CHUNKS):
                v_ahead = v
                if i + 1 < CHUNKS:
                    v_ahead = _load_down(down_ptr, k0, (i + 1) * BLOCK_D, D, R, BLOCK_D, BLOCK_R)
                acc = tl.dot(xs[i], v, acc, input_precision="ieee")
                v = v_ahead
            h0, size0 = _centre(acc, offset_ptr, k0, dtype, R, BLOCK_R)
        else:
            h0, size0, bad = _project(
                rows_ptr, stride_xd, live, down_ptr, offset_ptr, k0, D, R, BLOCK_N, BLOCK_D, BLOCK_R
            )
        tl.store(flag_ptr, bad != 0, mask=live)
        copied = (bad != 0)[:, None]
        if k1 == BLOCK_K:
            if KEEP:
                u = _load_up(up_ptr, k0, 0, D, R, BLOCK_D, BLOCK_R)
                for i in tl.static_range(CHUNKS):
                    u_ahead = u
                    if i + 1 < CHUNKS:
                        u_ahead = _load_up(up_ptr, k0, (i + 1) * BLOCK_D, D, R, BLOCK_D, BLOCK_R)
                    x = xs[i]
                    y = _add_lift(x.to(tl.float32), h0, size0, u, shift_ptr, k0, w0, i * BLOCK_D, D, BLOCK_D)
                    _store_tokens(out_ptr, live, i * BLOCK_D, tl.where(copied, x, y.to(dtype)), D, BLOCK_D)
                    u = u_ahead
            else:
                for d0 in range(0, D, BLOCK_D):
                    x = _load_tokens(rows_ptr, stride_xd, live, d0, D, BLOCK_D)
                    u = _load_up(up_ptr, k0, d0, D, R, BLOCK_D, BLOCK_R)
                    y = _add_lift(x.to(tl.float32), h0, size0, u, shift_ptr, k0, w0, d0, D, BLOCK_D)
                    _store_tokens(out_ptr, live, d0, tl.where(copied, x, y.to(dtype)), D, BLOCK_D)
        else:
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
                k = _next_active(w, ks, k1, BLOCK_K)
                while k < BLOCK_K:
                    weight = tl.sum(tl.where(ks == k, w, 0.0), axis=0)
                    h, size, _ = _project(
                        rows_ptr, stride_xd, live, down_ptr, offset_ptr, k, D, R, BLOCK_N, BLOCK_D, BLOCK_R
                    )
                    u = _load_up(up_ptr, k, d0, D, R, BLOCK_D, BLOCK_R)
                    y = _add_lift(y, h, size, u, shift_ptr, k, weight, d0, D, BLOCK_D)
                    k = _next_active(w, ks, k, BLOCK_K)
                _store_tokens(out_ptr, live, d0, tl.where(copied, x, y.to(dtype)), D, BLOCK_D)
