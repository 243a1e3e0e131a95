"""Hugging Face models as bundles: what ONNX Runtime answers is what torch answered, for every family."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx", reason="models are exported with onnx; it comes with imc-lite[export]")
sys.path.insert(0, str(Path(__file__).parent))

from click.testing import CliRunner  # noqa: E402
from imc_lite.export.hf import export_checkpoint  # noqa: E402
from imc_lite.export.parity import Bounds  # noqa: E402
from tiny_models import tiny  # noqa: E402

from imc_lite import IMC, ImcError, load_image  # noqa: E402
from imc_lite.bundle.store import Bundle  # noqa: E402
from imc_lite.cli.main import cli  # noqa: E402
from imc_lite.models.exported.model import ExportedMLLM  # noqa: E402
from imc_lite.models.hf.families import FAMILIES  # noqa: E402
from imc_lite.models.open import open_mllm  # noqa: E402
from imc_lite.models.replicas import in_order  # noqa: E402
from imc_lite.pdc.prototypes import load_prototypes  # noqa: E402
from imc_lite.sms.selftest import can_rewrite  # noqa: E402

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
QUESTION = "Is the heart enlarged?"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def both(request, checkpoint, exported):
    """The model in torch, and its bundle."""
    return open_mllm(checkpoint(request.param), offline=True), open_mllm(exported(request.param), offline=True)


@pytest.fixture(scope="module")
def llava_bundle(exported) -> Bundle:
    return Bundle(exported("llava"))


@pytest.fixture(scope="module")
def by_the_command(llava_checkpoint, llava_prototypes, tmp_path_factory):
    """A bundle with prototypes, and what the command that exports it printed."""
    folder = tmp_path_factory.mktemp("bundle") / "llava"
    done = run("-m", "imc_lite.export", llava_checkpoint, "-o", folder, "--prototypes", llava_prototypes, "--offline")
    return folder, done


def run(*command) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)


def test_every_part_is_torchs(both):
    there, here = both
    assert isinstance(here, ExportedMLLM) and here.identity == there.identity
    parity = here.bundle.manifest["parity"]
    assert max(parity["tower"], parity["projector"]) <= 1e-4 and parity["agreement"] >= 0.99
    picture = load_image(IMAGES[0])
    seen, wanted = here.perceive(picture), there.perceive(picture)
    assert seen.tokens.dtype == seen.stats.dtype == np.float32
    np.testing.assert_allclose(seen.tokens, wanted.tokens, atol=1e-4)
    np.testing.assert_allclose(seen.stats, wanted.stats, atol=1e-4)


@pytest.mark.parametrize("seen", [True, False], ids=["image", "text"])
def test_greedy_answers_and_scores_are_torchs(both, seen):
    there, here = both
    tokens = there.perceive(load_image(IMAGES[1])).tokens if seen else None
    wanted, found = there.generate(QUESTION, tokens, 24), here.generate(QUESTION, tokens, 24)
    assert found.text == wanted.text
    assert len(here.generate(QUESTION, tokens, 3, top_logprobs=4).top_logprobs[0]) == 4
    np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-3)
    # One past Gemma3's sliding window, one empty, and more than one pass holds.
    candidates = ["yes", "", "no, it is not, and there is much more to say about it", *"abcdefgh", "long " * 40]
    mine, theirs = (model.score(QUESTION, candidates, tokens) for model in both)
    for found, wanted in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_without_a_picture_both_say_the_same(both):
    """The answer's scores, and whether it would be written: as `score` and what is written have it."""
    written = both[0].generate(QUESTION, None, 4).text
    for answer in ("yes", "no, it is not", "", written):
        mine, theirs = (model.text_only(QUESTION, answer) for model in both)
        assert mine.same == theirs.same
        np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=1e-3)
        np.testing.assert_allclose(mine.logprobs, both[1].score(QUESTION, [answer])[0], atol=1e-3)


def test_several_threads_share_it(llava_bundle):
    """No call changes it, so its replicas are one model, and what comes side by side is what comes alone."""
    alone = ExportedMLLM(llava_bundle, device="cpu")
    workers = ExportedMLLM(llava_bundle, threads=2, device="cpu").replicas()
    assert workers[0] is workers[1] and workers[0].sessions.threads == 1 and not workers[0].on_gpu
    assert alone.replicas() == [alone]
    tokens = [alone.perceive(load_image(path)).tokens for path in IMAGES[:2]]
    jobs = [(f"{QUESTION} {number}", tokens[number % 2]) for number in range(8)]
    together = list(in_order(workers, lambda model, job: model.generate(*job, 6), jobs))
    assert together == [alone.generate(*job, 6) for job in jobs]


def test_whether_it_may_rewrite_is_written_down(both):
    there, here = both
    assert here.config["rewrites"] is can_rewrite(there) is False  # random weights repair no question


def test_changed_tokens_change_the_answer_and_texts_stream(both):
    _, here = both
    tokens = here.perceive(load_image(IMAGES[1])).tokens
    moved = tokens + np.random.default_rng(0).normal(size=tokens.shape).astype(np.float32)
    texts = []
    before = here.generate(QUESTION, tokens, 6, texts.append)
    assert len(texts) == 6 and texts[-1] == before.text
    assert here.generate(QUESTION, moved, 6).logprobs != before.logprobs


def test_questions_stay_questions(both):
    there, here = both
    tricky = f"Is {there.family.image_token(there.processor)} {there.processor.image_token} </s> here?"
    assert here.encode(tricky) == there.encode(tricky)
    tokens = here.perceive(load_image(IMAGES[1])).tokens
    assert here.generate(tricky, tokens, 2).text == there.generate(tricky, tokens, 2).text
    with pytest.raises(ImcError, match="shorten the question"):
        here.generate("x" * 600, None)


@pytest.mark.slow
def test_prototypes_to_answer(llava_checkpoint, llava_prototypes, by_the_command, tmp_path):
    folder, done = by_the_command
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")
    there = IMC.from_pretrained(llava_checkpoint, prototypes=llava_prototypes, sms=False, offline=True)
    here = IMC.from_pretrained(folder, sms=False)
    # A random tower names no noise reliably; so the verdict is forced to one that has a map, which is taken wherever it
    # leads: of a picture without that noise that is not back to clean ones.
    remedy = next(r for r in there.prototypes.remedies if r.map_index is not None and r.pays)
    named = zip(there.prototypes.matcher.kinds, there.prototypes.matcher.severities, strict=True)
    bias = np.where([point == (remedy.kind, remedy.severity) for point in named], 1e6, 0).astype(np.float32)
    sure = {"bias": bias, "unknown_limit": np.inf, "in_distribution_limit": np.inf}
    found = []
    for imc in (there, here):
        found.append(imc.answer(IMAGES[0], QUESTION).to_dict())
        anywhere = tuple(replace(r, farthest=None) for r in imc.prototypes.remedies)
        forced = replace(imc.prototypes, matcher=replace(imc.prototypes.matcher, **sure), remedies=anywhere)
        found.append(IMC(imc.model, forced, sms=False).answer(IMAGES[0], QUESTION).to_dict())
        assert found[-1]["image"]["calibrated"]
    for mine, theirs in zip(found[2:], found[:2], strict=True):
        chances = [row["image"]["noise"].pop("probability") for row in (mine, theirs)]
        assert mine["answer"] == theirs["answer"] and mine["image"] == theirs["image"]
        assert chances[0] == pytest.approx(chances[1], abs=1e-4)
    other = load_prototypes(llava_prototypes, there.model.identity)
    alien = tmp_path / "alien.safetensors"
    replace(other, facts=other.facts | {"encoder": "0" * 64}).save(alien)
    with pytest.raises(ImcError, match="another encoder"):
        export_checkpoint(str(llava_checkpoint), tmp_path / "c", prototypes=alien, offline=True)
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_the_noise_identifier_alone(llava_checkpoint, llava_prototypes, tmp_path):
    folder = tmp_path / "b"
    export_checkpoint(str(llava_checkpoint), folder, prototypes=llava_prototypes, encoder_only=True, offline=True)
    assert not {"decoder.onnx", "tokenizer.json"} & {p.name for p in folder.iterdir()}
    assert json.loads((folder / "config.json").read_text())["rewrites"] is False
    row = run("-m", "imc_lite", "inspect", IMAGES[0], "--model", folder, "--json")
    assert row.returncode == 0 and json.loads(row.stdout)["noise"]["kind"], row.stderr
    done = run("-m", "imc_lite", "answer", IMAGES[0], QUESTION, "--model", folder)
    assert done.returncode == 2 and "only names noise" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_host_needs_neither_torch_nor_transformers(llava_checkpoint, llava_bundle):
    folder = llava_bundle.folder
    code = (
        "import sys; from imc_lite import IMC; IMC.from_pretrained(sys.argv[1]).answer(sys.argv[2], 'Is it?');"
        "print(sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    done = run("-c", code, folder, IMAGES[0])
    assert done.stdout == "[]\n", done.stderr
    verified = run("-m", "imc_lite", "bundle", "verify", folder)
    assert verified.returncode == 0
    said = run("-m", "imc_lite", "bundle", "info", folder).stdout
    assert "family\tLLaVA\n" in said and "parity\tagreement\t1\n" in said and str(llava_checkpoint.parent) not in said


@pytest.mark.slow
def test_the_benchmark_takes_it(llava_checkpoint, by_the_command, tmp_path):
    options = ("--limit", 1, "--noise", "gaussian", "--noise", "typo", "--severity", 4, "--model", by_the_command[0])
    done = run("-m", "imc_lite", "bench", *options, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["model"]["id"] == llava_checkpoint.name and "onnxruntime" in results["versions"]
    assert [c["noise"] for c in results["conditions"]] == ["clean", "gaussian", "typo"]
    options = ("--limit", 1, "--model", llava_checkpoint, "--offline", "-o", tmp_path / "bare")
    # Without ONNX Runtime the packaged encoder cannot name noise, and there is nothing to compare.
    code = "import sys; sys.modules['onnxruntime'] = None; from imc_lite.cli.main import main; main()"
    bare = run("-c", code, "bench", *options)
    assert bare.returncode == 2 and "without noise prototypes" in bare.stderr and not (tmp_path / "bare").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_keeps_its_precision(by_the_command, tmp_path, precision):
    """Nothing is copied first, and what was asked for is not taken for done."""
    done = CliRunner().invoke(
        cli, ["export", str(by_the_command[0]), "--precision", precision, "-o", str(tmp_path / "b")]
    )
    assert isinstance(done.exception, ImcError) and "stays so; export the checkpoint again" in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "smaller"), [("fp16", 0.7), ("int8", 0.6), ("int4", 0.5)])
def test_fewer_bits(llava_checkpoint, llava_bundle, tmp_path, precision, smaller):
    whole = llava_bundle
    less = export_checkpoint(str(llava_checkpoint), tmp_path / "less", precision=precision, offline=True)
    sizes = [b.files["decoder.bin"]["size"] + b.files["embed.bin"]["size"] for b in (whole, less)]
    assert sizes[1] < smaller * sizes[0] and less.files["encoder.bin"] == whole.files["encoder.bin"]
    assert 0 < less.manifest["parity"]["kl"] < Bounds.of(precision).divergence
    # A confidence that was fitted to the whole model belongs to another one.
    assert less.version == whole.version + ("" if precision == "fp16" else f"-lm-{precision}")
    model = open_mllm(tmp_path / "less")
    assert model.generate(QUESTION, model.perceive(load_image(IMAGES[0])).tokens, 4).logprobs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (Bounds(visual=0.0), "the tower of the export differs from torch by .*nothing is written"),
        (Bounds(agreement=1.01), "100.0% of the greedy tokens .*nothing is written"),
    ],
    ids=["tower", "tokens"],
)
def test_what_differs_from_torch_is_not_written(llava_checkpoint, tmp_path, bounds, why):
    with pytest.raises(ImcError, match=why):
        export_checkpoint(str(llava_checkpoint), tmp_path / "b", bounds=bounds, offline=True)
    assert not list(tmp_path.iterdir())


def test_large_activations_are_rounded_in_their_own_measure(tmp_path):
    """Published towers have tokens in the hundreds and thousands, and float32 has seven digits."""
    model, processor = tiny("llava")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "vision_tower" in name and name.endswith(("fc2.weight", "out_proj.weight")):
                weight.mul_(300)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "large")
    mllm = open_mllm(tmp_path / "large", offline=True)
    assert np.abs(mllm.perceive(load_image(IMAGES[0])).tokens).max() > 200
    found = export_checkpoint(str(tmp_path / "large"), tmp_path / "b", offline=True, encoder_only=True)
    assert found.manifest["parity"]["tower"] > 0


def test_what_is_no_number_is_within_no_bound(tmp_path):
    model, processor = tiny("llava")
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.bias[0] = float("nan")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "spoilt")
    with pytest.raises(ImcError, match="the projector of the export differs from torch by inf"):
        export_checkpoint(str(tmp_path / "spoilt"), tmp_path / "b", precision="int4", offline=True)
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt"]


@pytest.mark.slow
def test_layers_that_all_slide_see_their_window(tmp_path):
    """Longer than the window, answers are torch's too."""
    model, processor = tiny("gemma3")
    text = model.config.text_config
    text.layer_types, text.sliding_window = ["sliding_attention"] * text.num_hidden_layers, 64
    for part in (model, processor):
        part.save_pretrained(tmp_path / "sliding")
    mllm = open_mllm(tmp_path / "sliding", offline=True)
    bundle = export_checkpoint(str(tmp_path / "sliding"), tmp_path / "b", offline=True)
    exported = ExportedMLLM(bundle)
    question = " ".join(["Is there anything to be seen in this picture?"] * 5)
    for asked in ("Is it?", question):
        theirs, mine = (m.score(asked, ["yes", "no"]) for m in (mllm, exported))
        assert all(np.abs(a - b).max() < 1e-3 for a, b in zip(theirs, mine, strict=True)), asked


def test_what_cannot_be_exported_is_refused(llava_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(ImcError, match=r"cannot write .*choose another folder"):
        export_checkpoint("never/loaded", tmp_path / "none" / "b", offline=True)
    with pytest.raises(ImcError, match="is there already"):
        export_checkpoint(str(llava_checkpoint), tmp_path / "there", offline=True)
    model, processor = tiny("llava")
    processor.chat_template = "<image> what?"
    for part in (model, processor):
        part.save_pretrained(tmp_path / "mute")
    with pytest.raises(ImcError, match="does not hold the question once"):
        export_checkpoint(str(tmp_path / "mute"), tmp_path / "b", offline=True)
    monkeypatch.chdir(llava_checkpoint)
    assert export_checkpoint(".", tmp_path / "here", offline=True, encoder_only=True).id == llava_checkpoint.name
    shutil.rmtree(tmp_path / "here")
    done = run("-m", "imc_lite", "export", "default", "--precision", "int4", "-o", tmp_path / "b")
    assert done.returncode == 2 and "--precision int4 is for Hugging Face models" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mute", "there"]
