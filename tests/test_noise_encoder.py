"""The default model's encoder alone, and whose statistics noise is read from when prototypes are built."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

from test_prototype_fit import table  # noqa: E402
from tiny_models import tiny  # noqa: E402

from imc_lite import IMC, ImcError, load_image  # noqa: E402
from imc_lite.models.default.packaged import PackagedEncoder  # noqa: E402
from imc_lite.models.hf.model import HfMLLM  # noqa: E402
from imc_lite.noise import apply_to_image  # noqa: E402
from imc_lite.pdc.fit.build import fit_prototypes  # noqa: E402
from imc_lite.pdc.fit.discriminant import CONDITIONS, NAMED, fit_matcher  # noqa: E402
from imc_lite.pdc.fit.low_rank_map import RESTORED  # noqa: E402
from imc_lite.pdc.fit.observe import Observations, Shallow  # noqa: E402
from imc_lite.pdc.full_size import restore_full_size  # noqa: E402
from imc_lite.pdc.prototypes import Prototypes, load_prototypes, packaged_prototypes, prototypes_of  # noqa: E402
from imc_lite.pdc.treat import inspect, name_noise, treat_picture  # noqa: E402

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def encoder():
    return PackagedEncoder()


@pytest.fixture(scope="module")
def mllm():
    return HfMLLM(*tiny("llava"))


def test_it_is_the_default_models_encoder(encoder, default_model):
    assert encoder.identity == default_model.identity
    for path in IMAGES[:3]:
        picture = load_image(path)
        assert np.array_equal(encoder.stats(picture), default_model.perceive(picture).stats)


def test_it_needs_no_model_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PackagedEncoder().stats(load_image(IMAGES[0])).shape == (1664,)
    assert not list(tmp_path.iterdir())


def observed(own: np.ndarray, by_packaged: np.ndarray) -> Observations:
    """Features [P, 52, F] by the model's own encoder and by the packaged one, and tokens that noise hardly moves."""
    rng, first = np.random.default_rng(0), [i for i, (kind, _) in enumerate(CONDITIONS) if kind == "bias_field"]
    clean = rng.normal(size=(len(own), 1, 4, 8))
    tokens = clean + 0.1 * rng.normal(size=(len(own), 1 + len(NAMED) + len(RESTORED), 4, 8))
    more = np.tile(by_packaged[:, first], (1, 3, 1))
    theirs = Shallow(by_packaged, more, by_packaged[:, :1], by_packaged[:, -6:])
    return Observations(Shallow(own, own[:, first], own[:, :0], own[:, :0]), tokens.astype(np.float16), theirs)


@pytest.mark.parametrize("telling", ["packaged", "own"])
def test_noise_is_read_from_the_encoder_that_names_it_better(telling, mllm, encoder):
    tells = table(1, pictures=40)
    hardly = np.random.default_rng(1).normal(size=tells.shape)
    seen = observed(hardly, tells) if telling == "packaged" else observed(tells, hardly)
    found = fit_prototypes(mllm, seen, 0, np.random.default_rng(0), packaged=encoder)
    theirs = telling == "packaged"
    assert (found.noise_encoder is encoder) == theirs == (found.matcher.bias_field is not None)
    assert theirs == (found.matcher.strange is not None)
    assert found.matcher.statistics == ("quadrants" if theirs else "tokens")
    losses = found.facts["cross_entropy"]
    assert (losses["packaged"] < losses["own"]) == theirs
    # Whoever names the noise, what is done about it is fitted to the model's own tokens.
    assert found.maps["down"].shape[1] == 8 and found.facts["encoder"] == mllm.identity["encoder"]


def test_of_two_that_name_it_alike_the_model_reads_its_own(mllm, encoder):
    tells = table(1, pictures=40)
    found = fit_prototypes(mllm, observed(tells, tells), 0, np.random.default_rng(0), packaged=encoder)
    assert found.noise_encoder is None and found.matcher.statistics == "tokens"


@pytest.fixture(scope="module")
def borrowed(mllm, encoder, default_model) -> Prototypes:
    """Prototypes of a tiny random model with the default model's matcher, as if fitted to the same pictures."""
    known = load_prototypes(default_model.prototypes_file(), default_model.identity)
    seen = observed(np.random.default_rng(1).normal(size=(16, len(CONDITIONS), 24)), table(1, pictures=16))
    own = fit_prototypes(mllm, seen, 0, np.random.default_rng(0), packaged=encoder)
    return replace(own, matcher=known.matcher, noise_encoder=encoder)


def test_verdicts_are_the_default_models(borrowed, mllm, default_model):
    known = load_prototypes(default_model.prototypes_file(), default_model.identity)
    for i, noise in enumerate(("gaussian", "low_contrast", "spike", None)):
        picture = load_image(IMAGES[i])
        picture = picture if noise is None else apply_to_image(picture, noise, 4, seed=i)
        ours, theirs = name_noise(mllm, borrowed, picture), name_noise(default_model, known, picture)
        assert ours.noise == theirs.noise and ours.in_distribution == theirs.in_distribution
        assert (ours.behind and ours.behind.kind) == (theirs.behind and theirs.behind.kind)
        assert treat_picture(mllm, borrowed, picture).report.noise == theirs.noise


def test_inspecting_takes_no_pass_of_the_tower(borrowed, mllm):
    passes = []
    hook = mllm.tower.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        inspect(mllm, borrowed, load_image(IMAGES[0]))
        assert not passes
        IMC(mllm, borrowed, sms=False).see(load_image(IMAGES[0]))
        assert passes
    finally:
        hook.remove()


def test_a_model_around_another_is_asked_itself(default_model):
    """One that hands on what it lacks, and encodes otherwise."""

    class Dark:
        def __getattr__(self, name):
            return getattr(default_model, name)

        def perceive(self, image):
            return default_model.perceive(image // 8)

    known = load_prototypes(default_model.prototypes_file(), default_model.identity)
    picture = load_image(IMAGES[0])
    assert inspect(Dark(), known, picture) == inspect(default_model, known, picture // 8)
    assert inspect(Dark(), known, picture) != inspect(default_model, known, picture)


def test_the_file_says_whose_statistics_they_are(borrowed, mllm, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "p.safetensors"
    borrowed.save(path)
    again = load_prototypes(path, mllm.identity)
    assert again.noise_encoder.identity == borrowed.noise_encoder.identity and again.digest() == borrowed.digest()
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["imc_lite"])
    for other in ({"encoder": "0" * 64}, "default", 7):
        save_file(load_file(path), path, {"imc_lite": json.dumps(header | {"noise_encoder": other})})
        with pytest.raises(ImcError, match="read noise from another version's encoder; build them"):
            load_prototypes(path, mllm.identity)


def test_how_much_a_matcher_is_surprised_is_measured_where_it_was_not_fitted():
    tells, nothing = table(1, pictures=40), np.random.default_rng(0).normal(size=(40, len(CONDITIONS), 24))
    (_, low), (_, high) = (fit_matcher(t, np.random.default_rng(0)) for t in (tells, nothing))
    assert low.shape == (40,) and low.mean() < 0.5 * high.mean()
    kinds = 1 - np.mean([kind == "clean" for kind, _ in CONDITIONS])
    assert high.mean() > kinds  # what cannot be told cannot be known


def test_without_prototypes_of_its_own_a_model_has_noise_named_and_pixels_restored(mllm, default_model):
    known = load_prototypes(default_model.prototypes_file(), default_model.identity)
    found = prototypes_of(mllm)
    assert found.borrowed and not known.borrowed and not len(found.maps["down"])
    clean = load_image(IMAGES[0])
    noisy = apply_to_image(clean, "gaussian", 4, seed=0)
    seen = treat_picture(mllm, found, noisy)
    theirs = treat_picture(default_model, known, noisy).report
    assert seen.report.noise == theirs.noise and theirs.restored and theirs.calibrated
    assert seen.report.restored and not seen.report.calibrated
    restored = restore_full_size(noisy, "gaussian", seen.report.noise.severity)
    assert np.array_equal(seen.tokens, mllm.perceive(restored).tokens)
    # How much a tower loses that nothing was fitted to, nobody knows.
    assert seen.report.gradable is None and "is not known" in seen.report.reason
    left = treat_picture(mllm, found, clean)
    assert left.report.noise.kind == "clean" and left.report.gradable
    assert left.tokens.tobytes() == mllm.perceive(clean).tokens.tobytes()


def test_what_a_map_alone_would_do_is_left_undone(mllm):
    found = packaged_prototypes()
    by_map = next(r for r in found.remedies if not r.restore and r.pays)
    assert found.remedy(by_map.kind, by_map.severity).map_index is None
    assert all(found.low_rank_map(r) is None for r in found.remedies)


def test_a_model_opened_by_name_borrows_them(llava_checkpoint, borrowed, tmp_path):
    opened = IMC.from_pretrained(llava_checkpoint, offline=True, sms=False)
    assert opened.prototypes.borrowed and opened.inspect(IMAGES[0]).noise.kind == "clean"
    assert IMC.from_pretrained(llava_checkpoint, offline=True, sms=False, pdc=False).prototypes is None
    borrowed.save(tmp_path / "own.safetensors")
    own = IMC.from_pretrained(llava_checkpoint, offline=True, sms=False, prototypes=tmp_path / "own.safetensors")
    assert not own.prototypes.borrowed


def test_without_onnx_runtime_noise_is_not_looked_for(mllm, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert prototypes_of(mllm) is None
