"""The default model in PyTorch: the same files, noise, answers and repairs as on ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from imc_lite import IMC, ImcError, load_image  # noqa: E402
from imc_lite.bundle.store import Bundle  # noqa: E402
from imc_lite.models.default.torch import DefaultTorchMLLM  # noqa: E402
from imc_lite.noise.image import apply_to_image  # noqa: E402
from imc_lite.pdc.prototypes import load_prototypes  # noqa: E402

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
QUESTIONS = ("What modality is this?", "What body part is shown?", "Is this a chest x-ray?")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def on_torch(default_bundle):
    return DefaultTorchMLLM(Bundle(default_bundle), "cpu")


def agrees(model, other, tolerance):
    """Tokens, statistics and verdicts of every picture, clean and noisy, are the other's."""
    matcher = load_prototypes(model.prototypes_file(), model.identity).matcher
    for path in IMAGES:
        clean = load_image(path)
        for image in (clean, apply_to_image(clean, "impulse", 4, 0), apply_to_image(clean, "motion_blur", 4, 0)):
            mine, theirs = model.perceive(image), other.perceive(image)
            for a, b in ((mine.tokens, theirs.tokens), (mine.stats, theirs.stats)):
                assert a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.abs(b).max()
            found, wanted = matcher.match(mine.stats, model.evidence), matcher.match(theirs.stats)
            assert (found[0].kind, found[0].severity, found[1]) == (wanted[0].kind, wanted[0].severity, wanted[1])
            assert found[0].probability == pytest.approx(wanted[0].probability, abs=1e-2)


@pytest.mark.slow
def test_it_perceives_as_onnx_does(on_torch, default_model):
    assert on_torch.identity == default_model.identity
    agrees(on_torch, default_model, 1e-4)


@pytest.mark.slow
def test_without_a_picture_it_answers_as_onnx_does(on_torch, default_model):
    """What it would say, as likely; each scores any answer as it does when it is shown no tokens at all."""
    empty = np.zeros((0, 1280), np.float32)
    for question in QUESTIONS:
        written = default_model.generate(question, empty).text
        for answer in (written, "x-ray", "no", ""):
            mine, theirs = (model.text_only(question, answer) for model in (on_torch, default_model))
            assert mine.same == theirs.same == (answer == written)
            if mine.same:
                assert np.abs(mine.logprobs - theirs.logprobs).max() < 0.3
            for model, found in ((on_torch, mine), (default_model, theirs)):
                np.testing.assert_allclose(found.logprobs, model.score(question, [answer], empty)[0], atol=1e-4)


@pytest.mark.slow
def test_its_answers_are_onnxs(on_torch, default_model):
    for path in IMAGES:
        tokens = default_model.perceive(load_image(path)).tokens
        for question in QUESTIONS:
            mine, theirs = (model.generate(question, tokens) for model in (on_torch, default_model))
            # ONNX Runtime rounds activations to 8 bits, torch does not.
            assert mine.text == theirs.text and np.abs(np.subtract(mine.logprobs, theirs.logprobs)).max() < 0.3
    scores = [m.score(QUESTIONS[0], ["x-ray", "ct", "mri"], tokens) for m in (on_torch, default_model)]
    assert [len(s) for s in scores[0]] == [len(s) for s in scores[1]]
    assert np.argmax([s.sum() for s in scores[0]]) == np.argmax([s.sum() for s in scores[1]])


@pytest.mark.slow
def test_the_whole_pipeline_runs_on_it(on_torch, default_bundle):
    prototypes = load_prototypes(on_torch.prototypes_file(), on_torch.identity)
    noisy = apply_to_image(load_image(IMAGES[0]), "gaussian", 4, 0)
    rows = [i.answer(noisy, "What modlity is this?") for i in (IMC(on_torch, prototypes), IMC.from_pretrained())]
    assert rows[0].answer == rows[1].answer and rows[0].question.repaired == rows[1].question.repaired
    assert rows[0].image.noise.kind == "gaussian" and rows[0].image.calibrated
    with pytest.raises(ImcError, match="shorten the question"):
        on_torch.generate("lung " * 2100, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_cuda_perceives_and_answers(default_bundle, default_model):
    on_gpu = DefaultTorchMLLM(Bundle(default_bundle), "cuda")
    agrees(on_gpu, default_model, 1e-2)
    imc = IMC.from_pretrained(device="cuda")
    for path in IMAGES:
        assert imc.answer(path, QUESTIONS[0]).answer == IMC(default_model).answer(path, QUESTIONS[0]).answer
