"""The image noise bank."""

import hashlib
import itertools

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image
from imc_lite.noise.image import IMAGE_KINDS, IMAGE_NOISE, apply_to_image

ALL = IMAGE_KINDS + IMAGE_NOISE.names("unseen")
ARTEFACTS = IMAGE_NOISE.names("out-of-distribution")
EVERY = ALL + ARTEFACTS
UNSEEDED = ("low_contrast", "pixelation", "jpeg", "defocus", "gaussian_blur", "webp", "ringing")


@pytest.fixture(scope="module")
def picture(chest) -> np.ndarray:
    return np.asarray(Image.fromarray(load_image(chest)).resize((256, 320)))


def strongest(kind: str) -> int:
    return len(IMAGE_NOISE.find(kind).levels)


def test_the_bank_is_what_it_says():
    # Prototypes lie in this order in files that are in use.
    first, last = ("gaussian", "speckle", "impulse", "motion_blur"), ("bias_field", "low_contrast", "pixelation")
    assert IMAGE_NOISE.names("bank") == IMAGE_KINDS == first + last
    assert IMAGE_NOISE.names("unseen") == ("jpeg", "ghosting", "occlusion", "defocus")
    assert ARTEFACTS == ("gaussian_blur", "webp", "ringing", "stripes")
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
    assert np.ptp(noisy, axis=2).max() <= (kind == "webp"), "only WebP knows no grey"
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
    ]
    for args, why in cases:
        with pytest.raises(ImcError, match=why):
            apply_to_image(*args)


def test_known_pixels():
    """Integer-valued kinds are the same to the bit on every platform."""
    image = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)
    digest = hashlib.sha256(apply_to_image(image, "impulse", 3, 7).tobytes()).hexdigest()
    assert digest.startswith("a9ca75c2c3230b48")
