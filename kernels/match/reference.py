"""The specification of `match` in plain PyTorch: no step depends on a value, so that it can be exported.

Statistics are pooled in float32; everything computed from them is small and runs in float64.
"""

from __future__ import annotations

import torch


def pool(hidden: torch.Tensor) -> torch.Tensor:
    """Statistics of tokens: the mean and the standard deviation of every channel, on a logarithmic scale.

    For each layer its D means over the N tokens, then its D standard deviations (divided by N, not N - 1), each value v
    as sign(v) log(1 + |v|); one layer after the other. A channel's mean and standard deviation carry an image's style,
    noise included: Huang & Belongie 2017, https://arxiv.org/abs/1703.06868. The logarithm is the bi-symmetric one of
    Webber 2013, https://doi.org/10.1088/0957-0233/24/2/027001.

    Args:
        hidden: hidden states of L layers, [B, L, N, D].

    Returns:
        float64 [B, 2 L D].
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
    """Which prototype lies nearest, and how far the statistics are from all of them.

    With u = stats - mean [B, S] and z = u W [B, R]:
        logits_k      = bias_k - |z - p_k|^2 / 2
        probabilities = softmax(logits)
        novelty       = (1/S) sum_s r_s (u_s - (z Wp)_s)^2
    Novelty is computed as (sum r u^2 - 2 z (u cross) + z gram z) / S, which needs u only once; float64 has the digits
    for that difference.

    The logits are linear discriminant distances in whitened space: Hastie, Tibshirani & Friedman, The Elements of
    Statistical Learning, 2nd ed., section 4.3. Novelty is a distance in the residual space: Wang et al. 2022 (ViM),
    https://arxiv.org/abs/2203.10807.

    Args:
        stats: float32 or float64 [B, S].
        mean, whiten, prototypes, bias, precision, cross, gram: as in `WhitenedPrototypes`.

    Returns:
        logits float32 [B, K], probabilities float32 [B, K], novelty float32 [B], and bad, bool [B]: whether the row
        holds a NaN or Inf. Such a row gets logits and probabilities 0 and the largest float32 as novelty, and changes
        no other row.
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


def match(
    hidden: torch.Tensor, *prototypes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`match_stats` of the statistics that `pool` takes from tokens, hidden [B, L, N, D]."""
    return match_stats(pool(hidden), *prototypes)
