"""The hand-written graphs compute what torch computes."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from imc_lite.export.graphs import DecoderConfig, decoder, encoder, projector
from imc_lite.export.templates import ASSETS, write_templates

from imc_lite.bundle.build import fill
from imc_lite.bundle.weights import FUSED, adapter_beside, encoder_tensors, projector_tensors, quantize_8bit
from imc_lite.models.default.decoder import Decoder
from imc_lite.models.greedy import log_softmax

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import model as recipe

TINY = DecoderConfig(2, 64, 4, 2, 16, 96, 160, 10000.0, 1e-5, 256, rank=6, accuracy_level=1)


def _session(folder: Path, name: str, graph, layout, tensors) -> ort.InferenceSession:
    (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    with open(folder / f"{name}.bin", "wb") as file:
        fill(file, layout, tensors)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(folder / f"{name}.onnx"), options, ["CPUExecutionProvider"])


@pytest.mark.slow
def test_committed_templates_are_current(tmp_path):
    write_templates(tmp_path)
    graphs = (f"{graph}.onnx" for graph in ("encoder", "shallow", "projector", "decoder"))
    for name in (*graphs, "layout.json", "preprocessing.json"):
        assert (tmp_path / name).read_bytes() == (ASSETS / name).read_bytes(), f"{name}: run imc_lite.export.templates"


@pytest.fixture(scope="module")
def shipped():
    torch.manual_seed(0)
    enc, proj = recipe.Encoder(), recipe.Projector(576)
    for module in enc.modules():
        if isinstance(module, recipe.ConvAffine):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.scale.uniform_(0.5, 1.0)
            module.shift.normal_(0, 0.1)
    torch.nn.init.normal_(proj.position)

    class NoLanguageModel(torch.nn.Module):
        model = type("Layers", (), {"layers": []})

    state = {k: v.numpy() for k, v in recipe.state_to_ship(enc, proj, NoLanguageModel()).items()}
    return enc, proj, state


def test_encoder_equals_torch(tmp_path, shipped):
    enc, _, state = shipped
    session = _session(tmp_path, "encoder", *encoder(), encoder_tensors(state))
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, 320, 320)).astype(np.float32)
    with torch.no_grad():
        # The shipped weights are float16, so the torch side is rounded the same way.
        for name, module in enc.named_modules():
            if isinstance(module, recipe.ConvAffine):
                module.weight.copy_(torch.from_numpy(state[f"encoder.{name}.weight"]).float())
                module.scale.fill_(1)
                module.shift.copy_(torch.from_numpy(state[f"encoder.{name}.bias"]).float())
        tokens, stats = enc(torch.from_numpy(pixels))
    got_tokens, got_stats = session.run(["tokens", "stats"], {"pixels": pixels})
    assert got_tokens.shape == (2, 25, 1280) and got_stats.shape == (2, 1664)
    np.testing.assert_allclose(got_tokens, tokens.numpy(), atol=2e-4)
    np.testing.assert_allclose(got_stats, stats.numpy(), rtol=1e-4, atol=2e-4)
    assert tokens.std() > 0.05, "a constant output would prove nothing"


def test_projector_equals_torch(tmp_path, shipped):
    _, proj, state = shipped
    session = _session(tmp_path, "projector", *projector(), projector_tensors(state))
    proj.load_state_dict({k: v.half().float() for k, v in proj.state_dict().items()})
    tokens = np.random.default_rng(1).normal(size=(1, 25, 1280)).astype(np.float32)
    with torch.no_grad():
        wanted = proj(torch.from_numpy(tokens)).numpy()
    np.testing.assert_allclose(session.run(None, {"tokens": tokens})[0], wanted, atol=1e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny random Llama in transformers with an adapter and without, and its graph with the same 8-bit weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    c = TINY
    config = LlamaConfig(
        vocab_size=c.vocab, hidden_size=c.hidden, intermediate_size=c.inter, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, rms_norm_eps=c.eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta}, tie_word_embeddings=False,
    )  # fmt: skip
    llama = LlamaForCausalLM(config).eval()
    for p in llama.parameters():
        p.data.normal_(0, 0.3) if p.dim() == 2 else p.data.uniform_(0.5, 1.5)
    adapted = copy.deepcopy(llama)
    tensors = {"norm": llama.model.norm.weight}
    angles = np.arange(c.positions)[:, None] * c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim)
    tensors |= {"cos": np.cos(angles), "sin": np.sin(angles)}
    linears = {"head": ["lm_head"]}
    trained = {}
    for i, layer in enumerate(llama.model.layers):
        tensors |= {f"l{i}.norm1": layer.input_layernorm.weight, f"l{i}.norm2": layer.post_attention_layernorm.weight}
        for short, parts in FUSED.items():
            linears[f"l{i}.{short}"] = [f"model.layers.{i}.{recipe.LORA_TARGETS[part]}" for part in parts]
            for part in parts:
                out, into = llama.get_submodule(f"model.layers.{i}.{recipe.LORA_TARGETS[part]}").weight.shape
                trained[f"picture.layers.{i}.{part}.a"] = torch.randn(c.rank, into).numpy() * 0.2
                trained[f"picture.layers.{i}.{part}.b"] = torch.randn(out, c.rank).numpy() * 0.2
    for name, parts in linears.items():
        weight = np.concatenate([llama.get_submodule(part).weight.detach().numpy() for part in parts])
        into = weight.shape[1]
        if name != "head":
            layer, short = name.split(".")
            down, up = adapter_beside(trained, int(layer[1:]), FUSED[short])
            low, weight = quantize_8bit(down), np.concatenate([weight, up], 1)
            tensors |= {f"{name}.low.q": low[0], f"{name}.low.s": low[1]}
        codes, scales = quantize_8bit(weight)
        tensors |= {f"{name}.q": codes, f"{name}.s": scales}
        exact = torch.from_numpy(_exact(codes, scales))
        of_parts = exact.split([len(llama.get_submodule(part).weight) for part in parts])
        for part, rows in zip(parts, of_parts, strict=True):
            llama.get_submodule(part).weight.data.copy_(rows[:, :into])
            beside = rows[:, into:] @ torch.from_numpy(_exact(*low)) if name != "head" else 0
            adapted.get_submodule(part).weight.data.copy_(rows[:, :into] + beside)
    for mine, theirs in zip(adapted.parameters(), llama.parameters(), strict=True):
        if mine.dim() == 1:
            mine.data.copy_(theirs)
    arrays = {k: v.detach().numpy() if isinstance(v, torch.Tensor) else v for k, v in tensors.items()}
    named = ((k, v if v.dtype == np.uint8 else v.astype(np.float32)) for k, v in arrays.items())
    folder = tmp_path_factory.mktemp("tiny")
    session = _session(folder, "decoder", *decoder(c), named)
    shape = {"positions": c.positions, "kv_heads": c.kv_heads, "head_dim": c.head_dim, "layers": c.layers}
    return {False: llama, True: adapted}, Decoder(session, shape)


def _exact(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return ((codes.astype(np.float32) - 128) * scales[..., None]).reshape(len(codes), -1)


def _torch_logits(llama, embeds: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return llama(inputs_embeds=torch.from_numpy(embeds)[None]).logits[0].numpy()


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize("split", [1, 3, 16, 17])
def test_decoder_equals_transformers_however_it_is_fed(tiny, split, pictured):
    llamas, graph = tiny
    embeds = np.random.default_rng(split).normal(size=(17, 64)).astype(np.float32)
    wanted = _torch_logits(llamas[pictured], embeds)
    assert np.abs(wanted - _torch_logits(llamas[not pictured], embeds)).max() > 0.1
    graph.begin(17, pictured)
    at = 0
    while at < 17:
        logits = graph.extend(embeds[at : at + split])
        at = min(at + split, 17)
        np.testing.assert_allclose(logits[0], wanted[at - 1], atol=2e-3)


@pytest.mark.parametrize("pictured", [False, True])
def test_branches_see_the_prefix_and_themselves_only(tiny, pictured):
    llamas, graph = tiny
    rng = np.random.default_rng(5)
    prefix = rng.normal(size=(9, 64)).astype(np.float32)
    branches = [rng.normal(size=(n, 64)).astype(np.float32) for n in (4, 1, 7)]
    graph.begin(9 + 12, pictured)
    graph.extend(prefix)
    for _ in range(2):  # a second round shows that the first left nothing in the cache
        got = graph.branch(np.concatenate(branches), [len(b) for b in branches])
        at = 0
        for branch in branches:
            wanted = _torch_logits(llamas[pictured], np.concatenate([prefix, branch]))[9:]
            np.testing.assert_allclose(got[at : at + len(branch)], wanted, atol=2e-3)
            at += len(branch)


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize(("keep", "lengths", "passes"), [(3, (4, 1, 7), 1), (3, (1,), 2), (0, (4, 7), 2), (3, (), 1)])
def test_a_prompt_and_what_follows_it_in_one_pass(tiny, monkeypatch, keep, lengths, passes, pictured):
    """One where the beginning is known; else the positions of branches would be others, or a kernel for one token."""
    llamas, graph = tiny
    rng = np.random.default_rng([6, keep, *lengths])  # a beginning of its own
    prefix = rng.normal(size=(9, 64)).astype(np.float32)
    branches = [rng.normal(size=(n, 64)).astype(np.float32) for n in lengths]
    together = np.concatenate([*branches, np.zeros((0, 64), np.float32)])
    read, run = [], graph.run
    monkeypatch.setattr(graph, "run", lambda embeds, *more: read.append(len(embeds)) or run(embeds, *more))
    for again in range(2):
        graph.begin(9 + 12, pictured)
        read.clear()
        rows, after = graph.extend_and_branch(prefix, 2, keep, together, lengths)
        assert len(read) == passes + (keep > 0 and not again) and graph.length == 9
        assert len(after) == sum(lengths)
        np.testing.assert_allclose(rows, _torch_logits(llamas[pictured], prefix)[7:], atol=2e-3)
        for branch, got in zip(branches, np.split(after, np.cumsum(lengths)[:-1]) if lengths else [], strict=True):
            wanted = _torch_logits(llamas[pictured], np.concatenate([prefix, branch]))[9:]
            np.testing.assert_allclose(got, wanted, atol=2e-3)
    following = graph.extend(together[:1])[0] if len(together) else None  # the cache holds the prompt alone
    if following is not None:
        wanted = _torch_logits(llamas[pictured], np.concatenate([prefix, together[:1]]))[9]
        np.testing.assert_allclose(following, wanted, atol=2e-3)


def test_quantization_keeps_zero_and_extremes():
    weight = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    weight[0] = 0
    codes, scales = quantize_8bit(weight)
    back = ((codes.astype(np.float32) - 128) * scales[..., None]).reshape(weight.shape)
    assert (back[0] == 0).all()
    assert np.abs(back - weight).max() <= scales.max() / 2 + 1e-7


def test_log_softmax_is_stable():
    rows = np.array([[1e4, 0.0, -1e4]], np.float32)
    assert np.isfinite(log_softmax(rows)).all()
    assert log_softmax(rows)[0, 0] == pytest.approx(0, abs=1e-6)


def test_layout_offsets_do_not_overlap():
    for entries in json.loads((ASSETS / "layout.json").read_text()).values():
        end = 0
        for e in entries:
            assert e["offset"] >= end and e["offset"] % 4096 == 0
            end = e["offset"] + int(np.prod(e["shape"])) * np.dtype(e["dtype"]).itemsize
