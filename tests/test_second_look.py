"""A second look where prototypes find nothing: at things on a picture that no bank has, and at blocks of pixels."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from imc_lite import IMC, ImcError, load_image
from imc_lite.bench.data import load_edition
from imc_lite.images.resize import resize_picture, size_filling
from imc_lite.models.default.packaged import PackagedEncoder
from imc_lite.noise.as_met import SIDES
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.strange import FAMILIES, TIMES, strange_copies
from imc_lite.pdc.blocks import find_blocks
from imc_lite.pdc.fit.kernel_classifier import fit_strange
from imc_lite.pdc.fit.panels import GRIDS, MOST, make_panel
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.pdc.treat import inspect, judge, name_noise

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def imc(default_bundle) -> IMC:
    return IMC.from_pretrained(default_bundle)


def large(path: Path, side: int = 1000) -> np.ndarray:
    pixels = load_image(path)
    return resize_picture(pixels, size_filling(pixels.shape, side))


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return load_image(buffer.getvalue())


def in_blocks(pixels: np.ndarray, size: int) -> np.ndarray:
    small = Image.fromarray(pixels).resize((pixels.shape[1] // size, pixels.shape[0] // size), Image.Resampling.BOX)
    return np.asarray(small.resize((small.width * size, small.height * size), Image.Resampling.NEAREST))


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
def test_strange_copies_are_seeded_pictures_of_many_sizes(path):
    pixels = load_image(path)
    before, copies = pixels.copy(), strange_copies(pixels, 3)
    assert len(copies) == TIMES * len(FAMILIES) and len({copy.shape for copy in copies}) > 8
    assert np.array_equal(pixels, before)
    for copy, again, other in zip(copies, strange_copies(pixels, 3), strange_copies(pixels, 4), strict=True):
        assert copy.dtype == np.uint8 and copy.shape[2] == 3 and np.array_equal(copy, again)
        assert copy.shape != other.shape or not np.array_equal(copy, other)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 90, 3), (64, 3, 3)])
def test_strange_copies_of_any_size(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for copy in (copy for seed in range(12) for copy in strange_copies(pixels, seed)):
        assert copy.dtype == np.uint8 and copy.shape[2] == 3 and SIDES[0] <= max(copy.shape) <= SIDES[1]


def frosted(pixels: np.ndarray) -> np.ndarray:
    """Behind a cloud of grey that covers all of it, a little less than half."""
    cloud = np.random.default_rng(1).integers(0, 256, (40, 60), np.uint8)
    spread = Image.fromarray(cloud).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    return np.rint(0.55 * pixels + 0.45 * np.asarray(spread)[..., None]).astype(np.uint8)


@pytest.fixture(scope="module")
def blind(imc) -> IMC:
    """As it would be without the second look at what is strange."""
    matcher = replace(imc.prototypes.matcher, strange=None)
    return IMC(imc.model, replace(imc.prototypes, matcher=matcher), sms=False)


@pytest.mark.slow
def test_much_of_what_is_strange_is_told_and_what_is_packaged_stays_clean(imc, blind):
    """Copies of pictures that nothing was fitted to, the faintest among them too."""
    copies = [copy for seed, path in enumerate(IMAGES) for copy in strange_copies(load_image(path), 100 + seed)]
    clean = [sum(one.inspect(copy).noise.kind == "clean" for copy in copies) for one in (imc, blind)]
    assert clean[0] <= clean[1] - 0.2 * len(copies)
    packaged = [load_image(case.path) for case in load_edition()[::5]]
    assert [imc.inspect(pixels).noise.kind for pixels in packaged].count("unknown") <= 1


def test_what_has_no_name_is_left_alone_and_said(imc, blind):
    pixels = frosted(large(IMAGES[0], 640))
    without, seen = blind.inspect(pixels).noise, imc.see(pixels)
    assert without.kind == "clean"
    assert seen.report.noise.kind == "unknown" and seen.report.gradable is None and "do not know" in seen.report.reason
    assert seen.tokens.tobytes() == imc.model.perceive(pixels).tokens.tobytes()
    assert 0.5 * without.probability < seen.report.noise.probability <= 1


def test_what_may_be_strange_is_less_surely_clean(imc, blind):
    """The two verdicts share what the prototypes call clean."""
    for path in IMAGES:
        mine, without = imc.inspect(path).noise, blind.inspect(path).noise
        assert mine.kind == without.kind == "clean" and 0.5 < mine.probability < without.probability


def test_panels_are_seeded_pictures_of_many_shapes():
    pictures = [load_image(path) for path in (*IMAGES, *IMAGES)][:MOST]
    before, shapes = [pixels.copy() for pixels in pictures], set()
    for seed in range(40):
        panel = make_panel(pictures, seed)
        assert panel.dtype == np.uint8 and panel.shape[2] == 3 and np.array_equal(panel, make_panel(pictures, seed))
        # Rounding of places, and lines and a rim of a twentieth of each, are all that comes to the side that was drawn.
        assert SIDES[0] - MOST <= max(panel.shape) <= 1.25 * SIDES[1]
        shapes.add(panel.shape)
    assert len(shapes) > 30 and all(map(np.array_equal, before, pictures))
    # Of two pictures there is a pair, side by side or one below the other.
    wide = [make_panel([np.full((60, 60, 3), 50 * i, np.uint8) for i in (1, 2)], seed) for seed in range(20)]
    assert {panel.shape[1] > panel.shape[0] for panel in wide} == {True, False}
    assert all({50, 100} <= set(np.unique(panel)) for panel in wide)
    assert (1, 2) in GRIDS and (2, 2) in GRIDS


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 90, 3), (640, 3, 3)])
def test_panels_of_any_size(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for seed in range(12):
        panel = make_panel([pixels] * MOST, seed)
        assert panel.dtype == np.uint8 and panel.ndim == 3 and panel.shape[2] == 3


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2), (2, 3)])
def test_several_clean_pictures_in_one_are_clean(imc, rows, columns):
    """As figures show them: of one kind, cut to squares, a line of white or black between them."""
    cases = [case for case in load_edition() if case.source in ("vqa_rad", "brain_mri", "nih_cxr", "nuclei")]
    found = []
    for first in range(0, len(cases) - rows * columns, 6):
        some = [Image.fromarray(load_image(case.path)) for case in cases[first : first + rows * columns]]
        sheet = np.full((rows * 210 - 10, columns * 210 - 10, 3), 255 * (first % 4 // 2), np.uint8)
        for place, picture in enumerate(some):
            top, left = place // columns * 210, place % columns * 210
            sheet[top : top + 200, left : left + 200] = np.asarray(ImageOps.fit(picture, (200, 200)))
        found.append(imc.inspect(sheet).noise.kind)
    assert len(found) >= 15 and found.count("unknown") <= 1


def test_what_is_strange_is_told_and_nearly_all_that_is_clean_stays_so():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(120, 4, 24))
    strange = (
        rng.normal(size=(120, 12, 24)) + 6 * rng.normal(size=(120, 12, 1)) * np.eye(24)[rng.integers(0, 6, (120, 12))]
    )
    found = fit_strange(clean, strange, 0)
    again = rng.normal(size=(500, 24))
    assert (found.log_odds(again) < 0).mean() > 0.97
    far = again + 12 * np.eye(24)[rng.integers(0, 6, 500)]
    assert (found.log_odds(far) > 0).mean() > 0.9
    assert np.array_equal(fit_strange(clean, strange, 0).dual, found.dual)
    # What is rare among the clean ones is clean once more of them are known.
    rare, others = again + 8 * np.eye(24)[0], again + 12 * np.eye(24)[rng.integers(1, 6, 500)]
    known = fit_strange(clean, strange, 0, rng.normal(size=(200, 2, 24)) + 8 * np.eye(24)[0])
    assert (known.log_odds(rare) < 0).mean() > 0.9 and (found.log_odds(rare) < 0).mean() < 0.5
    assert (known.log_odds(others) > 0).mean() > 0.7
    # Views that weigh nothing stand nearer to what is strange; if nothing is said, they weigh 1.
    more, apart = rng.normal(size=(200, 2, 24)) + 8 * np.eye(24)[0], []
    for weight in (0.0, 1.0):
        known = fit_strange(clean, strange, 0, more, (weight, weight))
        apart.append(known.log_odds(others).mean() - known.log_odds(rare).mean())
    assert apart[0] + 1 < apart[1]
    assert np.array_equal(known.dual, fit_strange(clean, strange, 0, more).dual)


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
def test_blocks_of_pixels_are_seen(path):
    pixels = large(path)
    assert find_blocks(pixels) is None and find_blocks(as_jpeg(pixels, 90)) is None
    assert find_blocks(in_blocks(pixels, 2)) == find_blocks(in_blocks(pixels, 5)) == "pixelation"
    assert find_blocks(as_jpeg(pixels, 8)) == "jpeg"


@pytest.mark.parametrize("border", [0, 255])
def test_a_frame_makes_no_blocks(border):
    """It begins at a multiple of eight, in every direction."""
    for case in load_edition()[::6]:
        pixels = load_image(case.path)
        height, width = (n // 8 * 8 for n in pixels.shape[:2])
        framed = np.full((height + 128, width + 128, 3), border, np.uint8)
        framed[64:-64, 64:-64] = pixels[:height, :width]
        assert find_blocks(framed) is None, case.name


def test_no_packaged_picture_stands_in_blocks():
    found = {case.name: blocks for case in load_edition() if (blocks := find_blocks(load_image(case.path)))}
    assert not found


@pytest.mark.parametrize("shape", [(1, 1), (8, 900), (64, 64), (70, 130)])
def test_blocks_are_looked_for_at_any_size(shape):
    for value in (0, 128):
        assert find_blocks(np.full((*shape, 3), value, np.uint8)) is None
    assert find_blocks(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)) is None


def test_prototypes_from_before_the_second_look_still_read(imc, blind, tmp_path):
    """Their files have no `strange.*`; and a file that has some of it only is none of ours."""
    old = tmp_path / "old.safetensors"
    blind.prototypes.save(old)
    read = load_prototypes(old, imc.model.identity)
    assert read.matcher.strange is None and read.digest() == blind.prototypes.digest() != imc.prototypes.digest()
    pixels = frosted(large(IMAGES[0], 640))
    assert inspect(imc.model, read, pixels).noise == blind.inspect(pixels).noise
    with safe_open(imc.model.prototypes_file(), "numpy") as file:
        header = file.metadata()
    arrays = {key: array for key, array in load_file(imc.model.prototypes_file()).items() if key != "strange.centre"}
    save_file(arrays, tmp_path / "torn.safetensors", header)
    with pytest.raises(ImcError, match=r"torn\.safetensors"):
        load_prototypes(tmp_path / "torn.safetensors", imc.model.identity)


def test_blocks_that_no_encoder_sees_are_named_and_nothing_is_done(imc, chest):
    pixels = in_blocks(large(chest, 1400), 2)
    seen, look = imc.see(pixels), name_noise(imc.model, imc.prototypes, pixels)
    assert look.hidden and (seen.report.noise.kind, seen.report.noise.severity) == ("pixelation", 1)
    assert seen.report.gradable is True and not seen.report.restored and not seen.report.calibrated
    assert seen.tokens.tobytes() == imc.model.perceive(pixels).tokens.tobytes()
    assert imc.restore(pixels).pixels is None
    # What another tower sees of such blocks, nobody has measured.
    borrowed = replace(imc.prototypes, noise_encoder=PackagedEncoder())
    report = inspect(imc.model, borrowed, pixels)
    assert borrowed.borrowed and report.noise.kind == "pixelation" and report.gradable is None
    # Nor where its prototypes were fitted to it: their remedies are for blocks that it sees.
    lost = tuple(replace(r, before=0.99, after=0.95) for r in borrowed.remedies)
    fitted = replace(borrowed, remedies=lost, facts=borrowed.facts | {"encoder": "0" * 64})
    report = judge(fitted, look)
    assert not fitted.borrowed and report.gradable is None and "at the picture's own size" in report.reason
    # What it does see is told by how strong it is there.
    strong = apply_to_image(load_image(chest), "pixelation", 4, 0)
    assert not name_noise(imc.model, imc.prototypes, strong).hidden and imc.inspect(strong).noise.severity >= 3
