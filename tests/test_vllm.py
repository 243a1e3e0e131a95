"""A tower here, a language model in vLLM: the same as both in transformers."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tiny_models  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import tiny  # noqa: E402

from imc_lite import ImcError  # noqa: E402
from imc_lite.batch.answering import answer_rows, workers_of  # noqa: E402
from imc_lite.batch.rows import Case, Plan  # noqa: E402
from imc_lite.models.base import BaseMLLM, Generation, Perception  # noqa: E402
from imc_lite.models.deadline import Deadline, DeadlineError  # noqa: E402
from imc_lite.models.hf.load import load  # noqa: E402
from imc_lite.models.hf.model import HfMLLM  # noqa: E402
from imc_lite.models.open import open_mllm  # noqa: E402
from imc_lite.pipeline import IMC  # noqa: E402

HERE = importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not HERE, reason="vLLM is not installed; it comes with imc-lite[vllm]")
TAKEN, PIXELS = ("llava", "llava_next", "qwen2_5_vl", "qwen3_vl"), ("gemma3", "smolvlm", "idefics3")
# As float32 as the other side, and without compiling anything.
EXACT = {"dtype": "float32", "enforce_eager": True, "max_model_len": 400}
# Of vLLM, on a CPU: GiB for what it keeps of prompts. Inherited by its processes.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture
def checkpoint(monkeypatch, tmp_path):
    """Writes a tiny model whose heads are as wide as vLLM wants them."""

    def write(family):
        monkeypatch.setitem(tiny_models.LANGUAGE, "hidden_size", 128)
        monkeypatch.setitem(tiny_models.LANGUAGE, "head_dim", 32)
        for part in tiny(family):
            part.save_pretrained(tmp_path / family)
        if family.startswith("llava"):  # vLLM knows the names that CLIP's weights have on the hub
            weights = tmp_path / family / "model.safetensors"
            named = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in load_file(weights).items()}
            save_file(named, weights, metadata={"format": "pt"})
        return tmp_path / family

    return write


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (50, 60, 3), np.uint8)


@pytest.mark.parametrize("family", TAKEN + PIXELS)
def test_the_tower_alone_sees_as_the_whole_model(family, checkpoint):
    folder = checkpoint(family)
    eyes, whole = (load(str(folder), device="cpu", language=language) for language in (False, True))
    assert eyes.identity == whole.identity
    seen = eyes.perceive(noise(0))
    np.testing.assert_array_equal(seen.tokens, whole.perceive(noise(0)).tokens)
    left, all_of_it = (sum(p.numel() for p in model.model.parameters()) for model in (eyes, whole))
    assert left < all_of_it - 2 * 128 * 64
    if family in PIXELS:
        with pytest.raises(ImcError, match="as pixels alone; leave the `vllm:` out"):
            eyes.embedded(seen.tokens)


@pytest.mark.parametrize("family", TAKEN)
def test_what_vllm_is_given_is_what_the_language_model_was(family):
    """The embeddings in the place of the picture, of tokens that no picture has."""
    model = HfMLLM(*tiny(family))
    tokens = -0.5 * model.perceive(noise(1)).tokens
    found = model.embedded(tokens)
    given: list = []
    hook = model.model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: given.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    model.prefill("What is this?", tokens, 4)
    hook.remove()
    width = given[0].shape[1]
    flat = (found["image_embeds"] if isinstance(found, dict) else found[0])[:, :width]
    ids = model.inputs("What is this?", np.full((32, 32, 3), 255, np.uint8))["input_ids"][0]
    places = ids == model.model.config.image_token_id
    torch.testing.assert_close(given[0][places], flat)


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("family", TAKEN)
def test_it_answers_as_transformers_does(family, checkpoint):
    from imc_lite.models.vllm.model import VllmMLLM

    folder = checkpoint(family)
    whole = load(str(folder), device="cpu")
    model = VllmMLLM.open(str(folder), device="cpu", offline=True, **EXACT)
    try:
        assert model.identity == whole.identity and model.version == whole.version
        seen = model.perceive(noise(2)).tokens
        for tokens in (seen, -0.5 * seen, None):
            grown: list = []
            expected = whole.generate("What is this?", tokens, 8, top_logprobs=2)
            found = model.generate("What is this?", tokens, 8, grown.append, top_logprobs=2)
            assert found.text == expected.text == grown[-1]
            np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)
            assert [[t.text for t in row] for row in found.top_logprobs] == [
                [t.text for t in row] for row in expected.top_logprobs
            ]
            candidates = ["a", "abcd", "ab", ""]
            scores = zip(
                model.score("Is it?", candidates, tokens), whole.score("Is it?", candidates, tokens), strict=True
            )
            for mine, theirs in scores:
                np.testing.assert_allclose(mine, theirs, atol=1e-4)
        mine, theirs = (m.text_only("Is it?", "ab") for m in (model, whole))
        assert mine.same == theirs.same
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=1e-4)
        assert model.score("Is it?", []) == []
        with pytest.raises(ImcError, match="tokens with its answer, the model holds 400; shorten the question"):
            model.generate("long " * 100, seen)
    finally:
        model.close()


@pytest.mark.slow
@needs_vllm
def test_requests_are_answered_together_and_taken_back(checkpoint):
    from imc_lite.models.vllm.model import VllmMLLM

    model = VllmMLLM.open(str(checkpoint("llava")), device="cpu", offline=True, **EXACT)
    try:
        assert model.beside() is model  # a server opens it once for all of its workers
        questions = [f"Question {number}?" for number in range(12)]
        alone = [model.generate(question, None, 16).text for question in questions]
        together: dict = {}

        def ask(question):
            together[question] = model.generate(question, None, 16).text

        threads = [threading.Thread(target=ask, args=(question,)) for question in questions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [together[question] for question in questions] == alone
        with pytest.raises(DeadlineError):
            model.generate("Is it?", None, 300, deadline=Deadline(0.15))
        assert model.generate(questions[0], None, 16).text == alone[0]
        with pytest.raises(ZeroDivisionError):
            model.generate("Is it?", None, 300, on_text=lambda _: 1 / 0)
        assert model.generate(questions[0], None, 16).text == alone[0]
    finally:
        model.close()


@pytest.mark.slow
@needs_vllm
def test_the_command_and_a_batch(checkpoint, chest, tmp_path):
    folder = checkpoint("llava")
    rows = [{"id": n, "image": str(chest), "question": "Is the heart enlarged?"} for n in range(5)]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "imc_lite", "answer", "-m", f"vllm:{folder}", "--offline", "--no-timings"]
    out = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [*command, "--batch", tmp_path / "cases.jsonl", "-o", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in found] == [str(n) for n in range(5)]
    assert len({row["answer"] for row in found}) == 1 and "vllm" in found[0]["versions"]


@pytest.mark.skipif(HERE, reason="vLLM is installed")
def test_without_vllm_it_is_said_in_one_line(chest):
    with pytest.raises(ImcError, match=r"vllm is not installed; install imc-lite\[vllm\]"):
        open_mllm("vllm:org/model")


def test_a_name_is_wanted():
    with pytest.raises(ImcError, match="vllm: names no model; give vllm:ORGANISATION/NAME or vllm:FOLDER"):
        open_mllm("vllm:")


@pytest.mark.slow
@needs_vllm
def test_what_vllm_cannot_open_ends_a_batch_in_one_line(checkpoint, chest, tmp_path):
    folder = checkpoint("llava")
    weights = folder / "model.safetensors"
    kept = load_file(weights)
    del kept["language_model.model.norm.weight"]
    save_file(kept, weights, metadata={"format": "pt"})
    case = {"image": str(chest), "question": "Is the heart enlarged?"}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n")
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "imc_lite", "answer", "-m", f"vllm:{folder}", "--offline", "--no-sms"]
    done = subprocess.run(
        [*command, "--batch", tmp_path / "cases.jsonl", "-o", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and f"imc-lite: vLLM cannot open {folder}" in done.stderr.splitlines()[-1]
    assert not out.exists() or not out.read_text()


class Slow(BaseMLLM):
    """Answers several questions at once, the first of them last."""

    id, version, at_once = "slow", "1", 4

    def __init__(self):
        self.identity = {"encoder": "none", "preprocessing": "none"}
        self.most, self.now, self.lock = 0, 0, threading.Lock()

    def perceive(self, image):
        return Perception(np.ones((1, 1), np.float32), np.zeros(8, np.float32))

    def generate(self, prompt, tokens, max_new_tokens=32, on_text=None, deadline=None):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.3 if "0" in prompt else 0.05)
        with self.lock:
            self.now -= 1
        return Generation(prompt, (-0.1,))

    def score(self, prompt, candidates, tokens=None, deadline=None):
        return [np.array([-0.1], np.float32) for _ in candidates]

    def encode(self, text):
        return list(text.encode())


def test_a_batch_asks_as_many_at_once_as_the_model_takes(chest):
    model = Slow()
    model.ready = lambda: drawn.append("ready")
    cases = [Case(str(n), str(chest), f"Is it {n}?") for n in range(20)]
    drawn: list = []

    def draw():
        for case in cases:
            drawn.append(case)
            yield case

    rows = answer_rows(workers_of(IMC(model, sms=False)), draw(), Plan(chest.parent))
    first = json.loads(next(rows))
    assert first["answer"] == "Is it 0?"
    assert drawn == ["ready", *cases[:5]]  # so many ahead, and not the whole file
    rest = [json.loads(row) for row in rows]
    assert [first["id"], *(row["id"] for row in rest)] == [case.id for case in cases]
    assert [row["answer"] for row in rest] == [case.question for case in cases[1:]]
    assert model.most == 4
