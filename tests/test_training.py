"""Training side by side computes what it computes one by one; views take their labels with them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from imc_lite.models.default.preprocess import preprocess

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import asking
import batches
import data
import elsewhere
import model as recipe
import schedule
import set_apart
import tasks
import train
import views
import wordings
from data import Pack
from sets import Row

from imc_lite.bench import findings

TINY = LlamaConfig(
    vocab_size=300,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    attn_implementation="sdpa",
)


class Bytes:
    """A tokenizer of single bytes, with the prompt's fixed parts."""

    prefix, turn, end = [1, 2, 3], [4, 5], [6]

    def ids(self, text: str) -> list[int]:
        return [b + 10 for b in text.encode()]


@pytest.fixture(scope="module")
def trainee():
    torch.manual_seed(0)
    encoder = recipe.Encoder()
    for module in encoder.modules():
        if isinstance(module, recipe.ConvAffine):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    lm = LlamaForCausalLM(TINY).requires_grad_(False)
    made = train.Trainee(encoder, lm, rank=4)
    for name, parameter in made.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.05)
    return made.eval()


def packs() -> list[Pack]:
    seen, text = views.plain_view(0), None
    return [
        Pack(seen, (("Is it?", "yes"), ("What is shown here?", "a thing"))),
        Pack(text, (("Repair this: wht", "what"),)),
        Pack(seen, (("Where?", "left"), ("How many, about?", "up to 15"), ("Is there any?", "no"))),
    ]


def test_packs_side_by_side_lose_what_they_lose_alone(trainee):
    whole = batches.collate(packs(), Bytes())
    pixels = torch.randn(2, 3, 320, 320)
    together, right = trainee(whole, pixels, 3)
    alone, hits, at = [], [], 0
    for pack in packs():
        shown = None if pack.view is None else pixels[at : at + 1]
        at += pack.view is not None
        for pair in pack.pairs:  # one question at a time: no question may see another
            loss, hit = trainee(batches.collate([Pack(pack.view, (pair,))], Bytes()), shown, 3)
            alone.append(loss / len(pack.pairs) / len(packs()))
            hits += hit.tolist()
    torch.testing.assert_close(together, sum(alone), rtol=1e-4, atol=1e-5)
    assert right.tolist() == hits


def test_a_step_in_parts_loses_what_it_loses_whole(trainee):
    whole, parts = batches.collate(packs(), Bytes()), batches.in_parts(packs(), Bytes(), 2)
    assert [len(part.ids) for part in parts] == [2, 1]
    assert (parts[0].owner != batches.PAD).sum(1).max() < (parts[1].owner != batches.PAD).sum()
    pixels = torch.randn(1, 3, 320, 320)  # the same for both pictures: parts come in another order
    losses = [trainee(batch, pixels.expand(len(batch.views), -1, -1, -1), 3)[0] for batch in (whole, *parts)]
    torch.testing.assert_close(losses[0], losses[1] + losses[2], rtol=1e-4, atol=1e-5)


def test_an_adapter_that_was_written_is_gone_on_from(trainee, tmp_path):
    schedule.write_atomically(tmp_path / "a.safetensors", recipe.adapter_state(trainee.projector, trainee.lm))
    fresh = train.Trainee(recipe.Encoder(), LlamaForCausalLM(TINY), rank=4)
    recipe.load_adapter(fresh.projector, fresh.lm, tmp_path / "a.safetensors")
    wanted = {k: v for k, v in trainee.named_parameters() if k.startswith("projector") or k.endswith((".a", ".b"))}
    found = dict(fresh.named_parameters())
    assert len(wanted) > 20
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6)


def test_what_is_set_apart_and_the_text_adapter_are_the_adapter():
    rng = np.random.default_rng(0)
    shapes = {f"layers.{i}.{s}": (24, 40) for i in range(2) for s in recipe.LORA_TARGETS}

    def adapter(name: str) -> dict[str, np.ndarray]:
        sides = [(f"{name}.{k}.a", (4, into)) for k, (_, into) in shapes.items()]
        sides += [(f"{name}.{k}.b", (out, 4)) for k, (out, _) in shapes.items()]
        return {k: rng.normal(size=shape).astype(np.float16) for k, shape in sides}

    text, trained = adapter("text"), adapter("lora")
    whole, half = set_apart.beyond(trained, text, 8), set_apart.beyond(trained, text, 4)
    assert {k: v for k, v in whole.items() if k.startswith("text.")}.keys() == text.keys()
    for linear in shapes:
        wanted, words, exact, near = (
            s[f"{n}.{linear}.b"].astype(np.float64) @ s[f"{n}.{linear}.a"].astype(np.float64)
            for n, s in (("lora", trained), ("text", text), ("picture", whole), ("picture", half))
        )
        np.testing.assert_allclose(words + exact, wanted, atol=0.05)
        lost = np.linalg.svd(wanted - words, compute_uv=False)[4:]
        assert np.linalg.norm(words + near - wanted) == pytest.approx(np.linalg.norm(lost), rel=0.01)


def test_half_precision_learns_too(trainee):
    trainee.lm.to(torch.bfloat16)
    loss, _ = trainee(batches.collate(packs(), Bytes()), torch.randn(2, 3, 320, 320), 3)
    loss.backward()
    learnt = [p for group in trainee.groups() for p in group["params"]]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learnt)
    assert any(p.grad.abs().sum() > 0 for p in trainee.projector.parameters())


def test_the_pace_ends_within_its_deadline(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: clock[0])
    pace = schedule.Pace(1000, warmup=10, deadline=100, reserve=10)
    done = 0
    while not pace.over(done):
        clock[0] += 0.5
        done += 1
        if done % 10 == 0:
            pace.fit(done)
    assert 80 < clock[0] <= 90 and done == pace.steps and pace.factor(done) == pytest.approx(0.01, abs=0.01)


def test_an_untouched_view_is_what_the_runtime_sees():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    pixels = (views.on_square(image, 320).transpose(2, 0, 1).astype(np.float32) - 127) / 128
    np.testing.assert_array_equal(pixels, preprocess(image))


@pytest.mark.parametrize("source", ["foot_photo", "bccd"])
def test_places_move_with_the_view(source):
    image = np.zeros((240, 320, 3), np.uint8)
    image[60:72, 200:216] = 255  # a bright spot, centred at (0.65, 0.275)
    made = views.Pictures.__new__(views.Pictures)
    made.device = torch.device("cpu")
    made.squares = torch.from_numpy(views.on_square(image, views.STORED))[None]
    made.seen = torch.from_numpy(views.on_square(image, views.SIDE))[None]
    rng = np.random.default_rng(1)
    checked = 0
    for _ in range(20):
        view = views.draw_view(0, source, rng)
        x, y = views.to_view(view, (320, 240), 0.65, 0.275)
        if 0.05 < x < 0.95 and 0.05 < y < 0.95:
            light = made.draw([view])[0].mean(0).numpy()
            light -= np.median(light)
            at = np.argwhere(light > light.max() / 2).mean(0)[::-1] / views.SIDE
            np.testing.assert_allclose(at, (x, y), atol=0.02)
            checked += 1
    assert checked > 10


def test_sizes_of_wounds_grow_with_the_view():
    labels = {"label": "ulcer", "x": 0.5, "y": 0.5, "area": 0.01}
    row = Row(Path("x"), "foot_photo", (100, 100), labels, (), "g", "train")
    twice = views.View(0, False, np.float32([[0.5, 0, 0], [0, 0.5, 0]]), np.ones(3, np.float32), 1, 1, 0)
    assert views.view_labels(twice, row)["area"] == pytest.approx(0.04)


def test_an_order_is_seeded_and_keeps_the_shares():
    strata = ["a"] * 10 + ["b"] * 5 + [""] * 3
    first, again = (schedule.order(strata, {"a": 0.5, "b": 0.3, "text": 0.2}, 2000, 7) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.max() < 15 and (first == schedule.TEXT).mean() == pytest.approx(0.2, abs=0.04)
    assert max(np.bincount(first[(first >= 0) & (first < 10)])) - 100 < 10


def wordings_of(topics) -> set[str]:
    return {w for t in topics.values() for some in (t.open, *t.closed.values()) for w in some}


def test_the_benchmark_asks_in_other_words_than_training():
    asked = wordings_of(findings.TOPICS) | {w for some in findings.FOREIGN.values() for w in some}
    taught = wordings_of(wordings.TOPICS) | {w for some in wordings.FOREIGN.values() for w in some}
    rng = np.random.default_rng(0)
    taught |= {elsewhere.ask_elsewhere("bccd", "blood", {}, rng)[0] for _ in range(20000)}
    assert asked and not {w.lower() for w in asked} & {w.lower() for w in taught}


LABELS = {
    "vqa_rad": {"organ": "abd", "modality": "CT"},
    "hannover_cxr": {},
    "bccd": {},
    "child_cxr": {"label": "viral"},
    "nih_cxr": {"label": "pneumonia"},
    "brain_mri": {"label": "pituitary"},
    "dermoscopy": {"label": "nevus"},
    "foot_photo": {"label": "ulcer", "x": 0.2, "y": 0.7, "area": 0.05},
    "nuclei": {"label": "stained", "count": 25},
}


@pytest.mark.parametrize("source", LABELS)
def test_every_fact_can_be_asked(source):
    rng = np.random.default_rng(0)
    for topic, value in findings.facts(source, LABELS[source]).items():
        assert value in wordings.TOPICS[topic].closed
        assert topic == "organ" or topic in findings.TOPICS
    pairs = asking.finding_questions(source, LABELS[source], rng, 300)
    answers = [a for _, a in pairs if a in ("yes", "no")]
    assert answers.count("yes") / len(answers) == pytest.approx(0.5, abs=0.13)


def test_what_is_asked_about_another_part_of_the_body():
    asked = ["Is the heart enlarged?", "Is the liver below the lungs?", "What organ is this lung?", "Is there a mass?"]
    own = elsewhere.clinicians(asked)
    assert own == {"chest": ("Is the heart enlarged?",), "head": (), "abdomen": ()}
    rng = np.random.default_rng(0)
    drawn = [elsewhere.ask_elsewhere("brain_mri", "head", own, rng) for _ in range(3000)]
    assert {answer for _, answer in drawn} == {findings.NOT_SHOWN}
    texts = {question for question, _ in drawn}
    assert len(texts) > 1000 and "Is the heart enlarged?" in texts
    assert not any("brain" in t or "stroke" in t or "{" in t for t in texts)
    both = {elsewhere.ask_elsewhere("vqa_rad", "chest", own, rng)[0] for _ in range(3000)}
    assert not any("liver" in t or "lung" in t for t in both)


def test_repair_is_taught_with_rare_words_too():
    terms = data.medical_terms()
    assert len(terms) > 2000 and all(" " not in t for t in terms)
    asked = elsewhere.about_terms(terms, np.random.default_rng(0), 500)
    assert len(set(asked)) > 490 and not any("{" in q for q in asked)
    maker = data.PackMaker([], ["Is the lung normal?"], np.array([schedule.TEXT]), 0, 1.0)
    assert len(maker.text) == 3 and len(maker.make(0).pairs) == 5


def test_ranges_of_nuclei():
    found = [findings.facts("nuclei", {"label": "stained", "count": n})["nuclei"] for n in (15, 16, 25, 26, 50, 51)]
    assert found == [findings.RANGES[i] for i in (0, 1, 1, 2, 2, 3)]


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path):
    def steps(layer, average, optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            layer(torch.full((2, 3), float(step))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            average.add_(layer.weight.detach())

    def made():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.zeros(2, 3), torch.optim.AdamW(layer.parameters(), lr=0.1)

    whole = made()
    steps(*whole, 0, 8)
    first, path = made(), tmp_path / "checkpoint.safetensors"
    steps(*first, 0, 5)
    schedule.checkpoint(path, 5, [{"step": 5}], list(first[0].parameters()), [first[1]], first[2])
    second = made()
    done, log = schedule.resume(path, list(second[0].parameters()), [second[1]], second[2])
    assert (done, log) == (5, [{"step": 5}])
    steps(*second, done, 8)
    torch.testing.assert_close(second[0].weight, whole[0].weight, rtol=0, atol=0)
    torch.testing.assert_close(second[1], whole[1], rtol=0, atol=0)


def test_what_the_encoder_is_taught():
    labels = {"label": "ulcer", "x": 0.2, "y": 0.7, "area": 0.05}
    wanted = [tasks.targets("foot_photo", labels), tasks.targets("child_cxr", {"label": "viral"})]
    classes, amounts = (torch.from_numpy(a) for a in tasks.as_arrays(wanted))
    told = {t: int(c) for t, c in zip(tasks.CLASSES, classes[1], strict=True) if c >= 0}
    assert told == {"kind": 2, "organ": 1, "child": 2} and amounts[1].isnan().all()
    heads = tasks.Heads({task: [1.0] * len(values) for task, values in tasks.CLASSES.items()})
    tokens = torch.rand(2, 25, 1280, requires_grad=True)
    loss, parts = heads.loss(heads(tokens), classes, amounts)
    loss.backward()
    assert torch.isfinite(tokens.grad).all() and tokens.grad[1].abs().sum() > 0
    assert parts[list(tasks.TASKS).index("child"), 1] == 1 and parts[list(tasks.TASKS).index("nih"), 1] == 0
