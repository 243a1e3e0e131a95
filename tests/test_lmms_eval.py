"""Tasks of lmms-eval through the pipeline: its own evaluator, a task of four questions, the real model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed; it comes with imc-lite[lmms-eval]")
from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

from imc_lite import IMC, ImcError
from imc_lite.noise import image

IMAGES = Path(__file__).parent / "images"
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}, cache_dir: {folder}/cache}}
test_split: test
output_type: {kind}
doc_to_visual: !function look.picture
doc_to_text: question
doc_to_target: {target}
{more}
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
"""
LOOK = "from PIL import Image\n\n\ndef picture(doc):\n    return [Image.open(doc['image'])]\n"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """Two tasks over two pictures, one of them noisy, and two damaged questions."""
    folder = tmp_path_factory.mktemp("tasks")
    noisy = image.apply_to_image(np.asarray(Image.open(IMAGES / "synpic54610.jpg").convert("RGB")), "impulse", 4, 0)
    Image.fromarray(noisy).save(folder / "noisy.png")
    shutil.copy(IMAGES / "synpic28602.jpg", folder / "chest.jpg")
    rows = [
        ("chest.jpg", "What modality is this?", "x-ray", ["x-ray", "mri"]),
        ("chest.jpg", "Waht modalty is this?", "x-ray", ["mri", "x-ray"]),
        ("noisy.png", "What modality is this?", "mri", ["x-ray", "mri"]),
        ("noisy.png", "What body part is shwon?", "head", ["head", "chest"]),
    ]
    (folder / "rows.jsonl").write_text(
        "".join(
            json.dumps({"image": str(folder / i), "question": q, "answer": a, "choices": c, "gold": c.index(a)}) + "\n"
            for i, q, a, c in rows
        )
    )
    (folder / "look.py").write_text(LOOK)
    both = {
        "imc_answers": ("generate_until", "answer", "generation_kwargs: {max_new_tokens: 16}", "exact_match"),
        "imc_choices": ("multiple_choice", "gold", "doc_to_choice: choices", "acc"),
    }
    for name, (kind, target, more, metric) in both.items():
        text = TASK.format(name=name, folder=folder, kind=kind, target=target, more=more, metric=metric)
        (folder / f"{name}.yaml").write_text(text)
    return folder


def evaluate(tasks: Path, name: str, args: str) -> dict:
    manager = TaskManager(include_path=str(tasks), model_name="imc_lite")
    return simple_evaluate(
        model="imc_lite", model_args=args, tasks=[name], task_manager=manager, batch_size=1, bootstrap_iters=0
    )


def test_a_task_is_answered_as_the_command_answers(tasks, default_bundle):
    found = evaluate(tasks, "imc_answers", f"model={default_bundle},pdc=true,sms=true")
    assert found["results"]["imc_answers"]["exact_match,none"] == 1.0
    imc = IMC.from_pretrained(default_bundle)
    rows = [json.loads(line) for line in (tasks / "rows.jsonl").read_text().splitlines()]
    said = [s["filtered_resps"][0] for s in sorted(found["samples"]["imc_answers"], key=lambda s: s["doc_id"])]
    assert said == [imc.answer(row["image"], row["question"]).answer for row in rows]


def test_choices_are_scored(tasks, default_bundle):
    found = evaluate(tasks, "imc_choices", f"model={default_bundle}")
    assert found["results"]["imc_choices"]["acc,none"] == 1.0


@pytest.fixture(scope="module")
def model(default_bundle):
    opened = get_model("imc_lite").create_from_arg_string(f"model={default_bundle},pdc=false,sms=false")
    assert opened.imc.prototypes is None and not opened.imc.sms
    opened.task_dict = {"t": {"test": [[], [Image.new("RGB", (8, 8))] * 2, ["film.mp4"]]}}
    return opened


def request(kind: str, *args) -> list[Instance]:
    return [Instance(kind, args, 0, {"task": "t", "doc_id": args[3], "repeats": 1})]


def test_text_alone_and_where_an_answer_ends(model):
    whole, cut = (
        model.generate_until(request("generate_until", "Name a color.", settings, list, 0, "t", "test"))[0]
        for settings in ({}, {"until": ["e"], "max_new_tokens": 8})
    )
    assert whole and "e" not in cut


def test_likelihood_of_what_greedy_decoding_writes_is_greatest(model):
    ask = ("Is this a chest x-ray?",)
    (said,) = model.generate_until(request("generate_until", *ask, {}, list, 0, "t", "test"))
    rows = [request("loglikelihood", *ask, f" {c}", list, 0, "t", "test")[0] for c in (said, "seven bananas")]
    (loss, greedy), (other, odd) = (found.text for found in model.loglikelihood(rows))
    assert 0 <= loss < other and greedy and not odd


@pytest.mark.parametrize("doc", [1, 2])
def test_what_it_cannot_look_at_is_one_line(model, doc):
    with pytest.raises(ImcError, match="one picture"):
        model.generate_until(request("generate_until", "What is this?", {}, list, doc, "t", "test"))


def test_several_rounds_are_not_supported(model):
    with pytest.raises(ImcError, match="one question at a time"):
        model.generate_until_multi_round([])


def test_the_benchmarks_conditions_are_tasks(default_bundle, tmp_path):
    """Its own evaluator reads what `imc-lite bench tasks` writes, and counts what the benchmark counts."""
    from imc_lite.bench.benchmark import quick_cases
    from imc_lite.bench.judging import RIGHT, WRONG, mark
    from imc_lite.bench.plan import Options, make_plan
    from imc_lite.bench.tasks import write_tasks

    plan = make_plan(quick_cases()[::11], Options(noises=("impulse", "typo"), severities=(4,)))
    names = write_tasks(plan, tmp_path / "tasks")
    manager = TaskManager(include_path=str(tmp_path / "tasks"), model_name="imc_lite")
    found = simple_evaluate(
        model="imc_lite", model_args=f"model={default_bundle}", tasks=["imc_noise"], task_manager=manager,
        batch_size=1, bootstrap_iters=0,
    )  # fmt: skip
    assert set(names) <= set(found["results"])
    imc = IMC.from_pretrained(default_bundle)
    for name in names:
        rows = [json.loads(line) for line in (tmp_path / "tasks" / f"{name}.jsonl").read_text().splitlines()]
        marks = [mark(imc.answer(r["image"], r["question"]).answer, r["answer"]) for r in rows]
        result = found["results"][name]
        assert result["right,none"] == pytest.approx(np.mean([m != WRONG for m in marks]))
        assert result["exact,none"] == pytest.approx(np.mean([m == RIGHT for m in marks]))
