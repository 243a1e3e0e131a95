"""Impulse noise told by the pixels of a picture, at its own size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imc_lite import IMC, load_image
from imc_lite.bench.data import load_edition
from imc_lite.noise.image import IMAGE_KINDS, IMAGE_NOISE, apply_to_image
from imc_lite.pdc.impulse import impulse_strength
from imc_lite.pdc.treat import name_noise

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
LEVELS = IMAGE_NOISE.find("impulse").levels


def struck(picture: np.ndarray, share: float, seed: int, black: float = 0.5, channels: int = 3) -> np.ndarray:
    """Impulses whose grain is one pixel, in each channel by itself or in all at once."""
    draw = np.random.default_rng(seed).random((*picture.shape[:2], channels))
    return np.where(draw < black * share, 0, np.where(draw > 1 - (1 - black) * share, 255, picture)).astype(np.uint8)


def large(path: Path, side: int) -> np.ndarray:
    image = Image.fromarray(load_image(path))
    return np.asarray(image.resize((side, round(side * image.height / image.width)), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
@pytest.mark.parametrize("side", [300, 900])
@pytest.mark.parametrize("channels", [1, 3])
def test_fine_impulses_are_seen_and_their_share_is_told(path, side, channels):
    for severity, share in enumerate(LEVELS, 1):
        noisy = struck(large(path, side), share, severity, channels=channels)
        assert abs(round(impulse_strength(noisy)) - severity) <= 1
    for black in (0.0, 1.0):
        assert impulse_strength(struck(large(path, side), 0.1, 0, black, channels)) > 0


def test_no_clean_picture_shows_any():
    found = {case.name: impulse_strength(load_image(case.path)) for case in load_edition()}
    assert len(found) > 200 and not any(found.values()), {n: s for n, s in found.items() if s}


@pytest.mark.parametrize("kind", [k for k in IMAGE_KINDS if k != "impulse"])
@pytest.mark.parametrize("severity", [2, 5])
def test_other_noise_reaches_black_and_white_and_is_none(kind, severity):
    for path in IMAGES:
        assert impulse_strength(apply_to_image(large(path, 600), kind, severity, 0)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (5, 700)])
def test_any_size(shape):
    rng = np.random.default_rng(0)
    assert impulse_strength(rng.integers(0, 256, (*shape, 3), np.uint8)) == 0
    for grey in (0, 128, 255):
        assert impulse_strength(np.full((*shape, 3), grey, np.uint8)) == 0


def test_what_the_encoder_calls_something_else_is_named_by_its_pixels():
    imc, told = IMC.from_pretrained(), 0
    for i, path in enumerate(IMAGES):
        noisy = struck(large(path, 900), 0.1, i)
        stats = imc.model.perceive(noisy).stats
        by_encoder, _ = imc.prototypes.matcher.match(stats)
        noise = name_noise(imc.model, imc.prototypes, noisy, stats).noise
        assert noise.kind == "impulse" and abs(noise.severity - 3) <= 1
        told += by_encoder.kind != "impulse"
        report = imc.inspect(noisy)
        assert report.noise == noise and imc.see(noisy).report.restored
    assert told  # or the pixels need not be looked at
