"""How sure an answer is: what it is made of, the file it is kept in, and answers that are not given."""

import json
import math
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from test_cli import run

from imc_lite import IMC, ImcError
from imc_lite.images.load import load_image
from imc_lite.models.base import Generation
from imc_lite.models.remembered import MOST
from imc_lite.pdc.familiarity import Familiarity, cluster, fit_clusters, pooled
from imc_lite.results import ImageReliance, ImageReport, Noise, Rewording
from imc_lite.sms import guard
from imc_lite.trust.assess import BLIND, CUT, STRANGE, WAVERING, assess
from imc_lite.trust.confidence import EVIDENCE, FAMILIAR, Confidence, Rule, ceiling, evidence, load_confidence
from imc_lite.trust.fit import Observed, fit_confidence, regress
from imc_lite.trust.observe import FEWEST_PICTURES, Labelled, observe, read_labelled
from imc_lite.trust.promise import DOUBT, evidence_below, least_limit
from imc_lite.trust.rewording import check_wording, reword

MODALITY, STRANGER = "What modality is this?", "What kind of picture is this?"


@pytest.fixture(scope="module")
def sure(default_bundle) -> IMC:
    return IMC.from_pretrained(default_bundle)


@pytest.fixture(scope="module")
def stranger() -> np.ndarray:
    """No picture of any kind that was trained on: rings of colours."""
    y, x = np.mgrid[-1:1:320j, -1:1:320j]
    rings = np.stack([np.sin(40 * (x**2 + y**2) + phase) for phase in (0, 2, 4)], -1)
    return np.rint(127.5 + 127.5 * rings).astype(np.uint8)


def test_an_answer_says_how_sure_it_is(sure, chest):
    result = sure.answer(chest, MODALITY)
    assert result.answer == "x-ray" and 0.7 < result.confidence <= 1 and result.selective.answered
    assert result.selective.risk == pytest.approx(1 - result.confidence)
    row = result.to_dict()
    assert [*row][:6] == ["id", "answer", "confidence", "token_probability", "image_reliance", "selective"]
    assert json.loads(json.dumps(row)) == row


def test_reliance_is_what_the_picture_adds(sure, chest):
    """The same tokens scored with the picture, and with the same language model but nothing to see."""
    model = sure.model
    result = sure.answer(chest, MODALITY)
    ends = model.score(MODALITY, [result.answer], model.perceive(load_image(chest)).tokens)[0]
    without = model.text_only(MODALITY, result.answer)
    assert without.logprobs.shape == ends.shape and (without.logprobs <= 0).all()
    assert result.image_reliance.nats == pytest.approx(float(ends.sum() - without.logprobs.sum()), abs=0.02)
    other = model.text_only(MODALITY, "a banana")
    assert not other.same and other.logprobs.sum() < without.logprobs.sum()


def test_without_a_picture_the_default_answer_is_the_same(sure):
    """`same` says of the greedy answer to the bare question that it is the same, and of another one that it is not."""
    model, empty = sure.model, np.zeros((0, 1280), np.float32)
    greedy = model.generate(MODALITY, empty).text
    assert model.text_only(MODALITY, greedy).same
    assert not model.text_only(MODALITY, greedy + " no").same


def test_an_answer_without_words_is_looked_at_too(sure):
    found = sure.model.text_only(MODALITY, "")
    assert found.logprobs.shape == (1,) and found.logprobs[0] < 0 and not found.same


def test_a_strange_picture_is_not_trusted(sure, stranger):
    told = sure.answer(stranger, STRANGER)
    assert told.answer and told.confidence < 0.5 and STRANGE in told.selective.reasons
    declined = sure.answer(stranger, STRANGER, max_risk=0.3)
    assert declined.answer is None and not declined.selective.answered and declined.confidence == told.confidence
    assert declined.token_probability == told.token_probability


def test_an_answer_that_may_be_withheld_is_not_told_on_the_way(sure, stranger, chest):
    heard = []
    sure.answer(stranger, STRANGER, max_risk=0.3, on_text=heard.append)
    assert heard == []
    sure.answer(chest, MODALITY, max_risk=0.5, on_text=heard.append)
    assert heard == ["x-ray"]


def test_an_answer_that_was_cut_off_is_not_known_to_be_right(sure, chest):
    """A part of an answer is likelier than all of it, and says less."""
    cut, whole = (sure.answer(chest, MODALITY, max_new_tokens=most) for most in (1, 64))
    assert whole.answer.startswith(cut.answer) and len(cut.answer) < len(whole.answer)
    assert cut.confidence is None and cut.token_probability > 0 and whole.confidence > 0.5
    assert (cut.selective.risk, cut.selective.answered, cut.selective.reasons) == (1.0, True, (CUT,))
    withheld = sure.answer(chest, MODALITY, max_new_tokens=1, max_risk=0.9)
    assert withheld.answer is None and not withheld.selective.answered
    assert sure.answer(chest, MODALITY, max_risk=np.float32(0.9)).answer == whole.answer


def test_answers_are_the_same_whatever_may_be_withheld(sure, chest):
    free, held = sure.answer(chest, MODALITY), sure.answer(chest, MODALITY, max_risk=1.0)
    assert (free.answer, free.confidence, free.image) == (held.answer, held.confidence, held.image)


@pytest.mark.parametrize("risk", [-0.1, 1.1, "0.3", True, math.nan])
def test_limits_that_are_no_share(sure, chest, risk):
    with pytest.raises(ImcError, match="max_risk is"):
        sure.answer(chest, MODALITY, max_risk=risk)


def test_without_a_confidence_there_is_no_limit(default_model, chest):
    imc = IMC(default_model, sms=False)
    result = imc.answer(chest, MODALITY)
    assert result.confidence is None and result.selective is None and result.token_probability > 0.5
    assert result.image_reliance is not None
    with pytest.raises(ImcError, match="imc-lite calibrate"):
        imc.answer(chest, MODALITY, max_risk=0.3)


def test_a_model_that_cannot_do_without_pictures_has_no_reliance(default_model, chest):
    class Bare:
        def __getattr__(self, name):
            if name == "text_only":
                raise AttributeError(name)
            return getattr(default_model, name)

    assert IMC(Bare(), sms=False).answer(chest, MODALITY).image_reliance is None


def test_declining_from_the_shell(default_bundle, chest, stranger, tmp_path):
    from PIL import Image

    Image.fromarray(stranger).save(tmp_path / "s.png")
    done = run("answer", "-m", str(default_bundle), str(tmp_path / "s.png"), STRANGER, "--max-risk", "0.3")
    assert done.returncode == 3 and done.stdout == b""
    line = done.stderr.decode()
    assert line.startswith("imc-lite: no answer: it would be wrong with a probability of ") and line.count("\n") == 1
    told = run("answer", "-m", str(default_bundle), str(tmp_path / "s.png"), STRANGER)
    assert told.returncode == 0 and told.stdout.strip() and told.stderr.startswith(b"imc-lite: be careful: ")
    several = run("answer", "-m", str(default_bundle), str(chest), MODALITY, STRANGER, "--max-risk", "0.0001", "--json")
    rows = [json.loads(line) for line in several.stdout.splitlines()]
    assert several.returncode == 3 and [row["answer"] for row in rows] == [None, None]
    assert not any(row["selective"]["answered"] for row in rows) and several.stderr == b""
    refused = run("answer", str(chest), MODALITY, "--max-risk", "0.1", "--upstream", "http://127.0.0.1:9/v1")
    assert refused.returncode == 2 and b"--upstream" in refused.stderr


def test_declining_in_a_batch(default_bundle, chest, stranger, tmp_path):
    from PIL import Image

    Image.fromarray(stranger).save(tmp_path / "s.png")
    cases = [
        {"image": str(chest), "question": MODALITY},
        {"image": "s.png", "question": STRANGER},
        {"image": "s.png", "questions": [STRANGER, MODALITY]},
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    batch = ("answer", "-m", str(default_bundle), "--batch", str(tmp_path / "cases.jsonl"))
    done = run(*batch, "-o", str(tmp_path / "out.jsonl"), "--max-risk", "0.3")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[0]["answer"] == "x-ray" and rows[1]["answer"] is None and not rows[1]["selective"]["answered"]
    assert [entry["answer"] for entry in rows[2]["answers"]] == [None, None]
    assert all("max-risk=0.3" in row["run"]["options"] for row in rows)
    again = run(*batch, "-o", str(tmp_path / "out.jsonl"), "--max-risk", "0.2")
    assert again.returncode == 2 and b"max-risk" in again.stderr, "rows of another limit are not gone on with"


def test_the_packaged_confidence_belongs_to_the_packaged_weights(sure, default_bundle):
    assert sure.confidence is not None and sure.confidence.facts["version"] == sure.model.version
    assert sure.confidence.facts["answers"] > 5000
    file = sure.model.confidence_file()
    for name, value in (("encoder", "0" * 64), ("preprocessing", "0" * 64)):
        with pytest.raises(ImcError, match=f"another {name}; fit it"):
            load_confidence(file, {**sure.model.identity, name: value}, sure.model.version)
    with pytest.raises(ImcError, match="another version"):
        load_confidence(file, sure.model.identity, "other")


def test_a_confidence_is_what_was_saved(sure, chest, tmp_path):
    sure.confidence.save(tmp_path / "c.safetensors")
    again = load_confidence(tmp_path / "c.safetensors", sure.model.identity, sure.model.version)
    assert again.digest() == sure.confidence.digest()
    tokens = sure.model.perceive(load_image(chest)).tokens
    assert again.familiar(tokens) == sure.confidence.familiar(tokens)
    deep = b'{"confidence": ' + b"[" * 100_000
    narrow = replace(sure.confidence.familiarity, directions=sure.confidence.familiarity.directions[1:])
    unreal = replace(sure.confidence.familiarity, variance=math.nan)
    for familiarity in (narrow, unreal):
        replace(sure.confidence, familiarity=familiarity).save(tmp_path / "d.safetensors")
        with pytest.raises(ImcError, match="holds no readable confidence"):
            load_confidence(tmp_path / "d.safetensors", sure.model.identity, sure.model.version)
    for damage in (deep, b"", b"{}", (tmp_path / "c.safetensors").read_bytes()[:4000], b"\xff" * 100):
        (tmp_path / "d.safetensors").write_bytes(damage)
        with pytest.raises(ImcError, match="holds no readable confidence"):
            load_confidence(tmp_path / "d.safetensors", sure.model.identity, sure.model.version)


def test_evidence():
    noisy = ImageReport(None, Noise("gaussian", 5, 0.9, 5.0), gradable=False)
    found = evidence((math.log(0.5), math.log(0.125)), ImageReliance(3.0, False), noisy, math.e)
    assert found == pytest.approx([math.log(1 / 3), math.log(1 / 15), 3, 0, 1, 0, 1, 1])
    unknown = ImageReport(None, Noise("unknown", 0, 0.9, 0.0))
    blind = evidence((0.0,), ImageReliance(-9.0, True), unknown, 1.0)
    assert blind[2:].tolist() == [-5, 1, 0, 1, 0, 0] and np.isfinite(blind).all() and len(blind) == len(EVIDENCE)
    assert evidence((-0.1,), None, ImageReport(None), 1.0)[2:].tolist() == [0, 0, 0, 0, 0, 0]
    again = evidence((-0.1,), None, ImageReport(None), 1.0, Rewording(("a", "b"), (True, False)))
    assert again[8:].tolist() == [0.5]


def test_the_ceiling_is_full_from_where_a_picture_counts_as_known():
    assert ceiling(np.array([0, FAMILIAR / 2, FAMILIAR, 1])).tolist() == [0, 0.5, 1, 1]


def test_the_distance_is_that_of_the_whole_covariance():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=(60, 12)) * np.arange(1, 13), 40 + rng.normal(size=(60, 12))])
    owners = np.repeat([0, 1], 60)
    fitted = fit_clusters(values, owners)
    apart = values - np.stack([values[:60].mean(0), values[60:].mean(0)])[owners]
    covariance = 0.8 * apart.T @ apart / len(apart) + 0.2 * (apart**2).mean() * np.eye(12)
    shown = rng.normal(size=(5, 12))
    offsets = shown - values[:60].mean(0)
    expected = np.einsum("ij,jk,ik->i", offsets, np.linalg.inv(covariance), offsets) / 12
    assert fitted.of_pooled(shown) == pytest.approx(expected, rel=1e-4)


def test_tokens_are_pooled_to_unit_length():
    tokens = np.random.default_rng(0).normal(size=(3, 25, 16)).astype(np.float32)
    values = pooled(tokens)
    assert values.shape == (3, 32)
    assert np.linalg.norm(values.reshape(3, 2, 16), axis=-1) == pytest.approx(np.ones((3, 2)))
    assert pooled(7 * tokens) == pytest.approx(values)
    assert np.isfinite(pooled(np.zeros((25, 16)))).all()


def test_clusters_are_found():
    rng = np.random.default_rng(1)
    values = np.repeat(10 * np.eye(4), 20, 0) + rng.normal(size=(80, 4))
    owners = cluster(values, 4, rng)
    assert all(len(set(owners[at : at + 20])) == 1 for at in range(0, 80, 20)) and len(set(owners)) == 4
    assert set(cluster(np.ones((5, 3)), 4, rng)) == {0}, "pictures that are all the same are one cluster"


def test_regression_finds_what_made_the_outcomes():
    rng = np.random.default_rng(2)
    found = rng.normal(size=(40_000, 3)) * [1, 5, 0.2] + [0, 3, 1]
    most = rng.uniform(0.3, 1, 40_000)
    truth = most / (1 + np.exp(-(found @ [1.0, -0.3, 2.0] + 0.5)))
    weights, bias = regress(found, (rng.random(40_000) < truth).astype(float), ceilings=most)
    assert weights == pytest.approx([1.0, -0.3, 2.0], abs=0.2) and bias == pytest.approx(0.5, abs=0.3)


def test_pictures_of_no_cluster_are_told(tmp_path):
    rng = np.random.default_rng(3)
    kinds = np.abs(rng.normal(size=(10, 24))) * 3

    def draw(kind, count):
        values = kinds[kind] + rng.normal(size=(count, 25, 24)) * 0.3
        return pooled(values)

    pictures, checked = (np.concatenate([draw(kind, count) for kind in range(8)]) for count in (40, 10))
    answers = [
        Observed(i, np.array([2.0, 2.0, 1.0, 0, 0, 0, 0, 0]) * (1 if i % 5 else -1), pictures[i], i % 5 > 0, same)
        for i, same in zip(range(320), [1.0, None] * 160, strict=True)
    ]
    fitted = fit_confidence(answers, answers, pictures, checked, {})
    probability = fitted.familiarity.probability
    near, far = (fitted.familiarity.of_pooled(draw(kind, 40)) for kind in (0, 9))
    assert (probability(near) > 0.5).mean() > 0.9 and (probability(far) < 0.5).mean() > 0.9
    with pytest.raises(ValueError, match="answers are right"):
        fit_confidence([a for a in answers if a.right], answers, pictures, checked, {})
    assert fitted.reworded is not None and len(fitted.reworded.weights) == len(EVIDENCE) + 1
    assert fitted.rule.least_limit < 0.1, "an answer is right exactly where it is sure"
    alone = fit_confidence([replace(a, same=None) for a in answers], answers, pictures, checked, {})
    assert alone.reworded is None


def test_an_unlikely_answer_is_less_sure(sure):
    found = evidence((-0.01, -0.01), ImageReliance(3.0, False), ImageReport(None), 1.0)
    doubtful = evidence((-0.7, -0.6), ImageReliance(3.0, False), ImageReport(None), 1.0)
    assert sure.confidence.probability(doubtful, 1.0) < sure.confidence.probability(found, 1.0) - 0.1
    assert sure.confidence.probability(found, 0.0) == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", 'line 1 has no "image", "question" and "answer"'),
        ("[]", 'line 1 has no "image", "question" and "answer"'),
        ('{"image": "a.png", "question": "b"}', 'line 1 has no "image", "question" and "answer"'),
        ('{"image": "a.png", "question": "b", "answer": 5}', "that is no text"),
        ('{"image": "a.png", "question": "b", "answer": "c"}', "has 1 picture;"),
        ('{"image": "a.png", "question": "b\u2028", "answer": "c\u0085"}', "has 1 picture;"),
        ("", "has 0 pictures"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_labelled_cases_that_cannot_be_used(tmp_path, line, why):
    path = tmp_path / "cases.jsonl"
    path.write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(ImcError, match=why):
        read_labelled(path)
    done = run("calibrate", "--cases", str(path), "-o", str(tmp_path / "c.safetensors"))
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"question": "x" * 3000}, "line 5: the question has 3,000 characters"),
        ({"question": "\0"}, "line 5: the question is empty"),
        ({"image": "gone.png"}, r"line 5: .*gone\.png does not exist"),
        ({"image": "a\0b.png"}, 'line 5 has an "image" that is no file name'),
        ({"window": "loud"}, "line 5: .*loud"),
        ({"frame": 0}, 'line 5 has a "frame"'),
    ],
)
def test_a_case_that_cannot_be_asked_is_missed_before_the_others_are(tmp_path, fault, why):
    rows = [{"image": f"{i}.png", "question": "Is it?", "answer": "yes"} for i in range(FEWEST_PICTURES + 1)]
    for row in rows:
        (tmp_path / row["image"]).touch()
    rows[4] |= fault
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ImcError, match=why):
        read_labelled(path)


def test_labelled_cases_in_their_windows_and_under_two_names(tmp_path):
    rows = [{"image": f"{i}.png", "question": " Is  it?", "answer": "yes\ud800"} for i in range(FEWEST_PICTURES)]
    for row in rows:
        (tmp_path / row["image"]).touch()
    rows[1] |= {"window": "lung", "frame": 2}
    rows.append({**rows[0], "image": "./0.png"})
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third, *_ = read_labelled(path, "brain", 3)
    assert first.questions == (("Is it?", "yes?"),) * 2 and (first.window, first.frame) == ("brain", 3)
    assert (second.window, second.frame) == ("lung", 2) and third.window == "brain"
    path.write_text("".join(json.dumps({**row, "image": "0.png"}) + "\n" for row in rows))
    with pytest.raises(ImcError, match="has 1 picture;"):
        read_labelled(path)


def test_a_calibration_shows_pictures_as_its_prototypes_were_built(sure, default_model):
    """Grey DICOM pictures shown otherwise are refused, as they are where they are asked about."""
    data = pytest.importorskip("pydicom.data", reason="DICOM needs imc-lite[dicom]")
    scan = Path(data.get_testdata_file("CT_small.dcm"))
    windowed = replace(sure.prototypes, facts={**sure.prototypes.facts, "window": "40,80"})
    case = Labelled(scan, (("What is this?", "ct"),))
    with pytest.raises(ImcError, match="built with --window 40,80"):
        observe(default_model, windowed, case, 0, 0, check_wordings=False)
    shown = replace(case, window="40,80")
    assert observe(default_model, windowed, shown, 0, 0, check_wordings=False).answers


@pytest.mark.slow
def test_calibrating_a_model_of_ones_own(default_bundle, tmp_path):
    """From the shell, over packaged pictures, of which many get the wrong label."""
    from importlib import resources

    folder = resources.files("imc_lite.assets") / "bench"
    images = sorted(str(p) for p in folder.glob("*/*.jpg"))[::6][:FEWEST_PICTURES]
    rows = [
        {"image": image, "question": question, "answer": "x-ray" if "cxr" in image else "ct"}
        for image in images
        for question in (MODALITY, STRANGER)
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # A bundle whose own confidence cannot be read: what is said about that has to help.
    bundle, out, image = tmp_path / "bundle", tmp_path / "c.safetensors", images[0]
    shutil.copytree(default_bundle, bundle)
    (bundle / "confidence.safetensors").write_bytes(b"of another version")
    manifest = json.loads((default_bundle / "manifest.json").read_text())
    data = (bundle / "confidence.safetensors").read_bytes()
    manifest["files"]["confidence.safetensors"] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    unread = run("answer", "-m", str(bundle), image, MODALITY)
    assert unread.returncode == 2 and b"holds no readable confidence; fit it: imc-lite calibrate" in unread.stderr
    elsewhere = run("answer", "-m", str(bundle), image, MODALITY, "--upstream", "http://127.0.0.1:9/v1")
    assert b"confidence" not in elsewhere.stderr, "an upstream's answers are not read by it"
    command = ("calibrate", "-m", str(bundle), "--threads", "2", "--cases", str(tmp_path / "cases.jsonl"))
    done = run(*command, "-o", str(out))
    assert done.returncode == 0, done.stderr
    ask = ("answer", "-m", str(bundle), "--confidence", str(out), image, MODALITY)
    row = json.loads(run(*ask, "--json").stdout)
    assert 0 <= row["confidence"] <= 1 and row["selective"]["answered"] and row["rewording"] is None
    refused = run(*ask, "--check-wording")
    assert refused.returncode == 2 and b"calibrate --check-wording" in refused.stderr


def test_reasons_name_answers_that_do_not_rest_on_the_picture(default_model):
    model_answer = default_model.generate(MODALITY, np.zeros((0, 1280), np.float32))
    familiarity = Familiarity(np.zeros((1, 4)), np.zeros((4, 1)), 1.0, 9.0, 0.0)
    some = Confidence(familiarity, Rule(np.zeros(8), 0.0, 0.05), None, {})
    generation = Generation(model_answer.text, model_answer.logprobs)
    trust = assess(default_model, some, MODALITY, generation, np.ones((3, 2), np.float32), ImageReport(None))
    assert trust.selective.reasons == (BLIND,) and trust.image_reliance.same_without
    assert abs(trust.image_reliance.nats) < 0.02 and trust.confidence == pytest.approx(0.5, abs=1e-3)


def test_what_comes_without_a_picture_is_asked_once(default_bundle, monkeypatch):
    model = IMC.from_pretrained(default_bundle, sms=False).model
    passes = []
    run_pass = model.decoder.run
    monkeypatch.setattr(model.decoder, "run", lambda *args: passes.append(1) or run_pass(*args))
    first = model.text_only(MODALITY, "x-ray")
    assert len(passes) == 1 and model.text_only(MODALITY, "x-ray") is first and len(passes) == 1
    other = model.text_only(MODALITY, "mri")
    assert len(passes) == 2 and other.logprobs.sum() != first.logprobs.sum()
    kept = model.__dict__["_text_only"]
    for i in range(MOST):
        kept.get((MODALITY, str(i)), lambda: first)
    model.text_only(MODALITY, "ct")
    assert len(kept) == MOST, "the oldest go"


WORDINGS = {
    "Is there a fracture?": ("Can you see a fracture?", "Looking at this picture, is there a fracture?"),
    "Is this image normal?": ("Is this picture normal?", "Looking at this picture, is this image normal?"),
    "Is there no effusion?": (
        "Looking at this picture, is there no effusion?",
        "Please tell me: is there no effusion?",
    ),
    "CT or MRI?": ("Looking at this picture, CT or MRI?", "Please tell me: CT or MRI?"),
    "Images?": ("Pictures?", "Looking at this picture, Images?"),
    "Wo liegt der Tumor in der Lunge?": (),
}


@pytest.mark.parametrize("question", WORDINGS)
def test_other_wordings(question):
    assert reword(question) == WORDINGS[question]
    for other in reword(question):
        assert guard.same_words(question, other)


def test_a_wording_that_says_something_else_is_not_let_pass():
    asked = "Is the left lung larger than 5 cm?"
    assert guard.same_words(asked, "Please: is the left lung larger than 5 cm?")
    for other in (
        "right lung larger than 5",
        "left lung smaller than 5",
        "left heart larger than 5",
        "5 larger left lung",
    ):
        assert not guard.same_words(asked, f"Is the {other} cm?")
    assert not guard.same_words(asked, "Is the left lung larger than 6 cm?")
    assert not guard.same_words(asked, "Is the left lung not larger than 5 cm?")


def test_other_wordings_are_what_asking_them_gives(sure, chest):
    tokens = sure.see(load_image(chest)).tokens
    result = sure.answer(chest, MODALITY, check_wording=True)
    assert result.rewording.asked == reword(MODALITY) and result.answer == sure.answer(chest, MODALITY).answer
    said = tuple(sure.model.generate(other, tokens).text == result.answer for other in result.rewording.asked)
    assert result.rewording.same == said and result.rewording.share == sum(said) / 2
    row = result.to_dict()
    assert (
        row["rewording"] == {"asked": list(reword(MODALITY)), "same": list(said)} and json.loads(json.dumps(row)) == row
    )
    assert sure.answer(chest, MODALITY).rewording is None
    cut = Generation("x", (-0.1,))
    assert check_wording(sure.model, MODALITY, cut, tokens) is None, "it has no end"


def test_an_answer_that_hangs_on_the_wording_is_less_sure(sure):
    logprobs, rests, report = (-0.3, -0.2), ImageReliance(3.0, False), ImageReport(None)
    asked = ("a", "b")
    steady, wavering = (
        sure.confidence.probability(evidence(logprobs, rests, report, 1.0, Rewording(asked, same)), 1.0)
        for same in ((True, True), (False, False))
    )
    assert wavering < steady - 0.05


def test_a_wavering_answer_is_named(default_model, chest):
    tokens = default_model.perceive(load_image(chest)).tokens
    odd = Generation("banana", (-0.1, -0.1, -0.1, -0.1, -0.1))
    familiarity = Familiarity(np.zeros((1, 2560)), np.zeros((2560, 1)), 1.0, 9.0, 0.0)
    some = Confidence(familiarity, Rule(np.zeros(8), 0.0, 0.05), Rule(np.zeros(9), 0.0, 0.6), {})
    trust = assess(default_model, some, MODALITY, odd, tokens, ImageReport(None), wording=True)
    assert WAVERING in trust.selective.reasons and trust.rewording.same == (False, False)
    plain = assess(default_model, some, MODALITY, odd, tokens, ImageReport(None), max_risk=0.55)
    again = assess(default_model, some, MODALITY, odd, tokens, ImageReport(None), max_risk=0.55, wording=True)
    assert plain.given and not again.given, "each rule has its own promise"
    assert "no limit below 0.6 can be promised for this model" in again.selective.reasons


def test_a_limit_that_cannot_be_promised_is_not_answered_under(sure, chest):
    least = sure.confidence.rule.least_limit
    assert 0 < least <= 0.1
    below = sure.answer(chest, MODALITY, max_risk=least - 0.005)
    assert (
        below.answer is None
        and below.selective.reasons[-1] == f"no limit below {least:g} can be promised for this model"
    )


def test_other_wordings_from_the_shell_and_in_a_batch(default_bundle, chest, tmp_path):
    ask = ("answer", "-m", str(default_bundle))
    row = json.loads(run(*ask, str(chest), MODALITY, "--check-wording", "--json").stdout)
    assert row["rewording"]["asked"] == list(reword(MODALITY)) and row["answer"] == "x-ray"
    (tmp_path / "c.jsonl").write_text(json.dumps({"image": str(chest), "questions": [MODALITY, "Wo liegt der Tumor?"]}))
    done = run(*ask, "--batch", str(tmp_path / "c.jsonl"), "-o", str(tmp_path / "o.jsonl"), "--check-wording")
    assert done.returncode == 0, done.stderr
    batch = json.loads((tmp_path / "o.jsonl").read_text())
    assert "check-wording" in batch["run"]["options"].split()
    assert batch["answers"][0]["rewording"] == row["rewording"] and batch["answers"][1]["rewording"] is None
    refused = run("answer", str(chest), MODALITY, "--check-wording", "--upstream", "http://127.0.0.1:9/v1")
    assert refused.returncode == 2 and b"--check-wording" in refused.stderr


def test_other_wordings_need_a_confidence_that_counts_them(sure, chest):
    bare = IMC(sure.model, sure.prototypes, sms=False, confidence=replace(sure.confidence, reworded=None))
    with pytest.raises(ImcError, match="calibrate --check-wording"):
        bare.answer(chest, MODALITY, check_wording=True)
    without = IMC(sure.model, sure.prototypes, sms=False)
    assert without.answer(chest, MODALITY, check_wording=True).rewording is not None


def test_evidence_is_rare_where_there_is_nothing_to_find():
    """Values whose mean is the limit are taken for lower ones in at most a tenth of the draws."""
    rng = np.random.default_rng(0)
    for mean in (0.05, 0.3):
        draws = rng.beta(mean * 4, (1 - mean) * 4, size=(400, 150))
        found = np.mean([evidence_below(values, mean) >= 1 / DOUBT for values in draws])
        assert found <= DOUBT + 0.03
        assert np.mean([evidence_below(values, 2 * mean) >= 1 / DOUBT for values in draws[:50]]) > 0.9
    # A single value that costs all never ruins, and never proves.
    assert evidence_below(np.ones(5), 0.1) == 1.0


def test_limits_that_are_promised_hold():
    """Drawn again and again, more are wrong than promised in at most a tenth of the draws; sound answers earn some."""
    rng = np.random.default_rng(1)

    def draw(count, exaggerated):
        logits = 1.5 + rng.normal(size=(count, 1)) + 1.5 * rng.normal(size=(count, 12))
        right = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
        sure = 1 / (1 + np.exp(-logits - exaggerated))
        return sure.ravel(), right.ravel(), np.repeat(np.arange(count), 12)

    for exaggerated in (0.0, 2.0):
        sure, right, _ = draw(20_000, exaggerated)
        actual = [
            float((1 - right)[1 - sure <= step / 100].mean()) if (1 - sure <= step / 100).any() else 0
            for step in range(100)
        ]
        found = [least_limit(*draw(100, exaggerated)) for _ in range(20)]
        broken = [any(actual[step] > step / 100 for step in range(round(100 * least), 100)) for least in found]
        assert np.mean(broken) <= DOUBT
        assert max(found) < (0.2 if not exaggerated else 0.5)
    assert least_limit(np.ones(40), np.zeros(40), np.arange(40)) == 1.0, "always wrong"
