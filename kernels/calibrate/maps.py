"""The fitted constants of `calibrate`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from imc_lite.kernels.checks import TOKEN_DTYPES, check_constants, check_layout

from imc_lite.errors import ImcError

MAX_MAPS, MAX_RANK, MAX_WIDTH = 64, 128, 8192
NAME = "calibration maps"
LIMITS = {"K": ("maps", MAX_MAPS), "R": ("rank", MAX_RANK), "D": ("width", MAX_WIDTH)}


@dataclass(frozen=True)
class LowRankMaps:
    """K low-rank maps from noisy tokens of width D back to clean ones, one for each noise kind and severity.

    Map k carries x to x + (x - m_k) V_k U_k + (c_k - m_k), with the means m_k of noisy and c_k of clean tokens. However
    the maps are made, they are checked; `build` makes them of what was fitted.

    Attributes:
        down: V [K, D, R] in the dtype of the tokens (float32, float16, bfloat16).
        up: U [K, R, D], of the same dtype.
        offset: float32 [K, R], m_k V_k.
        shift: float32 [K, D], c_k - m_k.

    Raises:
        ImcError: shapes that do not fit, D > 8192, R > 128, K > 64, a NaN or Inf, another dtype than the ones above,
            or tensors that are not contiguous or not on one device.
    """

    down: torch.Tensor
    up: torch.Tensor
    offset: torch.Tensor
    shift: torch.Tensor

    def __post_init__(self) -> None:
        _check_dtype(self.down.dtype)
        own, single = self.down.dtype, torch.float32
        dtypes = {"down": own, "up": own, "offset": single, "shift": single}
        axes = {"down": "KDR", "up": "KRD", "offset": "KR", "shift": "KD"}
        named = dict(zip(dtypes, self.tensors(), strict=True))
        check_layout(NAME, {name: (t, dtypes[name]) for name, t in named.items()})
        check_constants(NAME, {name: (t, axes[name]) for name, t in named.items()}, LIMITS)

    @classmethod
    def build(
        cls,
        noisy_mean: torch.Tensor,
        clean_mean: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> LowRankMaps:
        """Check what was fitted and lay it out for tokens of `dtype` on `device`.

        Each V_k U_k keeps its value while the two factors are brought to one scale by a power of two, so that neither
        leaves the range of float16. The offset is taken from the rounded V: what the kernel subtracts is then exactly
        what it added.

        Args:
            noisy_mean: m [K, D], of any float dtype, as all of them.
            clean_mean: c [K, D].
            down: V [K, D, R].
            up: U [K, R, D].
            dtype: of the tokens: float32, float16, bfloat16.
            device: where `calibrate` will be called.

        Raises:
            ImcError: as the class; or a factor that `dtype` cannot hold.
        """
        _check_dtype(dtype)
        given = {"down": (down, "KDR"), "up": (up, "KRD"), "noisy_mean": (noisy_mean, "KD")}
        check_constants(NAME, {**given, "clean_mean": (clean_mean, "KD")}, LIMITS)
        noisy, clean, v, u = (t.detach().double() for t in (noisy_mean, clean_mean, down, up))
        tiny = torch.finfo(torch.float64).tiny
        ratio = v.abs().amax((1, 2)).clamp_min(tiny) / u.abs().amax((1, 2)).clamp_min(tiny)
        balance = torch.exp2(torch.round(0.5 * torch.log2(ratio)).clamp(-60, 60))[:, None, None]
        v, u = (v / balance).to(dtype), (u * balance).to(dtype)
        if not (v.isfinite().all() and u.isfinite().all()):
            raise ImcError(f"{NAME}: factors too large for {dtype}; build them for bfloat16 or float32")
        offset = torch.einsum("kd,kdr->kr", noisy, v.double())
        return cls(
            down=v.to(device).contiguous(),
            up=u.to(device).contiguous(),
            offset=offset.float().to(device),
            shift=(clean - noisy).float().to(device).contiguous(),
        )

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """In the order that the operator, the reference and the kernel take them."""
        return self.down, self.up, self.offset, self.shift


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in TOKEN_DTYPES:
        raise ImcError(f"{NAME}: tokens of {dtype} have no kernel; use float32, float16 or bfloat16")
