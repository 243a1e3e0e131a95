"""The specification of the kernels in plain PyTorch: differentiable-free, exportable, no data-dependent control.

Statistics are pooled in float32; everything computed from them is small and runs in float64.
"""

from __future__ import annotations

import torch


def pool(hidden: torch.Tensor) -> torch.Tensor:
    """Statistics of tokens, hidden [B, L, N, D] -> float64 [B, 2 L D].

    For each layer l its D means over the N tokens, then its D standard deviations (divided by N, not N - 1),
    each as sign(v) log(1 + |v|); layers follow one another. Channel mean and standard deviation carry "style",
    noise included: Huang & Belongie 2017, https://arxiv.org/abs/1703.06868. The signed log is the bi-symmetric
    log transform of Webber 2013, https://doi.org/10.1088/0957-0233/24/2/027001.
    """
    tokens = hidden.float()
    mean = tokens.mean(2)
    deviation = (tokens - mean[:, :, None]).square().mean(2).sqrt()
    moments = torch.stack((mean, deviation), 2).flatten(1).double()
    return moments.sign() * moments.abs().log1p()


def match_stats(
    stats: torch.Tensor,
    mean: torch.Tensor,
    whiten: torch.Tensor,
    prototypes: torch.Tensor,
    bias: torch.Tensor,
    precision: torch.Tensor,
    cross: torch.Tensor,
    gram: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which prototype lies nearest, and how far from all of them; arguments as in `banks.MatchBank`.

    With u = stats - mean [B, S] and z = u W [B, R]:
        logits_k      = bias_k - |z - p_k|^2 / 2                float32 [B, K]
        probabilities = softmax(logits)                         float32 [B, K]
        novelty       = (1/S) sum_s r_s (u_s - (z Wp)_s)^2      float32 [B]
    The last is computed as (sum r u^2 - 2 z (u cross) + z gram z) / S, which float64 can afford: the residual
    is then known after one pass over u. A row with a NaN or Inf is reported in bad, bool [B], and gets logits
    0, probabilities 0 and the largest float32 as novelty; the other rows do not notice.

    Linear discriminant distances in whitened space: Hastie, Tibshirani & Friedman, The Elements of Statistical
    Learning, 2nd ed., section 4.3; open-set distance in the residual: Wang et al. 2022 (ViM),
    https://arxiv.org/abs/2203.10807.
    """
    bad = ~stats.isfinite().all(1)
    u = torch.where(bad[:, None], 0.0, stats.double() - mean.double())
    z = u @ whiten.double()
    logits = bias.double() - 0.5 * (z[:, None] - prototypes.double()).square().sum(2)
    residual = (precision.double() * u * u).sum(1) - 2 * (z * (u @ cross.double())).sum(1) + ((z @ gram) * z).sum(1)
    novelty = (residual / stats.shape[1]).clamp_min(0).float()
    probabilities = logits.softmax(1).float()
    return (
        torch.where(bad[:, None], 0.0, logits.float()),
        torch.where(bad[:, None], 0.0, probabilities),
        torch.where(bad, torch.finfo(torch.float32).max, novelty),
        bad,
    )


def match(hidden: torch.Tensor, *bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`match_stats` of the `pool`ed tokens hidden [B, L, N, D]; bank as there."""
    return match_stats(pool(hidden), *bank)


def calibrate(
    x: torch.Tensor,
    weights: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    offset: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry noisy tokens back to clean ones: x [B, N, D], weights float32 [B, K]; the rest as in
    `banks.CalibrationBank`.

        x' = x + sum over k with w_k > 0 of w_k [(x V_k - offset_k) U_k + shift_k]
           = x + sum_k w_k [(x - m_k) V_k U_k + (c_k - m_k)]

    in float32, then the dtype of x. A batch row without a positive weight comes back bit for bit. So does a
    token that holds a NaN or Inf, and it is reported in bad, bool [B, N]; its neighbours do not notice.

    Reduced-rank ridge regression: Mukherjee & Zhu 2011, https://doi.org/10.1002/sam.10138.
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
