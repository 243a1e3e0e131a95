"""Which pictures are of no shape for a model that scales them by a side."""

from __future__ import annotations

import numpy as np

from imc_lite.errors import ImcError

THINNEST = 200  # times that the longer side of a picture may be the shorter one; Qwen-VL's own limit


def check_sides(image: np.ndarray) -> None:
    """Refuse a picture so thin that a model which scales its shorter side would need the memory of thousands.

    Args:
        image: uint8 [H, W, 3].

    Raises:
        ImcError: it is.
    """
    short, long = sorted(image.shape[:2])
    if long > THINNEST * short:
        height, width = image.shape[:2]
        raise ImcError(f"a picture of {width} x {height} pixels is too thin for this model; cut a part of it out")
