"""Transformers models of every supported family: what the tower saw is shown, taken back, and answered from."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny  # noqa: E402

from imc_lite import IMC, ImcError, load_image  # noqa: E402
from imc_lite.models.hf.families import FAMILIES  # noqa: E402
from imc_lite.models.hf.load import load  # noqa: E402
from imc_lite.models.hf.model import HfMLLM  # noqa: E402
from imc_lite.models.hf.parts import find  # noqa: E402
from imc_lite.models.open import open_mllm  # noqa: E402
from imc_lite.pdc.features import features  # noqa: E402
from imc_lite.pdc.fit.build import find_images, fit_prototypes  # noqa: E402
from imc_lite.pdc.fit.discriminant import CONDITIONS, fit  # noqa: E402
from imc_lite.pdc.fit.observe import observe_all  # noqa: E402
from imc_lite.pdc.prototypes import load_prototypes  # noqa: E402
from imc_lite.pdc.remedies import LowRankMap  # noqa: E402

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
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
    return mllm.prefill(QUESTION, tokens, 0)[0]


@torch.inference_mode()
def plain_logits(mllm, picture):
    """The model asked without any of our hooks."""
    return mllm.model(**mllm.inputs(QUESTION, picture)).logits[0, -1]


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
    from imc_lite.kernels.match import reference

    with torch.inference_mode():
        given = {k: v for k, v in mllm.inputs("", picture).items() if k.startswith(("pixel", "image_"))}
        hidden = mllm.model.get_image_features(**given, output_hidden_states=True, return_dict=True).hidden_states
    whole = [h if h.dim() == 3 else h[None] for h in hidden]
    wanted = reference.pool(torch.stack([whole[i] for i in (0, 1, 2, 3)], 1))[0].numpy()
    stats = mllm.perceive(picture).stats.astype(np.float64)
    assert np.abs(np.sign(stats) * np.log1p(np.abs(stats)) - wanted).max() < 1e-5


def test_a_call_leaves_the_model_as_it_was(mllm, picture):
    before = plain_logits(mllm, picture)
    mllm.generate(QUESTION, mllm.perceive(picture).tokens, 3)
    assert torch.equal(plain_logits(mllm, picture), before)
    assert not any("forward" in vars(block) for block in mllm.blocks)
    assert not any(projector._forward_pre_hooks for projector in mllm.projectors)


@torch.inference_mode()
def test_greedy_text_is_that_of_transformers(mllm, picture):
    inputs = mllm.inputs(QUESTION, picture)
    out = mllm.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    found = mllm.generate(QUESTION, mllm.perceive(picture).tokens, 8)
    assert found.text == mllm.processor.tokenizer.decode(out, skip_special_tokens=True).strip()
    assert len(found.logprobs) == len(out) and all(p < 0 for p in found.logprobs)
    rich = mllm.generate(QUESTION, mllm.perceive(picture).tokens, 8, top_logprobs=2)
    assert [row[0].logprob for row in rich.top_logprobs] == list(found.logprobs)[: len(rich.top_logprobs)]
    assert all(len(row) == 2 for row in rich.top_logprobs) and rich.text == found.text


@torch.inference_mode()
@pytest.mark.parametrize("seen", [True, False], ids=["image", "text"])
def test_scores_are_the_probabilities_of_whole_sequences(mllm, picture, seen):
    # Candidates of unlike lengths in one pass, more of them than one pass takes, one past Gemma3's sliding window.
    candidates = ["yes", "", "no, it is not, and there is much more to say about it", *"abcdefgh"]
    found = mllm.score(QUESTION, candidates, mllm.perceive(picture).tokens if seen else None)
    inputs = mllm.inputs(QUESTION, picture if seen else None)
    for text, logprobs in zip(candidates, found, strict=True):
        ids = mllm.encode(text)
        row = torch.tensor([ids], dtype=torch.long)
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], row], 1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        for kind in {"token_type_ids", "mm_token_type_ids"} & set(inputs):
            whole[kind] = torch.cat([inputs[kind], torch.zeros_like(row)], 1)
        rows = mllm.model(**whole).logits[0, inputs["input_ids"].shape[1] - 1 :].log_softmax(-1)
        wanted = [float(rows[i, token]) for i, token in enumerate([*ids, 1])]
        assert np.allclose(logprobs, wanted, atol=1e-4)


def test_control_tokens_in_a_question_are_plain_text(mllm, picture):
    tokens = mllm.perceive(picture).tokens
    tricky = f"Is {mllm.family.image_token(mllm.processor)} {mllm.processor.image_token} </s> here?"
    assert mllm.generate(tricky, tokens, 2).logprobs
    assert not set(mllm.encode(tricky)) & set(mllm.processor.tokenizer.all_special_ids)


def test_a_checkpoints_own_chat_template_is_used(picture):
    model, processor = tiny("llava")
    processor.chat_template = (
        "<s>{% for m in messages %}{% for part in m.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}!"
    )
    own = HfMLLM(model, processor)
    ids = own.inputs("Hm?", picture)["input_ids"][0]
    text = processor.tokenizer.decode(ids)
    assert text == "<s>" + "<image>" * 36 + "Hm?!"


def test_calibrating_follows_the_formula(mllm, picture):
    tokens = mllm.perceive(picture).tokens
    rng = np.random.default_rng(2)
    width = tokens.shape[1]
    down, up, offset, shift = (rng.normal(size=s).astype(np.float32) for s in ((width, 4), (4, width), 4, width))
    wanted = tokens + (tokens @ down - offset) @ up + shift
    assert np.abs(mllm.calibrate(tokens, LowRankMap(down, up, offset, shift)) - wanted).max() < 1e-3


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


def command(*args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "imc_lite", *args], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_prototypes_to_answer(llava_prototypes, llava_checkpoint, clean_pictures):
    imc = IMC.from_pretrained(llava_checkpoint, offline=True, prototypes=llava_prototypes, sms=False)
    matcher = imc.prototypes.matcher
    assert matcher.statistics == "tokens" and len(matcher.points) == len(CONDITIONS) and matcher.bias_field is None
    pixels = load_image(clean_pictures / "00.png")
    seen = imc.model.perceive(pixels)
    # A random tower names no noise reliably; so each verdict is forced, and what follows from it is looked at.
    remedies = [r for r in imc.prototypes.remedies if r.map_index is not None and r.pays]
    assert remedies
    for kind, calibrated in (("clean", False), (remedies[0].kind, True)):
        named = zip(matcher.kinds, matcher.severities, strict=True)
        where = np.array([point == (kind, remedies[0].severity * calibrated) for point in named])
        bias = np.where(where, 1e6, 0).astype(np.float32)
        sure = replace(matcher, bias=bias, unknown_limit=np.inf, in_distribution_limit=np.inf)
        forced = IMC(imc.model, replace(imc.prototypes, matcher=sure), sms=False)
        found = forced.see(pixels)
        assert found.report.noise.kind == kind and found.report.calibrated is calibrated
        assert (found.tokens.tobytes() == seen.tokens.tobytes()) is not calibrated
        assert forced.answer(pixels, QUESTION).image.calibrated is calibrated
    result = imc.answer(clean_pictures / "00.png", QUESTION)
    assert set(result.versions) == {"imc_lite", "torch", "transformers"} and result.model["id"] == str(llava_checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava_next", "qwen3_vl"])
def test_prototypes_of_several_views_and_projectors(family, clean_pictures):
    model = HfMLLM(*tiny(family))
    # A side of 448 or 672 pixels makes sense of patches of 14 or 16; these are of 8.
    model.family = replace(model.family, side=96)
    # As the command builds them, but for the default model's encoder and with fewer pictures: shapes are the point.
    with tempfile.TemporaryFile() as scratch:
        seen = observe_all(model, find_images(clean_pictures)[:6], 0, 1, None, scratch)
        prototypes = fit_prototypes(model, seen, 0, np.random.default_rng(0))
    pixels = load_image(clean_pictures / "00.png")
    tokens = model.perceive(pixels).tokens
    remedy = next(r for r in prototypes.remedies if r.map_index is not None)
    moved = model.calibrate(tokens, prototypes.low_rank_map(remedy))
    assert moved.shape == tokens.shape and np.abs(moved - tokens).max(0).min() > 0
    assert IMC(model, prototypes, sms=False).answer(pixels, QUESTION).image.noise is not None


def test_the_kernels_find_what_numpy_finds(mllm, picture):
    model, rng = mllm, np.random.default_rng(0)
    values = features(model.perceive(picture).stats, "tokens")[None]
    near = values + 0.1 * rng.normal(size=(8, len(CONDITIONS), values.shape[1]))
    matcher = replace(fit(near, 0), statistics="tokens")
    for found, wanted in zip(model.evidence(matcher, values), matcher.evidence(values), strict=True):
        assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_commands_take_a_checkpoint(llava_prototypes, llava_checkpoint, clean_pictures):
    where = ("--model", llava_checkpoint, "--offline")
    row = command("inspect", clean_pictures / "01.png", *where, "--prototypes", llava_prototypes, "--json")
    assert row.returncode == 0 and json.loads(row.stdout)["noise"]["kind"], row.stderr
    bare = command("answer", clean_pictures / "01.png", QUESTION, *where, "--no-sms", "--json")
    image = json.loads(bare.stdout)["image"]
    assert bare.returncode == 0 and image["noise"]["kind"] and image["calibrated"] is False
    assert "no noise prototypes for" in bare.stderr and "only pixels are restored" in bare.stderr
    plain = command("answer", clean_pictures / "01.png", QUESTION, *where, "--no-sms", "--no-pdc", "--json")
    assert json.loads(plain.stdout)["image"]["noise"] is None and plain.stderr == ""


@pytest.mark.slow
def test_prototypes_of_another_tower_are_refused(llava_prototypes):
    with pytest.raises(ImcError, match="another encoder"):
        load_prototypes(llava_prototypes, HfMLLM(*tiny("llava", seed=1)).identity)


def test_a_loaded_model_is_wrapped(picture):
    model, processor = tiny("smolvlm")
    result = IMC.from_pretrained(model, processor=processor, sms=False).answer(picture, QUESTION)
    # The picture is noise. How much of it this tower loses nobody knows, and its features are left alone.
    assert result.image.noise.kind == "gaussian" and result.image.gradable is None and not result.image.calibrated
    assert result.model["id"] == "smolvlm"
    with pytest.raises(ImcError, match="needs its processor"):
        IMC.from_pretrained(model)
    with pytest.raises(ImcError, match="leave device and quant out"):
        IMC.from_pretrained(model, processor=processor, quant="int4")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_qwens_processor_does_what_transformers_does(family, picture, tmp_path):
    import transformers

    names = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}

    class Whole(getattr(transformers, names[family])):
        """Theirs, on machines that cannot load its video half."""

        def check_argument_for_proper_class(self, name, value):
            return None if name == "video_processor" else super().check_argument_for_proper_class(name, value)

    model, processor = tiny(family)
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    opened = open_mllm(tmp_path, offline=True)
    ours = opened.inputs(QUESTION, picture)
    opened.processor = Whole(processor.image_processor, processor.tokenizer)
    theirs = opened.inputs(QUESTION, picture)
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert opened.generate(QUESTION, opened.perceive(picture).tokens, 2).logprobs


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("what", ["default", "checkpoint"])
def test_no_cuda_is_said_in_one_line(llava_checkpoint, what, default_bundle):
    with pytest.raises(ImcError, match="no CUDA device here; choose --device cpu"):
        open_mllm({"default": default_bundle}.get(what, llava_checkpoint), offline=True, device="cuda")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": "nobody/nothing"}, "cannot load nobody/nothing .*supported families: SmolVLM"),
        ({"model": "nothing"}, "no model 'nothing'"),
        ({"quant": "int3"}, "no quantization 'int3'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "cpu", "quant": "int4"}, "int4 needs a CUDA device"),
        ({"model": "default", "quant": "int4"}, "a bundle is quantized when it is built"),
    ],
    ids=str,
)
def test_what_cannot_be_opened_is_said_in_one_line(llava_checkpoint, options, why):
    with pytest.raises(ImcError, match=why) as caught:
        open_mllm(**{"model": llava_checkpoint, "offline": True, **options})
    assert "\n" not in str(caught.value)


def test_another_family_and_broken_folders_are_refused(tmp_path, llava_checkpoint):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ImcError, match="'bert' are not supported; supported families"):
        open_mllm(tmp_path, offline=True)
    (tmp_path / "config.json").write_text((llava_checkpoint / "config.json").read_text())
    with pytest.raises(ImcError, match="cannot load"):
        open_mllm(tmp_path, offline=True)
    # Pickled weights are never read.
    torch.save(tiny("llava")[0].state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ImcError, match="cannot load"):
        open_mllm(tmp_path, offline=True)


def test_models_of_one_tower_are_told_apart(llava_checkpoint, tmp_path):
    """As a fine-tuning with a frozen tower leaves them; a confidence, and a batch's rows, belong to one of them."""
    folder = tmp_path / "tuned"
    shutil.copytree(llava_checkpoint, folder)
    first = load(str(llava_checkpoint), device="cpu", offline=True)
    assert load(str(folder), device="cpu", offline=True).version == first.version, "a copy is the same model"
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "language_model" in name and weights[name].dim() == 2)
    weights[name] = weights[name] + 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tuned = load(str(folder), device="cpu", offline=True)
    assert tuned.identity == first.identity and tuned.version != first.version


def test_an_adapter_is_not_passed_over(llava_checkpoint, tmp_path):
    folder = tmp_path / "adapted"
    shutil.copytree(llava_checkpoint, folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ImcError, match=r"holds an adapter .*merge it") as caught:
        open_mllm(folder, offline=True)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_lacks_weights_is_refused(llava_checkpoint, tmp_path):
    """transformers would make them up, anew each time."""
    folder = tmp_path / "lacking"
    shutil.copytree(llava_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "multi_modal_projector" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    for language in (True, False):
        with pytest.raises(ImcError, match=r"lacks .* of its weights, such as .*multi_modal_projector") as caught:
            load(str(folder), device="cpu", offline=True, language=language)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "package"),
    [("gptq", "optimum"), ("awq", "gptqmodel"), ("bitsandbytes", "bitsandbytes"), ("torchao", "torchao")],
)
def test_a_quantized_checkpoint_names_the_package_it_needs(llava_checkpoint, tmp_path, method, package):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    config = json.loads((llava_checkpoint / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ImcError, match=f"quantized by {method} needs {package}, .*pip install {package}$"):
        open_mllm(tmp_path, offline=True)
    with pytest.raises(ImcError, match="quantized already; leave --quant out"):
        open_mllm(tmp_path, offline=True, quant="int8")


def test_int8_quantizes_the_language_model_alone(llava_checkpoint, picture):
    if importlib.util.find_spec("torchao") is None:
        with pytest.raises(ImcError, match="pip install torchao"):
            open_mllm(llava_checkpoint, offline=True, device="cpu", quant="int8")
        pytest.skip("torchao is not installed")
    whole, light = (open_mllm(llava_checkpoint, offline=True, device="cpu", quant=q) for q in ("none", "int8"))
    seen = whole.perceive(picture)
    assert light.perceive(picture).tokens.tobytes() == seen.tokens.tobytes() and light.identity == whole.identity
    apart = (logits(light, seen.tokens) - logits(whole, seen.tokens)).abs().max()
    assert 0 < apart < 0.3
    assert light.generate(QUESTION, seen.tokens, 4).logprobs


@needs_gpu
def test_int4_on_cuda(llava_checkpoint, picture):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    model = open_mllm(llava_checkpoint, offline=True, device="cuda", quant="int4")
    assert model.generate(QUESTION, model.perceive(picture).tokens, 4).logprobs


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
