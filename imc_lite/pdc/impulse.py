"""Are single pixels of a picture black or white that should be neither? Told by the pixels themselves.

Impulses whose grain is one pixel of a large picture reach an encoder averaged, as something near Gaussian noise, and no
statistic of its pass tells the two apart. At the picture's own size nothing is easier to tell.
"""

from __future__ import annotations

import numpy as np

from imc_lite.images.grey import is_grey
from imc_lite.noise.image import IMAGE_NOISE

SIDE = 512  # pixels of the middle of a picture, which is looked at; a larger picture's borders are left out
NEIGHBOURS = 7  # of eight, neither black nor white: on so many a pixel is judged; lines and letters have fewer
APART = 48  # grey levels between an impulse and what surrounds it
FEWEST = 0.015  # share of the pixels that are judged; clean pictures stay far below
# Grey levels, the median distance of the other pixels from their neighbours. Strong Gaussian noise and speckle reach
# black and white too, and the pixels that they leave in between are far from smooth.
SMOOTH = 16.0


def impulse_strength(image: np.ndarray) -> float:
    """The strength, 1-5, of the impulse noise in a picture, between the bank's levels; 0 where the pixels show none.

    Args:
        image: uint8 [H, W, 3], of its own size.
    """
    top, left = (max(0, n - SIDE) // 2 for n in image.shape[:2])
    middle = image[top : top + SIDE, left : left + SIDE]
    planes = np.moveaxis(middle[..., :1] if is_grey(middle) else middle, 2, 0)
    good = (planes > 0) & (planes < 255)
    if 1 - good.mean() < FEWEST or min(planes.shape[1:]) < 3:
        return 0.0
    count = _around(good.astype(np.uint8))
    total = _around(np.where(good, planes, 0).astype(np.uint16))
    mean = total / np.maximum(count, 1)
    # Where black would stand out as well as white.
    judged = (count >= NEIGHBOURS) & (mean > APART) & (mean < 255 - APART)
    inner, ordinary = planes[:, 1:-1, 1:-1], good[:, 1:-1, 1:-1]
    impulses = judged & ~ordinary & (np.abs(inner - mean) > APART)
    share = impulses.sum() / max(judged.sum(), 1)
    smooth = np.abs(inner - mean)[judged & ordinary]
    if judged.mean() < FEWEST or share < FEWEST or not len(smooth) or np.median(smooth) > SMOOTH:
        return 0.0
    return IMAGE_NOISE.find("impulse").strength(share)


def _around(planes: np.ndarray) -> np.ndarray:
    """Sums over the eight neighbours of every inner pixel, [C, H, W] -> [C, H - 2, W - 2]."""
    rows = planes[:, :-2] + planes[:, 1:-1] + planes[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] - planes[:, 1:-1, 1:-1]
