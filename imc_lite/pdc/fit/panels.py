"""Several clean pictures in one, as figures and viewers show them: side by side, below one another, in a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from imc_lite.noise.as_met import SIDES, between

GRIDS = (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 2), (2, 4), (3, 3)  # rows, columns
MOST = max(rows * columns for rows, columns in GRIDS)
GAP = 0.05  # widest line between pictures, as a share of a picture's longer side
CROPPED = 0.5  # share of panels whose pictures fill their places; in others all of a picture is seen


def make_panel(images: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Some of the pictures in one, which is no less clean than they are.

    Args:
        images: uint8 [H, W, 3] each, of any sizes, at least 2; the first is always among those shown, and its shape is
            that of every place.
        seed: any non-negative integer; draws the grid, the line between pictures, and the size.

    Returns:
        uint8 [h, w, 3]; the pictures' longer side together is within `imc_lite.noise.as_met.SIDES` but for rounding;
        lines and a rim come to it.
    """
    rng = np.random.default_rng([seed, len(GRIDS)])
    grids = [grid for grid in GRIDS if grid[0] * grid[1] <= len(images)]
    rows, columns = grids[rng.integers(len(grids))]
    side = between(*SIDES, rng)
    shape = images[0].shape
    scale = side / max(rows * shape[0], columns * shape[1])
    height, width = (max(1, round(n * scale)) for n in shape[:2])
    # Half of the panels have no line at all, or a hair's breadth.
    gap = round(max(0.0, rng.uniform(-GAP, GAP)) * max(height, width))
    ground = (0, 255, int(rng.integers(256)))[rng.integers(3)]
    rim, cropped = gap * int(rng.integers(2)), rng.random() < CROPPED
    down, across = height + gap, width + gap
    panel = np.full((rows * down - gap + 2 * rim, columns * across - gap + 2 * rim, 3), ground, np.uint8)
    for place, image in enumerate(images[: rows * columns]):
        top, left = rim + place // columns * down, rim + place % columns * across
        picture, size = Image.fromarray(image), (width, height)
        panel[top : top + height, left : left + width] = (
            ImageOps.fit(picture, size) if cropped else ImageOps.pad(picture, size, color=(ground,) * 3)
        )
    return panel
