"""What was fitted on clean and noisy images, checked once and laid out for `imc_lite.kernels.ops`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from imc_lite.errors import ImcError

MAX_PROTOTYPES, MAX_RANK, MAX_WIDTH = 64, 128, 4096


@dataclass(frozen=True)
class MatchBank:
    """Whitened noise prototypes and what is needed to tell how foreign an image is. Made by `build`.

    mean float32 [S]; whiten W float32 [S, R]; prototypes P float32 [K, R]; bias float32 [K];
    precision r float32 [S]; cross float32 [S, R], r_s Wp[j, s]; gram float64 [R, R], (Wp r) Wp'.
    """

    mean: torch.Tensor
    whiten: torch.Tensor
    prototypes: torch.Tensor
    bias: torch.Tensor
    precision: torch.Tensor
    cross: torch.Tensor
    gram: torch.Tensor

    @classmethod
    def build(
        cls,
        mean: torch.Tensor,
        whiten: torch.Tensor,
        prototypes: torch.Tensor,
        bias: torch.Tensor,
        precision: torch.Tensor,
        reconstruct: torch.Tensor,
        device: torch.device | str = "cpu",
    ) -> MatchBank:
        """Check and lay out mean [S], whiten [S, R], prototypes [K, R], bias [K], precision [S] (>= 0) and
        reconstruct Wp [R, S], of any float dtype, for `device`.

        Raises ImcError on shapes that do not fit, R > 128, K > 64, a NaN or Inf, or a negative precision.
        """
        rank, prototype_count, size = whiten.shape[-1], prototypes.shape[0], mean.shape[0]
        shapes = {
            "mean": (mean, (size,)),
            "whiten": (whiten, (size, rank)),
            "prototypes": (prototypes, (prototype_count, rank)),
            "bias": (bias, (prototype_count,)),
            "precision": (precision, (size,)),
            "reconstruct": (reconstruct, (rank, size)),
        }
        _check(shapes, prototype_count, rank)
        if (precision < 0).any():
            raise ImcError("match bank: a precision is negative; give the inverse of each residual variance")
        weighted = reconstruct.double() * precision.double()
        single = {
            "mean": mean,
            "whiten": whiten,
            "prototypes": prototypes,
            "bias": bias,
            "precision": precision,
            "cross": weighted.T,
        }
        fields = {name: t.detach().to(device, torch.float32).contiguous() for name, t in single.items()}
        gram = (weighted @ reconstruct.double().T).detach().to(device)
        return cls(**fields, gram=gram.contiguous())


@dataclass(frozen=True)
class CalibrationBank:
    """One low-rank map back to clean tokens per noise kind and severity. Made by `build`.

    down V [K, D, R] and up U [K, R, D] in the dtype of the tokens; offset float32 [K, R], m_k V_k;
    shift float32 [K, D], c_k - m_k.
    """

    down: torch.Tensor
    up: torch.Tensor
    offset: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def build(
        cls,
        noisy_mean: torch.Tensor,
        clean_mean: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> CalibrationBank:
        """Check and lay out noisy_mean m [K, D], clean_mean c [K, D], down V [K, D, R], up U [K, R, D], of any
        float dtype, for tokens of `dtype` (float32, float16, bfloat16) on `device`.

        Each V_k U_k keeps its value while the two factors are brought to one scale by a power of two, so that
        neither leaves the range of float16. The offset is taken from the rounded V: what the kernel subtracts
        is then exactly what it added.
        Raises ImcError on shapes that do not fit, D > 4096, R > 128, K > 64, another dtype, a NaN or Inf, or a
        factor that `dtype` cannot hold.
        """
        prototype_count, width, rank = down.shape
        shapes = {
            "noisy_mean": (noisy_mean, (prototype_count, width)),
            "clean_mean": (clean_mean, (prototype_count, width)),
            "down": (down, (prototype_count, width, rank)),
            "up": (up, (prototype_count, rank, width)),
        }
        _check(shapes, prototype_count, rank, width)
        if dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ImcError(f"calibration bank: tokens of {dtype} have no kernel; use float32, float16 or bfloat16")
        noisy, clean, v, u = (t.detach().double() for t in (noisy_mean, clean_mean, down, up))
        tiny = torch.finfo(torch.float64).tiny
        ratio = v.abs().amax((1, 2)).clamp_min(tiny) / u.abs().amax((1, 2)).clamp_min(tiny)
        balance = torch.exp2(torch.round(0.5 * torch.log2(ratio)).clamp(-60, 60))[:, None, None]
        v, u = (v / balance).to(dtype), (u * balance).to(dtype)
        if not (v.isfinite().all() and u.isfinite().all()):
            raise ImcError(f"calibration bank: factors too large for {dtype}; build it for bfloat16 or float32")
        offset = torch.einsum("kd,kdr->kr", noisy, v.double())
        return cls(
            down=v.to(device).contiguous(),
            up=u.to(device).contiguous(),
            offset=offset.float().to(device),
            shift=(clean - noisy).float().to(device).contiguous(),
        )


def _check(
    shapes: dict[str, tuple[torch.Tensor, tuple[int, ...]]],
    prototype_count: int,
    rank: int,
    width: int | None = None,
) -> None:
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ImcError(f"bank: {name} is {list(tensor.shape)}, wanted {list(shape)}; rebuild the prototypes")
        if not tensor.isfinite().all():
            raise ImcError(f"bank: {name} holds a NaN or Inf; rebuild the prototypes")
    limits = {"prototypes": (prototype_count, MAX_PROTOTYPES), "rank": (rank, MAX_RANK)}
    if width is not None:
        limits["width"] = (width, MAX_WIDTH)
    for name, (value, limit) in limits.items():
        if not 1 <= value <= limit:
            raise ImcError(f"bank: {name} {value} is outside 1-{limit}; rebuild the prototypes within it")
