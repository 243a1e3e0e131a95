"""How sure an answer is: what it is made of, the file it is kept in, and answers that are not given."""

import json
import math

import numpy as np
import pytest
from test_cli import run

from imc_lite import IMC, ImcError
from imc_lite.images.load import load_image
from imc_lite.models.base import Generation
from imc_lite.results import ImageReliance, ImageReport, Noise
from imc_lite.trust.assess import BLIND, STRANGE
from imc_lite.trust.confidence import EVIDENCE, FAMILIAR, Confidence, ceiling, evidence, load_confidence
from imc_lite.trust.familiarity import Familiarity, cluster, fit_clusters, pooled
from imc_lite.trust.fit import Observed, fit_confidence, regress
from imc_lite.trust.observe import read_labelled

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
    for damage in (b"", b"{}", (tmp_path / "c.safetensors").read_bytes()[:4000], b"\xff" * 100):
        (tmp_path / "d.safetensors").write_bytes(damage)
        with pytest.raises(ImcError, match="holds no readable confidence"):
            load_confidence(tmp_path / "d.safetensors", sure.model.identity, sure.model.version)


def test_evidence():
    noisy = ImageReport(None, Noise("gaussian", 5, 0.9), gradable=False)
    found = evidence((math.log(0.5), math.log(0.125)), ImageReliance(3.0, False), noisy, math.e)
    assert found == pytest.approx([math.log(1 / 3), math.log(1 / 15), 3, 0, 1, 0, 1, 1])
    unknown = ImageReport(None, Noise("unknown", 0, 0.9))
    blind = evidence((0.0,), ImageReliance(-9.0, True), unknown, 1.0)
    assert blind[2:].tolist() == [-5, 1, 0, 1, 0, 0] and np.isfinite(blind).all() and len(blind) == len(EVIDENCE)
    assert evidence((-0.1,), None, ImageReport(None), 1.0)[2:].tolist() == [0, 0, 0, 0, 0, 0]


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
        Observed(np.array([2.0, 2.0, 1.0, 0, 0, 0, 0, 0]) * (1 if i % 5 else -1), pictures[i], i % 5 > 0)
        for i in range(320)
    ]
    fitted = fit_confidence(answers, pictures, checked, {})
    probability = fitted.familiarity.probability
    near, far = (fitted.familiarity.of_pooled(draw(kind, 40)) for kind in (0, 9))
    assert (probability(near) > 0.5).mean() > 0.9 and (probability(far) < 0.5).mean() > 0.9
    with pytest.raises(ValueError, match="answers are right"):
        fit_confidence([a for a in answers if a.right], pictures, checked, {})


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
        ('{"image": "a.png", "question": "b", "answer": "c"}', "has 1 pictures"),
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


@pytest.mark.slow
def test_calibrating_a_model_of_ones_own(default_bundle, tmp_path):
    """From the shell, over packaged pictures, of which many get the wrong label."""
    from importlib import resources

    folder = resources.files("imc_lite.assets") / "bench"
    images = sorted(str(p) for p in folder.glob("*/*.jpg"))[::6][:40]
    rows = [
        {"image": image, "question": question, "answer": "x-ray" if "cxr" in image else "ct"}
        for image in images
        for question in (MODALITY, STRANGER)
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "c.safetensors"
    done = run("calibrate", "-m", str(default_bundle), "--cases", str(tmp_path / "cases.jsonl"), "-o", str(out))
    assert done.returncode == 0, done.stderr
    image = images[0]
    said = run("answer", "-m", str(default_bundle), "--confidence", str(out), image, MODALITY, "--json")
    row = json.loads(said.stdout)
    assert 0 <= row["confidence"] <= 1 and row["selective"]["answered"]


def test_reasons_name_answers_that_do_not_rest_on_the_picture(default_model):
    from imc_lite.trust.assess import assess

    model_answer = default_model.generate(MODALITY, np.zeros((0, 1280), np.float32))
    some = Confidence(Familiarity(np.zeros((1, 4)), np.zeros((4, 1)), 1.0, 9.0, 0.0), np.zeros(8), 0.0, {})
    generation = Generation(model_answer.text, model_answer.logprobs)
    trust = assess(default_model, some, MODALITY, generation, np.ones((3, 2), np.float32), ImageReport(None))
    assert trust.selective.reasons == (BLIND,) and trust.image_reliance.same_without
    assert abs(trust.image_reliance.nats) < 0.02 and trust.confidence == pytest.approx(0.5, abs=1e-3)
