"""Views of pictures: what is drawn for each, what becomes of its labels, and the drawing itself, on any device.

Ordinary augmentation only: size, crop, turn, flips where they change nothing, aspect, brightness, contrast, gamma and
resolution. Image noise never enters: robustness has to come from calibration, not from training.

A view is drawn from a square on which the picture lies centred on black, in coordinates from -1 to 1. `matrix` [2, 3]
takes a place in the view to its place on the square, as `torch.nn.functional.affine_grid` wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sets import Row
from torch import Tensor

from imc_lite.images.resize import resize_picture, size_filling
from imc_lite.models.default.spec import ENCODER

SIDE = ENCODER.side
STORED = 384  # side of the squares that views are drawn from
UNTOUCHED = 0.15  # share of views that are the picture as the runtime sees it
LOW = (180, SIDE)  # sizes that a picture is shrunk to and brought back from
LOW_SHARE = 0.35


@dataclass(frozen=True)
class Policy:
    """How far a set's pictures may be changed without changing what their labels say."""

    zoom: tuple[float, float] = (0.88, 1.15)
    turn: float = 8.0  # degrees
    quarters: bool = False  # turns by 90 degrees
    aspect: float = 0.06  # of its logarithm
    shift: float = 0.05  # of half the side
    spread: float = 0.5  # of what an enlarged view could still be moved by
    mirror: float = 0.0
    upside_down: float = 0.0
    colour: float = 0.0


POLICIES = {
    "vqa_rad": Policy(),
    "hannover_cxr": Policy(),
    "child_cxr": Policy(zoom=(0.85, 1.2), turn=10),
    "nih_cxr": Policy(zoom=(0.85, 1.2), turn=10),
    "brain_mri": Policy(zoom=(0.85, 1.2), turn=15, mirror=0.5),
    "dermoscopy": Policy(zoom=(0.85, 1.4), turn=20, quarters=True, mirror=0.5, upside_down=0.5, colour=0.06),
    "foot_photo": Policy(zoom=(0.85, 1.3), turn=15, mirror=0.5, upside_down=0.25, colour=0.06),
    # Counts are of the whole picture, so all of it stays in view.
    "nuclei": Policy((0.8, 1.0), 0, True, aspect=0, shift=0, mirror=0.5, upside_down=0.5, colour=0.04),
    "bccd": Policy(zoom=(0.9, 2.0), turn=0, spread=0.9, mirror=0.5, upside_down=0.5, colour=0.04),
}


@dataclass(frozen=True)
class View:
    """One view to be drawn."""

    row: int
    untouched: bool
    matrix: np.ndarray  # float32 [2, 3]
    gain: np.ndarray  # float32 [3], of red, green and blue
    gamma: float
    contrast: float
    low: int  # side that it is shrunk to and brought back from; 0 for none


def plain_view(row: int) -> View:
    """The picture as the runtime sees it."""
    return View(row, True, np.eye(2, 3, dtype=np.float32), np.ones(3, np.float32), 1.0, 1.0, 0)


def draw_view(row: int, source: str, rng: np.random.Generator) -> View:
    """A view of a picture of this set at random."""
    if rng.random() < UNTOUCHED:
        return plain_view(row)
    policy = POLICIES[source]
    zoom = float(np.exp(rng.uniform(*np.log(policy.zoom))))
    angle = np.deg2rad(rng.uniform(-policy.turn, policy.turn) + 90 * (rng.integers(4) if policy.quarters else 0))
    aspect = float(np.exp(rng.uniform(-policy.aspect, policy.aspect)))
    flips = [-1.0 if rng.random() < p else 1.0 for p in (policy.mirror, policy.upside_down)]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([flips[0] * aspect, flips[1] / aspect]) / zoom
    reach = policy.shift + policy.spread * max(0.0, 1 - 1 / zoom)
    place = rng.uniform(-reach, reach, 2)
    gain = np.exp(rng.uniform(-0.1, 0.1) + rng.uniform(-policy.colour, policy.colour, 3))
    low = int(rng.integers(*LOW)) if rng.random() < LOW_SHARE else 0
    gamma, contrast = float(np.exp(rng.uniform(-0.15, 0.15))), float(rng.uniform(0.9, 1.12))
    whole = np.column_stack([matrix, place]).astype(np.float32)
    return View(row, False, whole, gain.astype(np.float32), gamma, contrast, low)


def to_view(view: View, size: Sequence[int], x: float, y: float) -> tuple[float, float]:
    """Where a place of the picture (shares of its width and height) lies in the view (shares of its side)."""
    width, height = size
    square = np.array([(2 * x - 1) * width, (2 * y - 1) * height]) / max(size)
    at = np.linalg.solve(view.matrix[:, :2].astype(np.float64), square - view.matrix[:, 2])
    return float(at[0] + 1) / 2, float(at[1] + 1) / 2


def view_labels(view: View, row: Row) -> dict:
    """The labels as they hold for the view: places moved, areas scaled, `cells` (kind, x, y) that are in view."""
    labels = dict(row.labels)
    if row.source == "foot_photo" and labels["label"] == "ulcer":
        x, y = to_view(view, row.size, labels["x"], labels["y"])
        area = labels["area"] / abs(float(np.linalg.det(view.matrix[:, :2].astype(np.float64))))
        inside = 0.02 < x < 0.98 and 0.02 < y < 0.98
        labels |= {"x": x, "y": y, "area": area} if inside else {"x": None, "y": None, "area": None}
    if row.source == "bccd":
        moved = [
            (kind, *to_view(view, row.size, (x0 + x1) / 2, (y0 + y1) / 2)) for kind, x0, y0, x1, y1 in labels["boxes"]
        ]
        labels["cells"] = [(kind, x, y) for kind, x, y in moved if 0 < x < 1 and 0 < y < 1]
    return labels


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """An array to the device, without waiting for what the device is doing."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Pictures:
    """All pictures on one device, as squares to draw from and as the runtime sees them."""

    def __init__(self, rows: list[Row], device: torch.device, workers: int) -> None:
        squares = np.empty((len(rows), STORED, STORED, 3), np.uint8)
        seen = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)

        def read(i: int) -> None:
            image = np.asarray(Image.open(rows[i].path).convert("RGB"))
            squares[i], seen[i] = on_square(image, STORED), on_square(image, SIDE)

        with ThreadPoolExecutor(max(1, workers)) as pool:
            list(pool.map(read, range(len(rows))))
        self.squares, self.seen = torch.from_numpy(squares).to(device), torch.from_numpy(seen).to(device)
        self.device = device

    @torch.no_grad()
    def draw(self, views: Sequence[View]) -> Tensor:
        """The views as the encoder takes them, float32 [B, 3, 320, 320]."""
        rows = send(np.array([v.row for v in views]), self.device)
        pixels = self.seen[rows].permute(0, 3, 1, 2).float().contiguous()
        changed = [i for i, v in enumerate(views) if not v.untouched]
        if changed:
            where = send(np.array(changed), self.device)
            pixels[where] = self._changed(rows[where], [views[i] for i in changed])
        return (pixels - ENCODER.mean) / ENCODER.std

    def _changed(self, rows: Tensor, views: list[View]) -> Tensor:
        """float32 [B, 3, 320, 320], 0 to 255."""
        squares = self.squares[rows].permute(0, 3, 1, 2).float().contiguous() / 255
        grid = F.affine_grid(self._tensor([v.matrix for v in views]), [len(views), 3, SIDE, SIDE], align_corners=False)
        drawn = F.grid_sample(squares, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
        for i, view in enumerate(views):
            if view.low:
                drawn[i : i + 1] = _resized(_resized(drawn[i : i + 1], view.low), SIDE)
        gamma = self._tensor([v.gamma for v in views])[:, None, None, None]
        gain = self._tensor([v.gain for v in views])[:, :, None, None]
        contrast = self._tensor([v.contrast for v in views])[:, None, None, None]
        drawn = drawn.clamp(0, 1) ** gamma * gain
        return ((drawn - 0.5) * contrast + 0.5).clamp(0, 1) * 255

    def _tensor(self, values: list) -> Tensor:
        return send(np.array(values, np.float32), self.device)


def _resized(pixels: Tensor, side: int) -> Tensor:
    return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)


def on_square(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [side, side, 3], placed as `imc_lite.models.default.preprocess` places it."""
    height, width = size_filling(image.shape, side)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + height, left : left + width] = resize_picture(image, (height, width))
    return square
