"""Whether a picture has no colour: most medical ones have none, and then a third of the work is enough."""

from __future__ import annotations

import numpy as np


def is_grey(image: np.ndarray) -> bool:
    """Whether all channels of a picture [H, W, C] are equal."""
    first = image[..., 0]
    return all(np.array_equal(first, image[..., channel]) for channel in range(1, image.shape[2]))
