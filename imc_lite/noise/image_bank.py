"""The image noises that prototypes are built for. Their order is that of the prototypes: new ones go last."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imc_lite.images.resize import resize_planes
from imc_lite.noise.planes import IMAGE_NOISE, REFERENCE, convolve, grid

IMAGENET_C = "ImageNet-C, arXiv 1903.12261"


@IMAGE_NOISE.register(
    "gaussian",
    "bank",
    levels=(0.08, 0.12, 0.18, 0.26, 0.38),
    measure="standard deviation of what is added",
    source=IMAGENET_C,
    differs="same values",
)
def _gaussian(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes + level * _field(planes, rng)


@IMAGE_NOISE.register(
    "speckle",
    "bank",
    levels=(0.15, 0.20, 0.35, 0.45, 0.60),
    measure="standard deviation of what is added, as a share of the pixel",
    source=f"{IMAGENET_C} (extra)",
    differs="same values",
)
def _speckle(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return planes * (1 + level * _field(planes, rng))


@IMAGE_NOISE.register(
    "impulse",
    "bank",
    levels=(0.03, 0.06, 0.09, 0.17, 0.27),
    measure="share of pixels, half of them black, half white",
    source=IMAGENET_C,
    differs="same values",
)
def _impulse(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    draw = rng.random((*grid(planes), planes.shape[2]))
    if draw.shape != planes.shape:
        draw = resize_planes(draw, planes.shape[:2], Image.Resampling.NEAREST)
    return np.where(draw < level / 2, 0.0, np.where(draw > 1 - level / 2, 1.0, planes))


@IMAGE_NOISE.register(
    "motion_blur",
    "bank",
    levels=(7, 11, 15, 20, 26),
    measure="length in pixels, in any direction",
    source="MedMNIST-C, arXiv 2406.17536",
    differs="the kernel is a uniform line",
)
def _motion_blur(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    length, angle = level * max(planes.shape[:2]) / REFERENCE, rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for t in np.linspace(-length / 2, length / 2, 4 * reach):  # a line, shared out between its four neighbours
        x, y = reach + t * np.cos(angle), reach + t * np.sin(angle)
        x0, y0 = int(x), int(y)
        for dy, wy in ((0, 1 - (y - y0)), (1, y - y0)):
            for dx, wx in ((0, 1 - (x - x0)), (1, x - x0)):
                kernel[min(y0 + dy, 2 * reach), min(x0 + dx, 2 * reach)] += wy * wx
    return convolve(planes, kernel / kernel.sum())


@IMAGE_NOISE.register(
    "bias_field",
    "bank",
    levels=(0.12, 0.20, 0.30, 0.45, 0.60),
    measure="root mean square of the field's logarithm",
    source="TorchIO RandomBiasField (order 3), arXiv 2003.04696",
    differs="scaled to a fixed root mean square",
)
def _bias_field(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return shaded(planes, polynomial(planes.shape[:2], 3, rng), level)


@IMAGE_NOISE.register(
    "low_contrast",
    "bank",
    levels=(0.40, 0.30, 0.20, 0.10, 0.05),
    measure="factor on the distance from the picture's mean",
    source=IMAGENET_C,
    differs="same values",
)
def _low_contrast(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    mean = planes.mean((0, 1), keepdims=True)
    return (planes - mean) * level + mean


@IMAGE_NOISE.register(
    "pixelation",
    "bank",
    levels=(0.60, 0.50, 0.40, 0.30, 0.25),
    measure="side of the coarse picture, as a share",
    source=IMAGENET_C,
    differs="same values",
)
def _pixelation(planes: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = grid(planes)
    size = max(1, round(height * level)), max(1, round(width * level))
    coarse = resize_planes(planes, size, Image.Resampling.BOX)
    blocks = resize_planes(coarse, (height, width), Image.Resampling.BOX)
    return resize_planes(blocks, planes.shape[:2], Image.Resampling.BOX)


def _field(planes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit normal noise whose grain is one reference pixel, the shape of `planes`."""
    return enlarged(rng.standard_normal((*grid(planes), planes.shape[2])), planes.shape[:2])


def enlarged(grain: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Noise [h, w, C] at a larger size, of the same deviation."""
    if grain.shape[:2] == size:
        return grain
    field = resize_planes(grain, size, Image.Resampling.BICUBIC)
    return field * (grain.std() / max(field.std(), 1e-9))  # interpolation takes some of the variance


def polynomial(size: tuple[int, int], order: int, rng: np.random.Generator) -> np.ndarray:
    """A random polynomial of that order of the place in a picture, without a constant: float64 [H, W]."""
    y, x = (np.linspace(-1, 1, n) for n in size)
    values = np.zeros(size)
    for i in range(order + 1):
        for j in range(order + 1 - i):
            if i + j:
                values += rng.uniform(-1, 1) * np.outer(y**i, x**j)
    return values


def shaded(planes: np.ndarray, log: np.ndarray, level: float) -> np.ndarray:
    """Planes under a bias field, whose logarithm [H, W] is moved to mean zero and scaled to this root mean square."""
    log = log - log.mean()
    spread = np.sqrt((log**2).mean())
    return planes * np.exp(log * (level / spread if spread > 1e-12 else 0))[..., None]
