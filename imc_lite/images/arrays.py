"""Which arrays are pictures."""

from __future__ import annotations

import numpy as np

from imc_lite.errors import ImcError, shown


def check_array(array: np.ndarray) -> None:
    """Refuse what is no picture.

    Args:
        array: [H, W] or [H, W, 3], uint8 or float within 0-1.

    Raises:
        ImcError: it is something else.
    """
    if not isinstance(array, np.ndarray):
        raise ImcError(f"an image must be an array, not {type(array).__name__}; load it: imc_lite.load_image")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or 0 in array.shape:
        raise ImcError(f"an image array must be [H, W] or [H, W, 3], not {list(array.shape)}; convert it first")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise ImcError("an image array of float must be within 0-1, without NaN; scale it, or convert it to uint8")
    elif array.dtype != np.uint8:
        raise ImcError(f"an image array must be uint8 or float within 0-1, not {shown(array.dtype)}; convert it first")
