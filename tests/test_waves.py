"""Spikes in k-space: waves found in the pixels of a picture, at its own size, and taken away."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imc_lite import IMC, load_image
from imc_lite.bench.data import load_edition
from imc_lite.images.resize import shrink_planes, size_within
from imc_lite.noise import IMAGE_KINDS, IMAGE_NOISE, apply_to_image
from imc_lite.pdc.full_size import restore_full_size
from imc_lite.pdc.restorers import restore
from imc_lite.pdc.waves import find_wave, remove_waves, spike_strength

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
LEVELS = IMAGE_NOISE.find("spike").levels
WAVES = ((0.21, 0.13), (-0.07, 0.31), (0.45, 0.02), (-0.33, 0.4))  # down and across, in cycles a pixel


def large(path: Path, side: int) -> np.ndarray:
    image = Image.fromarray(load_image(path))
    return np.asarray(image.resize((side, round(side * image.height / image.width)), Image.Resampling.BICUBIC))


def crossed(picture: np.ndarray, level: float, *waves: tuple[float, float]) -> np.ndarray:
    """Waves as strong as `level` times the picture's mean, together."""
    y, x = np.indices(picture.shape[:2])
    total = sum(np.cos(2 * np.pi * (down * y + across * x) + 1) for down, across in waves)
    noisy = picture + level * picture.mean() / len(waves) * total[..., None]
    return np.rint(noisy.clip(0, 255)).astype(np.uint8)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference at a longer side of 320, in grey levels."""
    size = size_within(one.shape, 320)
    first, second = (shrink_planes(a.astype(np.float32), size) for a in (one, other))
    return float(np.sqrt(((first - second) ** 2).mean()))


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
@pytest.mark.parametrize("side", [240, 900])
def test_waves_are_found_and_next_to_nothing_of_them_stays(path, side):
    clean = large(path, side)
    for severity, level in enumerate(LEVELS, 1):
        down, across = WAVES[severity % len(WAVES)]
        noisy = crossed(clean, level, (down, across))
        found = find_wave(noisy)
        if severity < 3 and found is None:
            continue  # faint waves behind sharp edges are not seen, and nothing is done
        # Of a wave that black and white cut off, the peak shows less.
        assert severity - 2 <= round(spike_strength(noisy)) <= severity
        assert np.hypot(found.down - down, found.across - across) < 1.5 / 128
        wrong = apart(noisy, clean)
        assert apart(restore(noisy, "spike", severity), clean) < max(3.5, 0.4 * wrong)
        full = restore_full_size(noisy, "spike", severity)
        assert full.shape == clean.shape and apart(full, clean) < max(3.0, 0.33 * wrong)
    assert find_wave(crossed(clean, 0.4, WAVES[0])) is not None


def test_two_waves_go_one_after_the_other():
    clean = large(IMAGES[1], 600)
    noisy = crossed(clean, 0.4, WAVES[0], WAVES[1])
    planes, inside = remove_waves(noisy)
    assert find_wave(noisy) and find_wave(planes) is None
    assert np.abs((planes - clean)[inside]).mean() < 1.5 < np.abs(noisy - clean.astype(float)).mean() / 5


def test_colour_suffers_and_comes_back_channel_by_channel():
    clean = large(IMAGES[0], 500) * np.array([1, 0.8, 0.5])
    y, x = np.indices(clean.shape[:2])
    wave = np.cos(2 * np.pi * (0.2 * y + 0.17 * x))[..., None] * np.array([30, 20, 10])
    noisy = np.rint((clean + wave).clip(0, 255)).astype(np.uint8)
    planes, inside = remove_waves(noisy)
    assert np.abs((planes - clean)[inside]).mean() < 1


def test_a_picture_without_waves_keeps_its_pixels():
    clean = large(IMAGES[1], 700)
    planes, inside = remove_waves(clean)
    np.testing.assert_array_equal(planes, clean)
    assert inside.all()


def test_no_clean_picture_shows_any():
    found = {case.name: spike_strength(load_image(case.path)) for case in load_edition()}
    assert len(found) > 200 and not any(found.values()), {n: s for n, s in found.items() if s}


@pytest.mark.parametrize("kind", [*IMAGE_KINDS, "defocus", "jpeg", "ghosting", "occlusion"])
@pytest.mark.parametrize("severity", [2, 5])
@pytest.mark.parametrize("side", [300, 800])
def test_other_noise_is_none(kind, severity, side):
    for path in IMAGES:
        assert spike_strength(apply_to_image(large(path, side), kind, severity, 0)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (31, 700), (33, 40), (5, 700)])
def test_any_size(shape):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*shape, 3), np.uint8)
    assert spike_strength(noise) == 0
    assert restore(noise, "spike", 3).shape[2] == 3
    for grey in (0, 128, 255):
        assert spike_strength(np.full((*shape, 3), grey, np.uint8)) == 0


def test_what_lies_behind_the_waves_is_looked_at_again():
    imc = IMC.from_pretrained()
    for path in IMAGES:
        clean = large(path, 640)
        noisy = crossed(clean, 0.5, WAVES[0])
        report = imc.inspect(noisy)
        assert report.noise.kind == "spike" and report.gradable
        seen = imc.see(noisy)
        assert seen.report.restored and seen.report.noise == report.noise
        tokens = [imc.model.perceive(picture).tokens for picture in (clean, noisy)]
        assert np.abs(seen.tokens - tokens[0]).mean() < 0.3 * np.abs(tokens[1] - tokens[0]).mean()
    dull = apply_to_image(large(IMAGES[0], 640), "low_contrast", 4, 0)
    report = imc.inspect(crossed(dull, 0.5, WAVES[0]))
    assert report.noise.kind == "spike" and report.gradable is None and "behind it low_contrast" in report.reason
