"""Image noise from end to end: named, restored, calibrated, reported; and clean pictures left alone to the bit."""

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from imc_lite import IMC, ImcError, load_image
from imc_lite.noise.image import FURTHER_KINDS, IMAGE_KINDS, apply_to_image
from imc_lite.pdc import build_prototypes, find_images
from imc_lite.pdc.features import features
from imc_lite.pdc.fit.build import fit_prototypes
from imc_lite.pdc.fit.discriminant import CONDITIONS, fit, fit_matcher
from imc_lite.pdc.fit.observe import observe_all, observe_clean
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.pdc.remedies import LowRankMap, Remedy
from imc_lite.pdc.restorers import RESTORERS, RESTORERS_VERSION, restore

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
STRONG = ("gaussian", "speckle", "impulse", "motion_blur", "low_contrast", "pixelation")


@pytest.fixture(scope="module")
def imc():
    return IMC.from_pretrained()


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: p.stem)
def test_clean_pictures_pass_to_the_bit(imc, path):
    pixels = load_image(path)
    seen = imc.see(pixels)
    assert seen.report.noise.kind == "clean" and seen.report.gradable is True
    assert not seen.report.restored and not seen.report.calibrated
    assert seen.tokens.tobytes() == imc.model.perceive(pixels).tokens.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRONG)
def test_noise_is_named_and_the_tokens_come_back(imc, kind):
    before = after = 0.0
    for path in IMAGES:
        pixels = load_image(path)
        clean = imc.model.perceive(pixels).tokens
        noisy = apply_to_image(pixels, kind, 4, seed=3)
        seen = imc.see(noisy)
        assert seen.report.noise.kind == kind
        assert abs(seen.report.noise.severity - 4) <= 1 and seen.report.noise.probability > 0.5
        assert round(seen.report.noise.strength) == seen.report.noise.severity
        assert seen.report.restored or seen.report.calibrated
        before += np.square(imc.model.perceive(noisy).tokens - clean).sum()
        after += np.square(seen.tokens - clean).sum()
    assert after < 0.75 * before


def test_a_strange_picture_is_left_alone(imc):
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 200)
    seen = imc.see(stripes)
    assert seen.report.noise.kind == "unknown"
    assert seen.report.gradable is None and "do not know" in seen.report.reason
    assert seen.tokens.tobytes() == imc.model.perceive(stripes).tokens.tobytes()


@pytest.mark.parametrize("kind", ["gaussian", "impulse", "motion_blur"])
def test_maps_stay_away_from_pictures_out_of_distribution(imc, kind):
    noisy = apply_to_image(load_image(IMAGES[0]), kind, 4, seed=3)
    matcher = replace(imc.prototypes.matcher, in_distribution_limit=0.0)
    seen = IMC(imc.model, replace(imc.prototypes, matcher=matcher)).see(noisy)
    report = seen.report
    remedy = imc.prototypes.remedy(report.noise.kind, report.noise.severity)
    assert report.noise.kind == kind and not report.calibrated and report.restored is remedy.restore
    assert report.gradable is None and "do not know" in report.reason
    pixels = restore(noisy, kind, report.noise.severity) if remedy.restore else noisy
    assert seen.tokens.tobytes() == imc.model.perceive(pixels).tokens.tobytes()


@pytest.mark.parametrize("kind", ["gaussian", "motion_blur"])
def test_a_map_that_does_not_lead_back_to_clean_pictures_is_not_taken(imc, kind):
    noisy = apply_to_image(load_image(IMAGES[0]), kind, 4, seed=3)
    seen = imc.see(noisy)
    remedy = imc.prototypes.remedy(seen.report.noise.kind, seen.report.noise.severity)
    assert seen.report.calibrated and imc.prototypes.leads_back(remedy, seen.tokens)
    strict = tuple(replace(r, farthest=1e-6) for r in imc.prototypes.remedies)
    left = IMC(imc.model, replace(imc.prototypes, remedies=strict)).see(noisy)
    assert not left.report.calibrated and left.report.restored is remedy.restore
    assert left.report.gradable is None and "like no clean picture" in left.report.reason
    pixels = restore(noisy, kind, left.report.noise.severity) if remedy.restore else noisy
    assert left.tokens.tobytes() == imc.model.perceive(pixels).tokens.tobytes()
    # Files from before that was looked at have nothing to tell it by.
    older = IMC(imc.model, replace(imc.prototypes, remedies=strict, clean=None)).see(noisy)
    assert older.report == seen.report and older.tokens.tobytes() == seen.tokens.tobytes()


def test_rounding_of_still_channels_decides_nothing(imc, chest):
    """Channels that never move show another rounding on every processor; verdicts must not."""
    matcher = imc.prototypes.matcher
    stats = imc.model.perceive(load_image(chest)).stats
    values = features(stats)[None]
    still = matcher.precision == 0
    assert 0 < still.sum() < 40 and not matcher.whiten[still].any() and not matcher.bias_field.project[still].any()
    rng = np.random.default_rng(0)
    table = np.repeat(values, 40 * 48, 0).reshape(40, 48, -1) + rng.normal(0, 0.1, (40, 48, values.shape[1]))
    table[..., :5] = values[0, :5] + rng.normal(0, 1e-5, (40, 48, 5))
    fitted = fit(table, 0)
    moved = values.copy()
    moved[:, :5] += 0.02
    for a, b in zip(fitted.evidence(values), fitted.evidence(moved), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(matcher.evidence(values), matcher.evidence(values + 0.02 * still), strict=True):
        np.testing.assert_array_equal(a, b)


def test_limits_are_kept_in_the_file(imc, tmp_path):
    matcher = replace(imc.prototypes.matcher, unknown_limit=4.0, in_distribution_limit=3.0)
    replace(imc.prototypes, matcher=matcher).save(tmp_path / "p.safetensors")
    again = load_prototypes(tmp_path / "p.safetensors", imc.model.identity).matcher
    assert (again.unknown_limit, again.in_distribution_limit) == (4.0, 3.0)


def test_what_is_lost_is_said(imc):
    report = imc.inspect(apply_to_image(load_image(IMAGES[0]), "gaussian", 5, seed=0))
    assert report.gradable is False and "gaussian of severity" in report.reason


def test_without_pdc_nothing_is_looked_for():
    result = IMC.from_pretrained(pdc=False).answer(IMAGES[0], "What modality is this?")
    assert result.image.noise is None and result.image.gradable is None


def test_matching_follows_the_specification(imc):
    torch = pytest.importorskip("torch")
    from imc_lite.kernels.match import reference

    matcher = imc.prototypes.matcher
    names = ("mean", "whiten", "points", "bias", "precision", "reconstruct")
    mean, whiten, points, bias, precision, reconstruct = (torch.from_numpy(getattr(matcher, n)) for n in names)
    weighted = reconstruct.double() * precision.double()
    pictures = [load_image(IMAGES[0]), *(apply_to_image(load_image(IMAGES[1]), k, 3, 0) for k in IMAGE_KINDS)]
    values = features(np.stack([imc.model.perceive(p).stats for p in pictures]))
    found = reference.match_stats(
        torch.from_numpy(values), mean, whiten, points, bias, precision, weighted.T, weighted @ reconstruct.double().T
    )
    probabilities, score = matcher.evidence(values)
    assert np.abs(found[1].numpy() - probabilities).max() < 1e-5
    assert np.allclose(found[2].numpy(), score, rtol=1e-4)


def test_calibrating_follows_the_specification(imc):
    torch = pytest.importorskip("torch")
    from imc_lite.kernels.calibrate import reference

    remedy = next(r for r in imc.prototypes.remedies if r.map_index is not None)
    fitted = imc.prototypes.low_rank_map(remedy)
    tokens = imc.model.perceive(apply_to_image(load_image(IMAGES[0]), remedy.kind, remedy.severity, 0)).tokens
    maps = (torch.from_numpy(getattr(fitted, n))[None] for n in ("down", "up", "offset", "shift"))
    wanted, _ = reference.calibrate(torch.from_numpy(tokens)[None], torch.ones(1, 1), *maps)
    found = imc.model.calibrate(tokens, fitted)
    assert np.abs(found - wanted[0].numpy()).max() < 1e-4 * np.abs(tokens).max()


@pytest.mark.parametrize("kind", RESTORERS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (17, 5), (400, 333), (320, 320)])
def test_restorers_take_any_size(kind, shape):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (*shape, 1), np.uint8).repeat(3, 2)
    for picture in (grey, rng.integers(0, 256, (*shape, 3), np.uint8), np.zeros((*shape, 3), np.uint8)):
        out = restore(picture, kind, 5)
        assert out.dtype == np.uint8 and out.shape[2] == 3 and max(out.shape) <= 320
        assert (out[..., 0] == out[..., 1]).all() or picture is not grey


@pytest.mark.parametrize("kind", RESTORERS)
def test_restoring_brings_pixels_nearer(kind):
    picture = np.asarray(load_image(IMAGES[0]))
    noisy = apply_to_image(picture, kind, 4, 0)
    size = restore(noisy, kind, 4).shape

    def fitted(pixels):
        return np.asarray(Image.fromarray(pixels).resize(size[1::-1], Image.Resampling.BOX), float)

    error = np.abs(fitted(noisy) - fitted(picture)).mean()
    assert np.abs(restore(noisy, kind, 4) - fitted(picture)).mean() < error


def test_restoring_an_unknown_kind_is_refused():
    with pytest.raises(ImcError, match="no restorer"):
        restore(np.zeros((4, 4, 3), np.uint8), "fog", 1)


def test_prototypes_of_another_encoder_are_refused(imc, default_bundle, tmp_path):
    packaged = default_bundle / "prototypes.safetensors"
    with pytest.raises(ImcError, match="another encoder"):
        load_prototypes(packaged, {**imc.model.identity, "encoder": "0" * 64})
    with pytest.raises(ImcError, match="another preprocessing"):
        load_prototypes(packaged, {**imc.model.identity, "preprocessing": "0" * 64})
    stripped = tmp_path / "stripped.safetensors"
    save_file(load_file(packaged), stripped)
    for bad in (stripped, Path(__file__), tmp_path / "none"):
        with pytest.raises(ImcError, match="no readable prototypes"):
            load_prototypes(bad, imc.model.identity)


@pytest.mark.parametrize(
    "damage",
    [
        {"kinds": ("clean",)},
        {"severities": ("1",) * 416},
        {"mean": np.zeros(5)},
        {"whiten": np.zeros((127, 832))},
        {"mean": np.full(832, np.nan)},
        {"unknown_limit": "high"},
        {"unknown_limit": math.nan},
    ],
)
def test_prototypes_that_do_not_fit_together_are_refused(imc, tmp_path, damage):
    """Before a picture is judged by them."""
    matcher = replace(imc.prototypes.matcher, **damage)
    replace(imc.prototypes, matcher=matcher).save(tmp_path / "p.safetensors")
    with pytest.raises(ImcError, match="holds no readable prototypes"):
        load_prototypes(tmp_path / "p.safetensors", imc.model.identity)


@pytest.mark.parametrize("name", ["bias_field", "strange"])
@pytest.mark.parametrize("array", ["centre", "landmarks", "dual"])
def test_classifiers_that_hold_no_numbers_are_refused(imc, tmp_path, name, array):
    """Any comparison with them would be false, and nothing be looked at again."""
    found = getattr(imc.prototypes.matcher, name)
    spoilt = replace(found, **{array: np.full_like(getattr(found, array), np.nan)})
    matcher = replace(imc.prototypes.matcher, **{name: spoilt})
    replace(imc.prototypes, matcher=matcher).save(tmp_path / "p.safetensors")
    with pytest.raises(ImcError, match="holds no readable prototypes"):
        load_prototypes(tmp_path / "p.safetensors", imc.model.identity)


def test_saved_prototypes_read_back_the_same(imc, tmp_path):
    # Maps come from linear algebra in whatever memory order; the file must not care.
    turned = {n: np.asfortranarray(a) for n, a in imc.prototypes.maps.items()}
    replace(imc.prototypes, maps=turned).save(tmp_path / "p.safetensors")
    again = load_prototypes(tmp_path / "p.safetensors", imc.model.identity)
    assert again.remedies == imc.prototypes.remedies and again.facts == imc.prototypes.facts
    assert all((r.farthest is None) is (r.map_index is None) for r in again.remedies)
    for name in ("centres", "directions"):
        assert np.array_equal(getattr(again.clean, name), getattr(imc.prototypes.clean, name))
    assert again.clean.variance == imc.prototypes.clean.variance and again.digest() == imc.prototypes.digest()
    for name, array in imc.prototypes.maps.items():
        assert np.array_equal(again.maps[name], array)


def test_remedies_of_the_default_model_never_make_things_worse(imc):
    assert {(r.kind, r.severity) for r in imc.prototypes.remedies} == {
        (k, s) for k in (*IMAGE_KINDS, *FURTHER_KINDS) for s in range(1, 6)
    }
    assert all(isinstance(r, Remedy) and r.after <= r.before for r in imc.prototypes.remedies)


def test_a_remedy_that_saves_little_is_not_used(imc):
    stored = next(r for r in imc.prototypes.remedies if (r.kind, r.severity) == ("motion_blur", 1))
    assert stored.map_index is not None and 0.9 * stored.before < stored.after < stored.before
    used = imc.prototypes.remedy("motion_blur", 1)
    assert (used.restore, used.map_index, used.after) == (False, None, stored.before)
    named = 0
    for path in IMAGES:
        noisy = apply_to_image(load_image(path), "motion_blur", 1, seed=1)
        perception = imc.model.perceive(noisy)
        seen = imc.see(noisy, perception)
        if (seen.report.noise.kind, seen.report.noise.severity) == ("motion_blur", 1):
            named += 1
            assert not seen.report.calibrated and np.array_equal(seen.tokens, perception.tokens)
    assert named
    # One that saves more is used as it is.
    assert imc.prototypes.remedy("motion_blur", 3) in imc.prototypes.remedies


def test_only_maps_that_save_a_tenth_are_packaged(imc):
    with_map = [r for r in imc.prototypes.remedies if r.map_index is not None]
    kinds = {"gaussian", "speckle", "impulse", "motion_blur", "pixelation", "defocus", "jpeg"}
    assert {r.kind for r in with_map} == kinds
    assert {r.map_index for r in with_map} == set(range(len(imc.prototypes.maps["down"])))
    for kind in kinds:
        mine = [r for r in imc.prototypes.remedies if r.kind == kind]
        assert sum(r.after for r in mine) <= 0.9 * sum(r.before for r in mine)
    assets = resources.files("imc_lite") / "assets"
    sizes = [len((assets / name).read_bytes()) for name in ("default.safetensors", "prototypes.safetensors")]
    assert sum(sizes) <= 45_000_000


@pytest.mark.slow
def test_prototypes_of_ones_own_for_the_default_model(default_model, clean_pictures, tmp_path):
    """As the command builds them for other models (test_hf.py, test_own_model.py), from fewer pictures."""
    with tempfile.TemporaryFile() as scratch:
        found = find_images(clean_pictures)
        seen = observe_all(default_model, found[:6], 0, 1, None, scratch)
    shapes = [getattr(seen.own, name).shape[:2] for name in ("known", "biased", "clean", "strange")]
    assert shapes == [(6, 52), (6, 15), (6, 4), (6, 16)]
    ours = fit_prototypes(default_model, seen, 0, np.random.default_rng(0))
    # Further pictures, seen clean alone and in panels, count for what is strange, and for nothing else.
    more = replace(seen, further=observe_clean(default_model, found[6:8], 0, 1, None, None))
    assert more.further.shape == (2, 4, seen.own.known.shape[2])
    known = fit_prototypes(default_model, more, 0, np.random.default_rng(0)).matcher
    assert not np.array_equal(known.strange.dual, ours.matcher.strange.dual)
    assert np.array_equal(known.bias_field.dual, ours.matcher.bias_field.dual)
    assert np.array_equal(known.points, ours.matcher.points)
    ours.save(tmp_path / "ours.safetensors")
    inspect = [sys.executable, "-m", "imc_lite", "inspect", IMAGES[0], "--prototypes", tmp_path / "ours.safetensors"]
    row = json.loads(subprocess.run([*inspect, "--json"], capture_output=True, check=True).stdout)
    assert row["noise"]["kind"] in ("clean", "unknown", *IMAGE_KINDS, *FURTHER_KINDS)


def test_too_few_pictures_for_prototypes(default_bundle, tmp_path):
    command = [sys.executable, "-m", "imc_lite", "prototypes", "build", "-o", tmp_path / "x", "--images"]
    for folder, why in ((tmp_path, "too few"), (tmp_path / "none", "not a folder")):
        done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("weight", [7e4, float("nan")])
def test_values_that_half_precision_cannot_hold_are_refused_by_name(weight, clean_pictures):
    pytest.importorskip("transformers")
    from tiny_models import tiny

    from imc_lite.models.hf.model import HfMLLM

    model, processor = tiny("smolvlm")
    model.model.vision_model.post_layernorm.weight.data[3] = weight
    with pytest.raises(ImcError, match=r"00\.png or a noisy copy .* beyond 65,504.*leave that picture out"):
        build_prototypes(HfMLLM(model, processor), find_images(clean_pictures))


def test_an_encoder_that_tells_nothing_apart_is_refused():
    with pytest.raises(ImcError, match="statistics are the same"):
        fit_matcher(np.ones((16, len(CONDITIONS), 6)), np.random.default_rng(0))


def test_prototypes_of_other_restorers_are_refused(imc, tmp_path):
    assert imc.prototypes.facts["restorers"] == RESTORERS_VERSION
    # A file that is older than the restorers' version is one of the first, whose pixels were others.
    old = {name: fact for name, fact in imc.prototypes.facts.items() if name != "restorers"}
    for name, facts in {"old": old, "first": old | {"restorers": "1"}, "other": old | {"restorers": "0"}}.items():
        replace(imc.prototypes, facts=facts).save(tmp_path / name)
        with pytest.raises(ImcError, match="another version of the restorers"):
            load_prototypes(tmp_path / name, imc.model.identity)


def test_the_packaged_file_reads_and_writes_the_same(imc, default_bundle, tmp_path):
    imc.prototypes.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (default_bundle / "prototypes.safetensors").read_bytes()


def test_inspect_prints_the_documented_fields(default_bundle, chest, documented_fields):
    command = [sys.executable, "-m", "imc_lite", "inspect", chest, "none.png", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row, error = (json.loads(line) for line in done.stdout.splitlines())
    found = {k for k in row if k != "noise"} | {f"noise.{k}" for k in row["noise"]}
    assert found == documented_fields["inspect"]
    assert done.returncode == 2 and error["path"] == "none.png" and "does not exist" in error["error"]


@pytest.mark.parametrize("rank", [1, 127, 128, 129, 256, 300])
def test_a_map_of_any_rank_is_applied_as_several_that_the_kernel_holds(rank):
    torch = pytest.importorskip("torch")
    from imc_lite.kernels.calibrate import MAX_RANK, reference

    from imc_lite.models.torch_base import _split

    rng = np.random.default_rng(rank)
    sizes = ((40, rank), (rank, 40), (rank,), (40,))
    whole = LowRankMap(*(rng.standard_normal(size).astype(np.float32) for size in sizes))
    parts = _split(whole)
    assert parts[0].shape[2] <= MAX_RANK and len(parts[0]) == -(-rank // MAX_RANK)
    tokens = rng.standard_normal((7, 40)).astype(np.float32)
    weights = torch.ones(1, len(parts[0]))
    found, bad = reference.calibrate(torch.from_numpy(tokens)[None], weights, *map(torch.from_numpy, parts))
    np.testing.assert_allclose(found[0], whole.apply(tokens), rtol=1e-3, atol=1e-2)
    assert not bad.any()
