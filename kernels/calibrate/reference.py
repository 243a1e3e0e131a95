"""The specification of `calibrate` in plain PyTorch: no step depends on a value, so that it can be exported."""

from __future__ import annotations

import torch


def calibrate(
    x: torch.Tensor,
    weights: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    offset: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry noisy tokens back to clean ones by the maps that have a positive weight:

        x' = x + sum over k with w_k > 0 of w_k [(x V_k - offset_k) U_k + shift_k]
           = x + sum over k with w_k > 0 of w_k [(x - m_k) V_k U_k + (c_k - m_k)]

    in float32, rounded to the dtype of x at the end. This is reduced-rank ridge regression: Mukherjee & Zhu 2011,
    https://doi.org/10.1002/sam.10138.

    Args:
        x: tokens [B, N, D], float32, float16 or bfloat16.
        weights: w float32 [B, K].
        down, up, offset, shift: as in `LowRankMaps`.

    Returns:
        Tokens like x, and bad, bool [B, N]: whether the token holds a NaN or Inf. Such a token comes back bit for bit
        and changes no other; so does every token of a row without a positive weight.
    """
    bad = ~x.isfinite().all(2)
    wide = x.float()
    out = wide
    for k in range(weights.shape[1]):
        correction = (wide @ down[k].float() - offset[k]) @ up[k].float() + shift[k]
        weight = weights[:, k, None, None]
        # A product with zero would still carry an overflow of the skipped correction.
        out = out + torch.where(weight > 0, weight * correction, 0.0)
    untouched = ~(weights > 0).any(1)[:, None] | bad
    return torch.where(untouched[:, :, None], x, out.to(x.dtype)), bad
