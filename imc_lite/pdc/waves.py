"""Waves across a picture, which spikes in an MRI scan's k-space leave: found in the pixels, and taken away.

A wave is one point of a picture's spectrum, far above all around it, and an encoder's statistics hardly tell it. Taken
from the pixels at their own size, before anything is averaged, it leaves next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from imc_lite.images.resize import shrink_planes, size_within
from imc_lite.noise.image import IMAGE_NOISE
from imc_lite.noise.planes import REFERENCE

SIDE = 128  # pixels of the middle of a picture, in which waves are looked for
SLOWEST = 4.0  # waves across so many pixels; below, the picture's own shapes are as strong
RING = 3, 8  # steps of frequency from a peak, between which lies what it is compared with
# Times the highest of the ring, and times its median. 500 clean pictures, each at two sizes, and eight other noises
# stay below 2.2 times the highest.
PEAK, ABOVE = 2.5, 20.0
FAINTEST = 2.0  # grey levels of a wave's amplitude
MOST = 4  # waves taken away
SEEN = 512  # pixels of the middle, on which amplitudes are fitted
PAIRS = 10_000  # of pixels at most, for each distance
CUT = 3  # grey levels from black and white, where a wave is cut off; and that it has to reach beyond
FAR = 6  # pixels at most between the two of a pair
ROUNDS = 6  # of reweighting


@dataclass(frozen=True)
class Wave:
    """A wave: `down` and `across` in cycles a pixel, `amplitude` in grey levels as its peak shows it."""

    down: float
    across: float
    amplitude: float


def find_wave(planes: np.ndarray) -> Wave | None:
    """The strongest wave in the middle of a picture, [H, W, C] in grey levels; None where there is none."""
    middle = _middle(planes, SIDE)[..., planes.shape[2] // 2].astype(np.float32)
    height, width = middle.shape
    if min(height, width) < SIDE // 4:
        return None
    window, fast_enough = _window(height, width)
    spectrum = np.abs(np.fft.rfft2((middle - middle.mean()) * window))
    fast = spectrum * fast_enough
    y, x = np.unravel_index(fast.argmax(), fast.shape)
    amplitude = float(fast[y, x])
    if amplitude < FAINTEST:
        return None
    # In steps of frequency; the lowest row lies beside the highest.
    near = np.arange(-RING[1], RING[1] + 1)
    columns = x + near[(near >= -x) & (near < spectrum.shape[1] - x)]
    distance = np.hypot(near[:, None], columns - x)
    around = spectrum[np.ix_((y + near) % height, columns)]
    ring = around[(distance >= RING[0]) & (distance <= RING[1])]
    if amplitude < PEAK * ring.max() or amplitude < ABOVE * np.median(ring):
        return None
    return Wave(float(np.fft.fftfreq(height)[y]), float(np.fft.rfftfreq(width)[x]), amplitude)


@lru_cache(maxsize=1)
def _window(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hann's window, float32 [height, width], scaled so that a wave's peak is its amplitude; and which frequencies of
    such a picture's spectrum are looked at, bool [height, width // 2 + 1]."""
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    return window * (2 / window.sum()), np.hypot(down, across) * SIDE >= SLOWEST


def spike_strength(image: np.ndarray) -> float:
    """The strength, 1-5, of the spike whose wave a picture shows, between the bank's levels; 0 where it shows none.

    Args:
        image: uint8 [H, W, 3], of its own size.
    """
    wave = find_wave(image)
    if wave is None:
        return 0.0
    return IMAGE_NOISE.find("spike").strength(wave.amplitude / max(float(_middle(image, SIDE).mean()), 1.0))


def remove_waves(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture without its waves, at its own size.

    Args:
        image: uint8 [H, W, C].

    Returns:
        Planes float32 [H, W, C] in grey levels, and where they can be trusted, bool [H, W, C]: elsewhere the wave had
        reached black or white, and what is left is the most, or the least, that the picture can be.
    """
    dark, bright = image < CUT, image > 255 - CUT
    inside, seen = ~(dark | bright), image.astype(np.float32)
    planes = seen.copy()
    for _ in range(MOST):
        wave = find_wave(planes)
        if wave is None:
            break
        down, across = _refined(planes, wave)
        weights = _fitted(planes, inside, down, across)
        # Where a wave was cut off, a shadow of it stays that no other wave takes away.
        if max(np.hypot(*pair) for pair in weights) < FAINTEST:
            break
        for channel, pair in enumerate(weights):
            planes[..., channel] -= _drawn(planes.shape[:2], down, across, *pair)
    # Black where the waves go up was black before.
    cut = (dark & (planes > seen + CUT)) | (bright & (planes < seen - CUT))
    return planes.clip(0, 255), ~cut


def shrink_without_waves(image: np.ndarray) -> np.ndarray:
    """The same at a longer side of at most 320, filled from around where it cannot be trusted: float32 [h, w, C]."""
    planes, inside = remove_waves(image)
    size = size_within(image.shape, REFERENCE)
    weight = shrink_planes(inside.astype(np.float32), size)
    values = shrink_planes(planes * inside, size) / np.maximum(weight, 1e-6)
    plain = shrink_planes(planes, size)
    return np.where(weight > 0.3, values, _filled(weight, values, plain, shrink_planes(image.astype(np.float32), size)))


def _filled(weight: np.ndarray, values: np.ndarray, plain: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """From ever wider surroundings; but not above what a pixel that was black can be, nor below one that was white."""
    filled, found = plain, np.zeros(plain.shape, bool)
    for reach in (1, 3, 9):
        around = _box(weight, reach)
        take = ~found & (around > 0.1)
        filled = np.where(take, _box(weight * values, reach) / np.maximum(around, 1e-6), filled)
        found |= take
    return np.where(seen < 128, np.minimum(filled, plain), np.maximum(filled, plain))


def _box(planes: np.ndarray, reach: int) -> np.ndarray:
    """Mean over a square of side 2 reach + 1, edges replicated."""
    side = 2 * reach + 1
    sums = np.pad(planes, ((reach + 1, reach), (reach + 1, reach), (0, 0)), mode="edge").astype(np.float64)
    sums = sums.cumsum(0).cumsum(1)
    found = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (found / side**2).astype(np.float32)


def _middle(planes: np.ndarray, side: int) -> np.ndarray:
    top, left = (max(0, n - side) // 2 for n in planes.shape[:2])
    return planes[top : top + side, left : left + side]


def _refined(planes: np.ndarray, wave: Wave) -> tuple[float, float]:
    """The frequency at which a wave is strongest: first in the middle, then over the whole picture."""
    down, across = wave.down, wave.across
    for part in (_middle(planes, SIDE), _middle(planes, SEEN), planes):
        # A few hundred lines of the picture tell as much as all.
        rows = np.arange(0, part.shape[0], -(-part.shape[0] // 256))
        lines = part[rows].mean(2)
        lines = (lines - lines.mean()) * np.outer(np.hanning(len(rows)), np.hanning(part.shape[1])).astype(np.float32)
        columns = np.arange(part.shape[1])
        steps = np.array([0.5 / n for n in part.shape[:2]])
        for _ in range(8):
            downs, acrosses = down + steps[0] * np.arange(-1, 2), across + steps[1] * np.arange(-1, 2)
            turned = np.exp(-2j * np.pi * np.outer(downs, rows)).astype(np.complex64)
            # Real and imaginary parts in one product: a complex one would make all lines complex each time.
            left = (np.concatenate([turned.real, turned.imag]) @ lines).reshape(2, 3, -1)
            right = np.exp(-2j * np.pi * np.outer(columns, acrosses)).astype(np.complex64)
            strength = np.abs((left[0] + 1j * left[1]) @ right)
            y, x = np.unravel_index(strength.argmax(), strength.shape)
            down, across = float(downs[y]), float(acrosses[x])
            if (y, x) == (1, 1):
                steps /= 3
    return down, across


def _fitted(planes: np.ndarray, inside: np.ndarray, down: float, across: float) -> list[tuple[float, float]]:
    """Weights of cosine and sine in each channel: least absolute deviations of the differences of pixels that lie about
    half a wave apart, and of which neither was cut off; the picture's own differences have nothing to do with them."""
    top, left = (max(0, n - SEEN) // 2 for n in planes.shape[:2])
    middle, ordinary = _middle(planes, SEEN), _middle(inside, SEEN)
    height, width = middle.shape[:2]
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, max(1, height - FAR), PAIRS), rng.integers(FAR, max(FAR + 1, width - FAR), PAIRS)
    near = [(a, b) for a in range(FAR + 1) for b in range(-FAR, FAR + 1) if (a, b) > (0, 0)]
    near.sort(key=lambda lag: np.cos(2 * np.pi * (down * lag[0] + across * lag[1])) + 0.06 * np.hypot(*lag))
    pairs = [(y, x, (y + a).clip(max=height - 1), (x + b).clip(0, width - 1)) for a, b in near[:3]]
    first = np.concatenate([p[0] * width + p[1] for p in pairs])
    second = np.concatenate([p[2] * width + p[3] for p in pairs])

    def phase(flat: np.ndarray) -> np.ndarray:
        return 2 * np.pi * (down * (flat // width + top) + across * (flat % width + left))

    waves = np.stack([np.cos(phase(first)) - np.cos(phase(second)), np.sin(phase(first)) - np.sin(phase(second))], 1)
    weights = []
    for channel in range(planes.shape[2]):
        values, usable = middle[..., channel].ravel(), ordinary[..., channel].ravel()
        both = usable[first] & usable[second]
        if both.sum() < 100:
            weights.append((0.0, 0.0))
            continue
        rows, wanted = waves[both], (values[first] - values[second])[both]
        weight, found = np.ones(len(rows)), np.zeros(2)
        for _ in range(ROUNDS):
            found = np.linalg.solve((rows.T * weight) @ rows + 1e-6 * np.eye(2), (rows.T * weight) @ wanted)
            weight = 1 / np.maximum(np.abs(wanted - rows @ found), 1.0)
        weights.append((float(found[0]), float(found[1])))
    return weights


def _drawn(size: tuple[int, int], down: float, across: float, cosine: float, sine: float) -> np.ndarray:
    """The wave over a whole picture, float32 [H, W]."""
    y, x = (2 * np.pi * f * np.arange(n) for f, n in zip((down, across), size, strict=True))
    left = np.stack([np.cos(y), np.sin(y)], 1)
    right = np.stack([cosine * np.cos(x) + sine * np.sin(x), sine * np.cos(x) - cosine * np.sin(x)])
    return (left @ right).astype(np.float32)
