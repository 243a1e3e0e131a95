"""Several questions about one picture: it is encoded once, and every answer is the one that the question gets alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from imc_lite import IMC, Deadline, DeadlineError, ImcError, load_image
from imc_lite.batch.rows import Plan, case_from_json, case_to_json, read_case, run_of
from imc_lite.batch.run import in_process, run_batch
from imc_lite.cli.main import cli
from imc_lite.models.remembered import Remembered
from imc_lite.noise.image import apply_to_image
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.pdc.recent import MOST_BYTES, MOST_PICTURES, RecentPictures
from imc_lite.pdc.treat import Treated
from imc_lite.results import ImageReport

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
QUESTIONS = ("What modality is this?", "Is teh heart enlargd?", "What body part is shown?")
ENDLESS = "\u2603" * 2000  # more tokens than the model holds


def new(model, sms=True) -> IMC:
    return IMC(model, load_prototypes(model.prototypes_file(), model.identity), sms=sms)


def timeless(result):
    return replace(result, timings_ms={})


def test_a_picture_is_encoded_once_and_its_answers_are_the_same(default_model, chest):
    noisy = apply_to_image(load_image(chest), "impulse", 4, 0)
    imc = new(default_model, sms=False)
    first, *others = [imc.answer(noisy, question) for question in QUESTIONS[::2]]
    assert first.image.restored and first.timings_ms["perceive"] > 0 and first.timings_ms["calibrate"] > 0
    assert [(r.timings_ms["perceive"], r.timings_ms["calibrate"]) for r in others] == [(0, 0)]
    assert timeless(others[0]) == timeless(new(default_model, sms=False).answer(noisy, QUESTIONS[2]))
    changed = noisy.copy()
    changed[0, 0, 0] ^= 1
    for other in (changed, noisy.reshape(noisy.shape[1], noisy.shape[0], 3)):
        assert imc.answer(other, QUESTIONS[0], max_new_tokens=1).timings_ms["perceive"] > 0


def test_a_question_is_repaired_once(default_model, monkeypatch):
    imc, passes = new(default_model), []
    run = default_model.decoder.run
    monkeypatch.setattr(default_model.decoder, "run", lambda *args: passes.append(1) or run(*args))
    with pytest.raises(DeadlineError):
        imc.repair(QUESTIONS[1], deadline=Deadline(seconds=-1))
    first = imc.repair(QUESTIONS[1])
    assert first.repaired == "Is the heart enlarged?" and passes
    asked = len(passes)
    assert imc.repair(QUESTIONS[1]) is first and len(passes) == asked
    assert imc.repair(QUESTIONS[1].lower()) is not first and len(passes) > asked, "it is known letter by letter"
    assert new(default_model).repair(QUESTIONS[1]) == first


def test_the_last_outcomes_are_remembered_in_bounds():
    kept, found = Remembered(3), []
    for key in (0, 1, 2, 0, 3, 0, 1):
        assert kept.get(key, lambda key=key: found.append(key) or key) == key
    assert found == [0, 1, 2, 3, 1] and len(kept) == 3, "the least recently used one goes"


def test_the_last_pictures_are_kept_in_bounds():
    seen: list[int] = []

    def ask(recent: RecentPictures, value: int, tokens: np.ndarray) -> Treated:
        def treat(pixels: np.ndarray) -> Treated:
            seen.append(value)
            return Treated(tokens, ImageReport(path=None), pixels, 1.0, 1.0)

        return recent.get(np.full((1, 1, 3), value, np.uint8), treat)

    recent, small = RecentPictures(), np.zeros((1, 1), np.float32)
    for value in (*range(MOST_PICTURES), 0, MOST_PICTURES, 0, 1):
        ask(recent, value, small)
    assert seen == [*range(MOST_PICTURES), MOST_PICTURES, 1], "the least recently used one goes"
    assert ask(recent, 1, small).restored is None, "no picture is kept"
    third = np.zeros(MOST_BYTES // 12, np.float32)  # of the room, which holds three such
    seen.clear()
    for value in (101, 102, 103, 101, 104, 101, 102):
        ask(recent, value, third)
    assert seen == [101, 102, 103, 104, 102]
    seen.clear()
    for value in (105, 105, 102):
        ask(recent, value, np.broadcast_to(np.float32(0), MOST_BYTES) if value == 105 else third)
    assert seen == [105, 105], "what is larger than all the room pushes nothing out"


def test_what_prompts_begin_with_is_read_once(default_model, monkeypatch):
    tokens = [default_model.perceive(load_image(path)).tokens for path in IMAGES[:3]]
    jobs = [(i, question) for i in range(3) for question in QUESTIONS[:2]]
    decoder, read = default_model.decoder, []
    run = decoder.run
    monkeypatch.setattr(decoder, "run", lambda embeds, *more: read.append(len(embeds)) or run(embeds, *more))

    def ask(job):
        return default_model.generate(job[1], tokens[job[0]], 1, of_many=True)

    first = [ask(job) for job in jobs]
    beginning = len(default_model.config["prompt"]["prefix"]) + len(tokens[0])
    assert read.count(beginning) == 3, "once a picture"
    assert [ask(job) for job in jobs[::-1]] == first[::-1], "what was asked before changes nothing"
    assert default_model.generate(jobs[0][1], tokens[0], 1).text == first[0].text


def test_a_picture_that_questions_were_judged_about_is_not_read_again(default_model, monkeypatch):
    tokens = default_model.perceive(load_image(IMAGES[0])).tokens + np.float32(1e-3)
    decoder, read = default_model.decoder, []
    run = decoder.run
    monkeypatch.setattr(decoder, "run", lambda embeds, *more: read.append(len(embeds)) or run(embeds, *more))
    pairs = [(QUESTIONS[0], "x-ray"), (QUESTIONS[1], "chest")]
    together = default_model.agrees(pairs, tokens)
    beginning = len(default_model.config["prompt"]["prefix"]) + len(tokens)
    assert read[0] == beginning and len(read) == 2
    assert default_model.agrees(pairs, tokens) == together and len(read) == 3


def test_a_beginning_is_kept_for_words_alone_and_for_pictures(default_model):
    """The same embeddings, read with the adapter that has learnt pictures and without it."""
    embeds, decoder = (
        default_model.prompt_embeds("Is this a beginning that nobody else asks?", None),
        default_model.decoder,
    )
    found = {}
    for keep in (0, 7):
        for pictured in (True, False):
            decoder.begin(len(embeds), pictured)
            found[keep, pictured] = decoder.extend(embeds, keep=keep)[0]
    for pictured in (True, False):
        # Processors may round otherwise where fewer tokens are read together.
        np.testing.assert_allclose(found[7, pictured], found[0, pictured], atol=1.0)
    assert np.abs(found[7, True] - found[7, False]).max() > 1.5


ROWS = [
    {"id": "many", "image": "chest.jpg", "questions": [*QUESTIONS[:2], " ", 7]},
    {"id": "one", "image": "chest.jpg", "question": QUESTIONS[0]},
    {"image": "gone.jpg", "questions": ["Is it?"]},
    {"image": "chest.jpg", "questions": ["Is it?"], "question": "Is it?"},
    {"image": "chest.jpg", "questions": []},
    {"image": "chest.jpg", "questions": "Is it?"},
    {"image": "chest.jpg", "questions": ["Is it?"] * 101},
    {"image": "chest.jpg", "questions": [" "]},
]


@pytest.fixture(scope="module")
def batch(default_model, chest, tmp_path_factory):
    """A folder with those rows, and what they are answered by."""
    folder = tmp_path_factory.mktemp("many")
    shutil.copy(chest, folder / "chest.jpg")
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    summary = answer(default_model, folder, "cases.jsonl", "out.jsonl")
    assert (summary.cases, summary.answered, summary.failed) == (8, 8, 7)
    return folder, (folder / "out.jsonl").read_text()


def answer(model, folder, cases, out, timings=True):
    plan = Plan(folder, timings=timings)
    return run_batch(in_process(lambda: new(model)), folder / cases, folder / out, plan, dict)


def test_a_row_of_several_questions(default_model, batch, documented_fields):
    folder, text = batch
    many, one, *failed = [json.loads(line) for line in text.splitlines()]
    imc = new(default_model)
    for entry, question in zip(many["answers"], QUESTIONS[:2], strict=False):
        alone = imc.answer(folder / "chest.jpg", question, of_many=True).to_dict()
        assert {k: entry[k] for k in ("answer", "confidence", "question")} == {
            k: alone[k] for k in ("answer", "confidence", "question")
        }
        assert {k: many[k] for k in ("image", "model", "versions")} == {
            k: alone[k] for k in ("image", "model", "versions")
        }
    assert many["answers"][1]["timings_ms"]["perceive"] == 0
    assert [set(entry) for entry in many["answers"][2:]] == [{"error"}] * 2
    assert "empty" in many["answers"][2]["error"] and "no text" in many["answers"][3]["error"]
    assert many["image"] == one["image"] and many["answers"][0]["answer"] == one["answer"] and "answers" not in one
    assert ["answers" in row for row in failed] == [False] * 5 + [True]
    for row, why in zip(failed, ("gone.jpg", "both", "list of 1 to 100", "list of 1", "list of 1"), strict=False):
        assert why in row["error"]
    assert {"error"} == set(failed[-1]["answers"][0]) and "image" not in failed[-1]
    fields = {"answers", "timings_ms.load", "timings_ms.total"} | {f"answers[].{k}" for k in many["answers"][0]}
    fields |= {f"answers[].timings_ms.{k}" for k in many["answers"][0]["timings_ms"]} - {"answers[].timings_ms"}
    assert fields - {"answers[].timings_ms"} == documented_fields["Rows of several questions"] - {"answers[].error"}


def test_a_cut_run_with_several_questions_goes_on(default_model, batch):
    folder, text = batch
    lines = text.splitlines(keepends=True)
    (folder / "cut.jsonl").write_text(lines[0] + lines[1][:30])
    summary = answer(default_model, folder, "cases.jsonl", "cut.jsonl")
    assert (summary.answered, summary.failed) == (7, 7) and (folder / "cut.jsonl").read_text().startswith(lines[0])
    keys = {run_of(read_case(json.dumps({**ROWS[0], "questions": q}).encode(), 1), Plan(folder))["case"] for q in LISTS}
    assert len(keys) == len(LISTS)
    case = read_case(json.dumps(ROWS[0]).encode(), 1)
    assert case_from_json(case_to_json(case)) == case and case.questions[-1] is None


LISTS = (["a", "b"], ["b", "a"], ["a"], ["a b"], [None, "a"])


def test_several_questions_in_parquet(default_model, batch):
    pyarrow = pytest.importorskip("pyarrow", reason="batches on many machines need imc-lite[ray]")
    from pyarrow import parquet

    folder, _ = batch
    table = {"image": ["chest.jpg"] * 2, "question": [None, "Is it?"], "questions": [[QUESTIONS[0], None], None]}
    parquet.write_table(pyarrow.table(table), folder / "cases.parquet")
    answer(default_model, folder, "cases.parquet", "out.parquet", timings=False)
    found = parquet.read_table(folder / "out.parquet").to_pylist()
    row = json.loads(found[0]["report"])
    assert found[0]["answer"] is None and found[1]["answer"] and "timings_ms" not in row
    assert ["error" in entry for entry in row["answers"]] == [False, True] and "timings_ms" not in row["answers"][0]
    parquet.write_table(pyarrow.table({"image": ["a"], "questions": [1]}), folder / "cases.parquet")
    with pytest.raises(ImcError, match=r'the column "questions" of .* is no list of text'):
        answer(default_model, folder, "cases.parquet", "other.parquet")


@pytest.mark.slow
def test_each_question_has_its_line(default_bundle, chest):
    given = ["answer", "--no-sms", str(chest), QUESTIONS[0], ENDLESS, QUESTIONS[2]]
    done = CliRunner().invoke(cli, [*given, "--json"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 2 and [row.get("question", {}).get("original") for row in rows] == [
        given[3],
        None,
        given[5],
    ]
    assert "shorten the question" in rows[1]["error"] and rows[2]["timings_ms"]["perceive"] == 0
    assert done.stderr.startswith("imc-lite: question 2: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("questions", "why"),
    [
        (["Is it?", " "], "question 2: the question is empty"),
        (["Is", "the", "heart", "enlarged?"], "4 single words came as a question each; put a question in quotes"),
    ],
)
def test_all_questions_are_checked_before_anything_is_opened(questions, why):
    done = CliRunner().invoke(cli, ["answer", "gone.png", *questions, "--model", "nothing"])
    assert done.exit_code and done.stdout == "" and why in f"{done.exception} {done.stderr}"
