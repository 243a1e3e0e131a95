"""The fitted constants of `match`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from imc_lite.kernels.checks import check_constants, check_layout

from imc_lite.errors import ImcError

MAX_PROTOTYPES, MAX_RANK = 64, 128
NAME = "match prototypes"
LIMITS = {"K": ("prototypes", MAX_PROTOTYPES), "R": ("rank", MAX_RANK)}


@dataclass(frozen=True)
class WhitenedPrototypes:
    """K noise prototypes in a whitened space of R directions, and what tells how foreign a picture is.

    `build` makes them of what was fitted. However they are made, they are checked.

    Attributes:
        mean: float32 [S], of the statistics.
        whiten: W float32 [S, R].
        prototypes: P float32 [K, R].
        bias: float32 [K].
        precision: r float32 [S], not negative.
        cross: float32 [S, R], cross[s, j] = r_s Wp[j, s], where Wp [R, S] leads back from the directions.
        gram: float64 [R, R], Wp diag(r) Wp'.

    Raises:
        ImcError: shapes that do not fit, R > 128, K > 64, a NaN or Inf, a negative precision, another dtype than the
            ones above, or tensors that are not contiguous or not on one device.
    """

    mean: torch.Tensor
    whiten: torch.Tensor
    prototypes: torch.Tensor
    bias: torch.Tensor
    precision: torch.Tensor
    cross: torch.Tensor
    gram: torch.Tensor

    def __post_init__(self) -> None:
        axes = ("S", "SR", "KR", "K", "S", "SR", "RR")
        names = ("mean", "whiten", "prototypes", "bias", "precision", "cross", "gram")
        named = dict(zip(names, self.tensors(), strict=True))
        single, double = torch.float32, torch.float64
        check_layout(NAME, {name: (t, double if name == "gram" else single) for name, t in named.items()})
        check_constants(NAME, {n: (t, a) for (n, t), a in zip(named.items(), axes, strict=True)}, LIMITS)
        if (self.precision < 0).any():
            raise ImcError(f"{NAME}: a precision is negative; give the inverse of each residual variance")

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
    ) -> WhitenedPrototypes:
        """Check what was fitted and lay it out for `device`.

        Args:
            mean: [S], of any float dtype, as all of them.
            whiten: W [S, R].
            prototypes: P [K, R].
            bias: [K].
            precision: r [S], inverse variances of what the directions leave unexplained.
            reconstruct: Wp [R, S], back from the directions to the statistics.
            device: where `match` will be called.

        Raises:
            ImcError: as the class.
        """
        given = {
            "mean": (mean, "S"),
            "whiten": (whiten, "SR"),
            "prototypes": (prototypes, "KR"),
            "bias": (bias, "K"),
            "precision": (precision, "S"),
            "reconstruct": (reconstruct, "RS"),
        }
        check_constants(NAME, given, LIMITS)
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

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """In the order that the operator, the reference and the kernel take them."""
        return self.mean, self.whiten, self.prototypes, self.bias, self.precision, self.cross, self.gram
