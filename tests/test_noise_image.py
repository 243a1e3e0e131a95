"""The image noise bank."""

import hashlib
import itertools

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image
from imc_lite.noise.image import IMAGE_KINDS, LEVELS, UNSEEN_IMAGE_KINDS, apply

ALL = IMAGE_KINDS + UNSEEN_IMAGE_KINDS


@pytest.fixture(scope="module")
def picture(chest) -> np.ndarray:
    return np.asarray(Image.fromarray(load_image(chest)).resize((256, 320)))


def test_the_bank_is_what_it_says():
    assert set(LEVELS) == set(ALL) and all(len(v) == 5 for v in LEVELS.values())


@pytest.mark.parametrize("kind", ALL)
def test_seeded_shaped_and_careful(kind, picture):
    before = picture.copy()
    one = apply(picture, kind, 3, seed=4)
    assert one.shape == picture.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, apply(picture, kind, 3, seed=4))
    np.testing.assert_array_equal(picture, before)
    if kind not in ("low_contrast", "pixelation", "jpeg", "defocus"):
        assert (one != apply(picture, kind, 3, seed=5)).any()
    real = apply(picture / 255.0, kind, 3, seed=4)
    assert real.dtype == np.float64 and real.min() >= 0 and real.max() <= 1
    assert np.abs(real * 255 - one).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", ALL)
def test_grey_stays_grey_and_colour_is_hit_in_colour(kind, picture):
    assert (np.ptp(apply(picture, kind, 5, 0), axis=2) == 0).all()
    np.testing.assert_array_equal(apply(picture[..., 0], kind, 5, 0), apply(picture, kind, 5, 0)[..., 0])
    tinted = picture.copy()
    tinted[..., 2] //= 2
    assert apply(tinted, kind, 2, 0).shape == tinted.shape


@pytest.mark.parametrize("kind", ALL)
def test_severity_grows(kind, picture):
    damage = [np.abs(apply(picture, kind, s, 1).astype(int) - picture).mean() for s in range(1, 6)]
    assert damage[0] > 0
    assert all(b > a for a, b in itertools.pairwise(damage)), damage


@pytest.mark.parametrize("kind", [k for k in ALL if k != "occlusion"])
def test_a_severity_means_the_same_at_every_size(kind, chest):
    """After both are brought to 320 pixels a small and a large copy of one picture have suffered alike."""
    whole = Image.fromarray(load_image(chest))

    def suffered(side: int) -> float:
        clean = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC))
        noisy = apply(clean, kind, 3, 0)
        small = [np.asarray(Image.fromarray(a).resize((320, 320), Image.Resampling.BICUBIC)) for a in (clean, noisy)]
        return float(np.abs(small[0].astype(float) - small[1]).mean())

    a, b = suffered(320), suffered(1024)
    assert b / a == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2, 3), (700, 5, 3)])
def test_odd_sizes(kind, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert apply(image, kind, 5, 0).shape == shape


def test_bad_arguments_are_named(picture):
    cases = [
        ((picture, "fog", 1, 0), "unknown image noise"),
        ((picture, "jpeg", 6, 0), "severity 6"),
        ((picture[..., :2], "jpeg", 1, 0), "must be"),
        ((picture.astype(np.int32), "jpeg", 1, 0), "uint8 or float"),
    ]
    for args, why in cases:
        with pytest.raises(ImcError, match=why):
            apply(*args)


def test_known_pixels():
    """Integer-valued kinds are the same to the bit on every platform."""
    image = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)
    digest = hashlib.sha256(apply(image, "impulse", 3, 7).tobytes()).hexdigest()
    assert digest.startswith("a9ca75c2c3230b48")
