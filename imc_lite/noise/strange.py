"""Copies of a picture that carry what no bank has: veils, drops, strokes, a second exposure, warps, tears, other tones.

Nobody is shown them, and no verdict bears their names. From them is learnt what no clean picture looks like (outlier
exposure, Hendrycks et al., arXiv 1812.04606), so that a picture under something nobody thought of is not called clean.
They are drawn as widely as their names allow; none is made after the noise of another project.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imc_lite.images.grey import is_grey
from imc_lite.images.resize import resize_picture, resize_planes, size_filling
from imc_lite.noise.as_met import SIDES, between
from imc_lite.noise.planes import REFERENCE

TIMES = 2  # copies of each family
FINEST = 256  # of the fields that veils and drops are cut from, in pixels a side

Make = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def strange_copies(image: np.ndarray, seed: int) -> list[np.ndarray]:
    """As many as `FAMILIES` has names, `TIMES` over, each at a size that is drawn.

    Args:
        image: uint8 [H, W, 3].
        seed: any non-negative integer.

    Returns:
        uint8 [h, w, 3] each.
    """
    rng = np.random.default_rng([seed, len(FAMILIES)])
    found = []
    for make in FAMILIES * TIMES:
        sized = resize_picture(image, size_filling(image.shape, between(*SIDES, rng)))
        made = make(sized.astype(np.float64) / 255, rng)
        found.append(np.rint(255 * np.clip(made, 0, 1)).astype(np.uint8))
    return found


def _veil(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A cloud of any grain before the picture, of a colour of its own or shining."""
    cloud = _cloud(planes, rng, rng.uniform(0.3, 3))
    if rng.random() < 2 / 3:
        opaque = 1 / (1 + np.exp(-cloud * np.exp(rng.uniform(0, 1.5)) - rng.uniform(-1, 1)))
    else:
        opaque = np.clip(cloud * rng.uniform(0.3, 1) + rng.uniform(-0.3, 0.5), 0, 1)
    opaque *= rng.uniform(0.25, 0.9)
    colour = _colour(planes, rng)
    if rng.random() < 0.5:
        colour = np.clip(colour + rng.uniform(0.05, 0.3) * _cloud(planes, rng, rng.uniform(0.3, 3)), 0, 1)
    if rng.random() < 0.6:
        return planes * (1 - opaque) + opaque * colour
    return planes * rng.uniform(0.5, 1) + opaque * colour * rng.uniform(0.4, 1)


def _drops(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spots of any shape, sharp or soft: a colour, brighter or darker, or the picture seen beside its place."""
    cloud = _cloud(planes, rng, rng.uniform(1.5, 4)) if rng.random() < 0.5 else _blobs(planes, rng)
    border = np.quantile(cloud, 1 - rng.uniform(0.02, 0.35))
    opaque = np.clip((cloud - border) / np.exp(rng.uniform(-3, 0)) + 0.5, 0, 1) * rng.uniform(0.5, 1)
    height, width = planes.shape[:2]
    inside = (
        lambda: _colour(planes, rng),
        lambda: planes * rng.choice([rng.uniform(0.2, 0.6), rng.uniform(1.3, 2)]),
        lambda: np.roll(
            planes, (rng.integers(-height // 8, height // 8 + 1), rng.integers(-width // 8, width // 8 + 1)), (0, 1)
        ),
    )[rng.integers(3)]()
    return planes * (1 - opaque) + opaque * np.clip(inside, 0, 1)


def _strokes(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scratches, hairs, pen: lines of any number and width."""
    height, width = planes.shape[:2]
    grain = max(height, width) / REFERENCE
    sheet = Image.new("L", (width, height))
    pen = ImageDraw.Draw(sheet)
    for _ in range(int(np.exp(rng.uniform(1, 4)))):
        count = int(rng.integers(2, 6))
        x, y = rng.uniform(0, width, count), rng.uniform(0, height, count)
        if rng.random() < 0.6:
            x, y = (a[0] + np.cumsum(rng.normal(0, 0.05 * n, count)) for a, n in ((x, width), (y, height)))
        thick = max(1, int(np.exp(rng.uniform(-1, 2.3)) * grain))
        pen.line([*zip(x.tolist(), y.tolist(), strict=True)], fill=int(rng.integers(120, 256)), width=thick)
    if rng.random() < 0.4:
        sheet = sheet.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2) * grain))
    opaque = np.asarray(sheet, np.float64)[..., None] / 255 * rng.uniform(0.5, 1)
    return planes * (1 - opaque) + opaque * _colour(planes, rng)


def _double(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposed twice: the picture, and itself turned, mirrored or a part of it enlarged."""
    height, width = planes.shape[:2]
    other = np.rot90(planes, int(rng.integers(4)))[:: rng.choice([-1, 1])]
    share = rng.uniform(0.4, 1)
    h, w = (max(1, int(n * share)) for n in other.shape[:2])
    top, left = rng.integers(other.shape[0] - h + 1), rng.integers(other.shape[1] - w + 1)
    part = other[top : top + h, left : left + w]
    second = resize_planes(np.ascontiguousarray(part), (height, width), Image.Resampling.BILINEAR)
    weight = rng.uniform(0.3, 0.65)
    if rng.random() < 0.5:
        return planes * (1 - weight) + weight * second
    return planes * rng.uniform(0.6, 1) + weight * second


def _warp(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every place moved, near ones alike."""
    height, width = planes.shape[:2]
    longest = max(height, width)
    reach = np.exp(rng.uniform(np.log(0.006), np.log(0.08))) * longest
    cells = max(2, round(longest / reach))
    shift = reach * rng.uniform(0.15, 0.6, 2) * _smooth(rng.standard_normal((cells, cells, 2)), (height, width))
    y = np.clip(np.arange(height)[:, None] + shift[..., 0], 0, height - 1)
    x = np.clip(np.arange(width) + shift[..., 1], 0, width - 1)
    top, left = y.astype(int), x.astype(int)
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (y - top)[..., None], (x - left)[..., None]
    upper = planes[top, left] * (1 - across) + planes[top, right] * across
    return upper * (1 - down) + (planes[below, left] * (1 - across) + planes[below, right] * across) * down


def _tear(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lines that slipped, blocks or lines that are missing."""
    height, width = planes.shape[:2]
    torn, kind = planes.copy(), rng.integers(3)
    if kind == 0:
        for _ in range(rng.integers(3, 25)):
            top = rng.integers(height)
            rows = slice(top, top + max(1, int(rng.exponential(0.04 * height))))
            torn[rows] = np.roll(torn[rows], int(rng.normal(0, 0.12 * width)), 1)
    elif kind == 1:
        count, grey = int(rng.integers(4, 20)), rng.uniform(0, 1)
        for _ in range(rng.integers(3, max(4, count * count // 3))):
            row, column = rng.integers(count), rng.integers(count)
            rows = slice(row * height // count, (row + 1) * height // count)
            columns = slice(column * width // count, (column + 1) * width // count)
            torn[rows, columns] = grey if rng.random() < 0.6 else rng.uniform(0, 1)
    else:
        grey = rng.uniform(0, 1)
        for _ in range(rng.integers(3, 40)):
            top = rng.integers(height)
            torn[top : top + max(1, int(rng.exponential(0.012 * height)))] = grey
    return torn


def _tone(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Few levels, bright ones inverted, over- or underexposed, a cast, or colours too strong."""
    kind = rng.integers(5)
    if kind == 0:
        levels = rng.integers(2, 6)
        return np.round(planes * levels) / levels
    if kind == 1:
        return np.where(planes > rng.uniform(0.3, 0.8), 1 - planes, planes)
    if kind == 2:
        return planes ** np.exp(rng.choice([-1, 1]) * rng.uniform(0.7, 1.6))
    if kind == 3:
        return planes * rng.uniform(0.3, 1.6, 3) + rng.uniform(-0.2, 0.2, 3)
    grey = planes.mean(2, keepdims=True)
    return grey + (planes - grey) * rng.uniform(2, 6) + rng.uniform(-0.15, 0.15, 3) * rng.integers(2)


def _fold(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wrapped round, as by too small a field of view."""
    height, width = planes.shape[:2]
    if rng.random() < 0.5:
        moved = np.roll(planes, (height // 2 if rng.random() < 0.5 else 0, width // 2), (0, 1))
    else:
        moved = np.roll(planes, int(rng.uniform(0.1, 0.5) * height), 0)
    return planes * rng.uniform(0.6, 1) + moved * rng.uniform(0.3, 0.7)


def _cloud(planes: np.ndarray, rng: np.random.Generator, slope: float) -> np.ndarray:
    """A field of noise whose power falls with frequency, stretched along a line or not: [H, W, 1], deviation 1."""
    down, across = np.fft.fftfreq(FINEST)[:, None], np.fft.fftfreq(FINEST)
    angle, stretched = rng.uniform(0, np.pi), np.exp(rng.uniform(-1, 1)) if rng.random() < 0.5 else 1.0
    along = (down * np.cos(angle) + across * np.sin(angle)) * stretched
    aside = (across * np.cos(angle) - down * np.sin(angle)) / stretched
    frequency = np.hypot(along, aside)
    frequency[0, 0] = 1
    white = np.fft.fft2(rng.standard_normal((FINEST, FINEST)))
    field = np.fft.ifft2(white * frequency ** (-slope / 2)).real
    side = int(rng.integers(FINEST // 4, FINEST + 1))
    return _unit(_smooth(_unit(field[:side, :side, None]), planes.shape[:2]))


def _blobs(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth field whose bumps are a hundredth to a tenth of the picture wide: [H, W, 1], deviation 1."""
    cells = int(np.exp(rng.uniform(np.log(10), np.log(80))))
    return _unit(_smooth(rng.standard_normal((cells, cells, 1)), planes.shape[:2]))


def _smooth(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_planes(field, size, Image.Resampling.BICUBIC)


def _unit(field: np.ndarray) -> np.ndarray:
    return (field - field.mean()) / (field.std() + 1e-9)


def _colour(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of what lies before a picture: before a grey one mostly grey too."""
    if rng.random() < (0.7 if is_grey(planes) else 0.5):
        return np.full(3, rng.choice([0.0, 1.0, rng.uniform(0, 1)], p=[0.2, 0.4, 0.4]))
    return rng.uniform(0, 1, 3)


FAMILIES: tuple[Make, ...] = (_veil, _drops, _strokes, _double, _warp, _tear, _tone, _fold)
