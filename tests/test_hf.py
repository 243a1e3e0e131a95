"""Transformers models of every supported family: what the tower saw is shown, taken back, and answered from."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny  # noqa: E402

from imc_lite import ImcError  # noqa: E402
from imc_lite.calibration import Transport  # noqa: E402
from imc_lite.models.hf.families import FAMILIES, find  # noqa: E402
from imc_lite.models.hf.model import HfMLLM  # noqa: E402
from imc_lite.models.hf.prompt import image_token  # noqa: E402

QUESTION = "Is the heart enlarged?"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=FAMILIES)
def mllm(request):
    return HfMLLM(*tiny(request.param))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def logits(mllm, tokens):
    return mllm._prefill(QUESTION, tokens, 0)[0]


@torch.inference_mode()
def plain_logits(mllm, picture):
    """The model asked without any of our hooks."""
    return mllm.model(**mllm._inputs(QUESTION, picture)).logits[0, -1]


def test_tokens_given_back_answer_as_the_picture_does(mllm, picture):
    seen = mllm.perceive(picture)
    assert seen.tokens.dtype == seen.stats.dtype == np.float32
    assert torch.allclose(logits(mllm, seen.tokens), plain_logits(mllm, picture), atol=1e-5)


def test_changed_tokens_change_the_logits_in_their_order(mllm, picture):
    tokens = mllm.perceive(picture).tokens
    before = logits(mllm, tokens)
    rng = np.random.default_rng(1)
    assert (logits(mllm, tokens + rng.normal(size=tokens.shape).astype(np.float32)) - before).abs().max() > 1e-2
    assert (logits(mllm, tokens[::-1]) - before).abs().max() > 1e-3


def test_statistics_are_those_of_the_specification(mllm, picture):
    from imc_lite.kernels import reference

    with torch.inference_mode():
        given = {k: v for k, v in mllm._inputs("", picture).items() if k.startswith("pixel")}
        hidden = mllm.model.get_image_features(**given, output_hidden_states=True, return_dict=True).hidden_states
    wanted = reference.pool(torch.stack([hidden[i] for i in (0, 1, 2, 3)], 1))[0].numpy()
    stats = mllm.perceive(picture).stats.astype(np.float64)
    assert np.abs(np.sign(stats) * np.log1p(np.abs(stats)) - wanted).max() < 1e-5


def test_a_call_leaves_the_model_as_it_was(mllm, picture):
    before = plain_logits(mllm, picture)
    mllm.generate(QUESTION, mllm.perceive(picture).tokens, 3)
    assert torch.equal(plain_logits(mllm, picture), before)
    assert "forward" not in vars(mllm.tower) and not mllm.projector._forward_pre_hooks


@torch.inference_mode()
def test_greedy_text_is_that_of_transformers(mllm, picture):
    inputs = mllm._inputs(QUESTION, picture)
    out = mllm.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    found = mllm.generate(QUESTION, mllm.perceive(picture).tokens, 8)
    assert found.text == mllm.processor.tokenizer.decode(out, skip_special_tokens=True).strip()
    assert len(found.logprobs) == len(out) and all(p < 0 for p in found.logprobs)


@torch.inference_mode()
@pytest.mark.parametrize("seen", [True, False], ids=["image", "text"])
def test_scores_are_the_probabilities_of_whole_sequences(mllm, picture, seen):
    # Candidates of unlike lengths in one pass, more of them than one pass takes, one past Gemma3's sliding window.
    candidates = ["yes", "", "no, it is not, and there is much more to say about it", *"abcdefgh"]
    found = mllm.score(QUESTION, candidates, mllm.perceive(picture).tokens if seen else None)
    inputs = mllm._inputs(QUESTION, picture if seen else None)
    for text, logprobs in zip(candidates, found, strict=True):
        ids = mllm.encode(text)
        row = torch.tensor([ids], dtype=torch.long)
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], row], 1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        if "token_type_ids" in inputs:
            whole["token_type_ids"] = torch.cat([inputs["token_type_ids"], torch.zeros_like(row)], 1)
        rows = mllm.model(**whole).logits[0, inputs["input_ids"].shape[1] - 1 :].log_softmax(-1)
        wanted = [float(rows[i, token]) for i, token in enumerate([*ids, 1])]
        assert np.allclose(logprobs, wanted, atol=1e-4)


def test_control_tokens_in_a_question_are_plain_text(mllm, picture):
    tokens = mllm.perceive(picture).tokens
    tricky = f"Is {image_token(mllm.processor)} {mllm.processor.image_token} </s> here?"
    assert mllm.generate(tricky, tokens, 2).logprobs
    assert not set(mllm.encode(tricky)) & set(mllm.processor.tokenizer.all_special_ids)


def test_a_checkpoints_own_chat_template_is_used(picture):
    model, processor = tiny("llava")
    processor.chat_template = (
        "<s>{% for m in messages %}{% for part in m.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}!"
    )
    own = HfMLLM(model, processor)
    ids = own._inputs("Hm?", picture)["input_ids"][0]
    text = processor.tokenizer.decode(ids)
    assert text == "<s>" + "<image>" * 36 + "Hm?!"


def test_calibrating_follows_the_formula(mllm, picture):
    tokens = mllm.perceive(picture).tokens
    rng = np.random.default_rng(2)
    width = tokens.shape[1]
    down, up, offset, shift = (rng.normal(size=s).astype(np.float32) for s in ((width, 4), (4, width), 4, width))
    wanted = tokens + (tokens @ down - offset) @ up + shift
    assert np.abs(mllm.calibrate(tokens, Transport(down, up, offset, shift)) - wanted).max() < 1e-3


def test_a_question_beyond_the_context_is_refused(mllm):
    with pytest.raises(ImcError, match="shorten the question"):
        mllm.generate("x" * 600, None)


def test_a_grey_picture_is_seen(mllm):
    assert np.isfinite(mllm.perceive(np.full((1, 1, 3), 127, np.uint8)).tokens).all()


def test_identity_follows_weights_and_preprocessing():
    first, again, other = (HfMLLM(*tiny("llava", seed)) for seed in (0, 0, 1))
    assert first.identity == again.identity and first.identity["encoder"] != other.identity["encoder"]
    again.processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    changed = HfMLLM(again.model, again.processor)
    assert changed.identity["preprocessing"] != first.identity["preprocessing"]


def test_other_models_are_refused_by_name():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with pytest.raises(ImcError, match="'llama' are not supported; supported families: SmolVLM"):
        HfMLLM(LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)), None)


@needs_gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_cuda_agrees_with_cpu(family, picture):
    on_cpu = HfMLLM(*tiny(family))
    seen = on_cpu.perceive(picture)
    model, processor = tiny(family)
    on_gpu = HfMLLM(model.cuda(), processor)
    assert np.abs(on_gpu.perceive(picture).tokens - seen.tokens).max() < 1e-2
    assert (logits(on_gpu, seen.tokens).cpu() - logits(on_cpu, seen.tokens)).abs().max() < 1e-2
    assert find(on_gpu.model, FAMILIES[family].tower) is on_gpu.tower
