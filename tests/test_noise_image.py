"""The image noise bank."""

import hashlib
import itertools

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image
from imc_lite.noise.as_met import SIDES, apply_as_met
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS, IMAGE_NOISE, apply_to_image

ALL = IMAGE_KINDS + FURTHER_KINDS + IMAGE_NOISE.names("unseen")
ARTEFACTS = IMAGE_NOISE.names("out-of-distribution")
EVERY = ALL + ARTEFACTS
UNSEEDED = ("low_contrast", "pixelation", "jpeg", "defocus", "ringing")


@pytest.fixture(scope="module")
def picture(chest) -> np.ndarray:
    return np.asarray(Image.fromarray(load_image(chest)).resize((256, 320)))


def strongest(kind: str) -> int:
    return len(IMAGE_NOISE.find(kind).levels)


def test_the_bank_is_what_it_says():
    # Prototypes lie in this order in files that are in use.
    first, last = ("gaussian", "speckle", "impulse", "motion_blur"), ("bias_field", "low_contrast", "pixelation")
    assert IMAGE_NOISE.names("bank") == IMAGE_KINDS == first + last
    assert IMAGE_NOISE.names("further") == FURTHER_KINDS == ("defocus", "jpeg", "spike")
    assert IMAGE_NOISE.names("unseen") == ("ghosting", "occlusion")
    assert ARTEFACTS == ("ringing", "stripes")
    assert IMAGE_NOISE.names() == EVERY
    assert all(strongest(kind) == 5 for kind in ALL)
    assert all(strongest(kind) == 3 for kind in ARTEFACTS)


@pytest.mark.parametrize("kind", EVERY)
def test_seeded_shaped_and_careful(kind, picture):
    before = picture.copy()
    one = apply_to_image(picture, kind, 3, seed=4)
    assert one.shape == picture.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, apply_to_image(picture, kind, 3, seed=4))
    np.testing.assert_array_equal(picture, before)
    if kind not in UNSEEDED:
        assert (one != apply_to_image(picture, kind, 3, seed=5)).any()
    real = apply_to_image(picture / 255.0, kind, 3, seed=4)
    assert real.dtype == np.float64 and real.min() >= 0 and real.max() <= 1
    assert np.abs(real * 255 - one).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", EVERY)
def test_grey_stays_grey_and_colour_is_hit_in_colour(kind, picture):
    worst = strongest(kind)
    noisy = apply_to_image(picture, kind, worst, 0)
    assert np.ptp(noisy, axis=2).max() == 0
    np.testing.assert_array_equal(apply_to_image(picture[..., 0], kind, worst, 0), noisy[..., 0])
    tinted = picture.copy()
    tinted[..., 2] //= 2
    moved = apply_to_image(tinted, kind, worst, 0).astype(int) - tinted
    assert moved.shape == tinted.shape and moved.any(axis=(0, 1)).all()
    if kind in ("gaussian", "impulse"):  # each channel by noise of its own
        assert (moved[..., 0] != moved[..., 1]).mean() > 0.1


@pytest.mark.parametrize("kind", EVERY)
def test_severity_grows(kind, picture):
    severities = range(1, strongest(kind) + 1)
    damage = [np.abs(apply_to_image(picture, kind, s, 1).astype(int) - picture).mean() for s in severities]
    assert damage[0] > 0
    assert all(b > a for a, b in itertools.pairwise(damage)), damage


@pytest.mark.parametrize("kind", [k for k in EVERY if k != "occlusion"])
def test_a_severity_means_the_same_at_every_size(kind, chest):
    """After both are brought to 320 pixels a small and a large copy of one picture have suffered alike."""
    whole = Image.fromarray(load_image(chest))

    def suffered(side: int) -> float:
        clean = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC))
        noisy = apply_to_image(clean, kind, 3, 0)
        small = [np.asarray(Image.fromarray(a).resize((320, 320), Image.Resampling.BICUBIC)) for a in (clean, noisy)]
        return float(np.abs(small[0].astype(float) - small[1]).mean())

    a, b = suffered(320), suffered(1024)
    assert b / a == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2, 3), (700, 5, 3)])
def test_odd_sizes(kind, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert apply_to_image(image, kind, strongest(kind), 0).shape == shape


def test_bad_arguments_are_named(picture):
    cases = [
        ((picture, "fog", 1, 0), "unknown image noise"),
        ((picture, "jpeg", 6, 0), "severity 6"),
        ((picture[..., :2], "jpeg", 1, 0), "must be"),
        ((picture.astype(np.int32), "jpeg", 1, 0), "uint8 or float"),
        ((picture.astype(np.float64), "jpeg", 1, 0), "within 0-1"),
        ((np.full((4, 4), np.nan), "jpeg", 1, 0), "without NaN"),
        ((Image.fromarray(picture), "jpeg", 1, 0), "must be an array"),
        ((picture, "jpeg", 2.0, 0), "severity 2.0"),
        ((picture, "jpeg", True, 0), "severity True"),
        ((picture, "jpeg", 1, -1), "seed -1"),
        ((picture, "jpeg", 1, None), "seed None"),
    ]
    for args, why in cases:
        with pytest.raises(ImcError, match=why):
            apply_to_image(*args)


def test_known_pixels():
    """Integer-valued kinds are the same to the bit on every platform."""
    image = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)
    digest = hashlib.sha256(apply_to_image(image, "impulse", 3, 7).tobytes()).hexdigest()
    assert digest.startswith("a9ca75c2c3230b48")


@pytest.mark.parametrize("kind", ["clean", *IMAGE_KINDS, *FURTHER_KINDS])
def test_noise_as_met_is_drawn_anew_for_every_picture_and_seeded(kind, picture):
    before, severity = picture.copy(), 0 if kind == "clean" else 3
    met = [apply_as_met(picture, kind, severity, seed) for seed in range(12)]
    np.testing.assert_array_equal(picture, before)
    for seed, one in enumerate(met):
        assert one.dtype == np.uint8 and one.shape[2] == 3 and SIDES[0] <= max(one.shape) <= SIDES[1]
        assert one.shape[1] / one.shape[0] == pytest.approx(256 / 320, abs=0.01)
        np.testing.assert_array_equal(one, apply_as_met(picture, kind, severity, seed))
    assert len({one.shape for one in met}) > 6
    coloured = [bool((np.ptp(one, axis=2) > 8).mean() > 0.02) for one in met]
    # A grey picture stays grey unless each channel gets a field of its own, as libraries for colour pictures do.
    assert any(coloured) and not all(coloured) if kind in ("gaussian", "speckle", "impulse") else not any(coloured)


@pytest.mark.parametrize("kind", [*IMAGE_KINDS, *FURTHER_KINDS])
def test_noise_as_met_is_as_strong_as_its_severity_says(kind, picture):
    """On average, where the longer side has 320 pixels, of a picture that is neither dark nor bright."""

    def suffered(made) -> float:
        small = np.asarray(Image.fromarray(made).resize((256, 320), Image.Resampling.BOX), float)
        return float(np.abs(small - picture).mean())

    assert suffered(apply_as_met(picture, "clean", 0, 0)) < 4
    drawn = [[suffered(apply_as_met(picture, kind, s, seed)) for seed in range(16)] for s in (1, 3, 5)]
    ours = [suffered(apply_to_image(picture, kind, s, 0)) for s in (1, 3, 5)]
    mean = np.mean(drawn, 1)
    assert mean[0] < mean[1] < mean[2], (mean, ours)
    # Impulses and blocks count at the picture's own grain, and averaging makes fine ones weaker.
    least = 0.25 if kind in ("impulse", "pixelation", "bias_field", "spike", "jpeg") else 0.5
    assert all(least < a / b < 2 for a, b in zip(mean, ours, strict=True)), (mean, ours)


def test_noise_as_met_names_what_it_does_not_know(picture):
    with pytest.raises(ImcError, match="unknown image noise"):
        apply_as_met(picture, "fog", 1, 0)
    with pytest.raises(ImcError, match="severity 6"):
        apply_as_met(picture, "gaussian", 6, 0)
    with pytest.raises(ImcError, match="unknown image noise 'ghosting'"):
        apply_as_met(picture, "ghosting", 1, 0)
