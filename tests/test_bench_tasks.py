"""The benchmark's conditions as tasks of lmms-eval: what is written, without lmms-eval."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_cli import run

from imc_lite import ImcError, load_image
from imc_lite.bench.benchmark import quick_cases
from imc_lite.bench.plan import Options, make_plan
from imc_lite.bench.tasks import write_tasks
from imc_lite.cli.main import cli
from imc_lite.noise.image import apply_to_image
from imc_lite.noise.text import apply_to_text


@pytest.fixture(scope="module")
def plan():
    return make_plan(quick_cases()[::11], Options(noises=("impulse", "typo"), severities=(4,)))


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks") / "out"
    names = write_tasks(plan, out)
    assert names == ["imc_noise_clean", "imc_noise_impulse_4", "imc_noise_typo_4"]
    return out


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"imc_noise_{name}.jsonl").read_text().splitlines()]


def test_pictures_and_questions_are_those_of_the_benchmark(plan, folder):
    clean, noisy = rows(folder, "clean"), rows(folder, "impulse_4")
    assert [(r["question"], r["answer"]) for r in clean] == [(q.text, q.answer) for q in plan.questions]
    assert [r["question"] for r in noisy] == [r["question"] for r in clean]
    for question, one, other in zip(plan.questions, clean, noisy, strict=True):
        pixels = load_image(plan.cases[question.picture].path)
        assert np.array_equal(np.asarray(Image.open(one["image"])), pixels)
        damaged = apply_to_image(pixels, "impulse", 4, plan.seed(question.picture))
        assert np.array_equal(np.asarray(Image.open(other["image"])), damaged)


def test_damaged_questions_are_about_clean_pictures(plan, folder):
    asked = [q for q in plan.questions if q.damaged]
    found = rows(folder, "typo_4")
    assert [r["question"] for r in found] == [apply_to_text(q.text, "typo", 4, plan.seed(q.picture)) for q in asked]
    assert {r["image"] for r in found} <= {r["image"] for r in rows(folder, "clean")}


def test_a_task_names_its_rows_and_the_group_its_tasks(folder):
    task = (folder / "imc_noise_impulse_4.yaml").read_text()
    assert (
        f'data_files: {{test: "{folder / "imc_noise_impulse_4.jsonl"}"}}' in task
        and "task: imc_noise_impulse_4\n" in task
    )
    assert (folder / "imc_noise.yaml").read_text() == (
        "group: imc_noise\ntask:\n  - imc_noise_clean\n  - imc_noise_impulse_4\n  - imc_noise_typo_4\n"
    )
    found: dict = {}
    exec((folder / "look.py").read_text(), found)
    row = rows(folder, "clean")[0]
    assert found["picture"](row)[0].mode == "RGB"
    assert found["judged"]({"answer": "x-ray"}, ["It is an x-ray."]) == {"right": 1.0, "exact": 0.0}
    assert found["judged"]({"answer": "x-ray"}, ["X-ray"]) == {"right": 1.0, "exact": 1.0}
    assert found["judged"]({"answer": "x-ray"}, ["no"]) == {"right": 0.0, "exact": 0.0}


def test_a_folder_that_holds_something_is_refused(plan, folder, tmp_path):
    with pytest.raises(ImcError, match="not empty"):
        write_tasks(plan, folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImcError, match="cannot be made"):
        write_tasks(plan, tmp_path / "file")


def test_from_the_shell(tmp_path):
    chosen = ["--noise", "pixelation", "--severity", "4", "--limit", "1", "-o", str(tmp_path / "t")]
    done = CliRunner().invoke(cli, ["bench", "tasks", *chosen])
    assert done.exit_code == 0 and done.stdout == "imc_noise_clean\nimc_noise_pixelation_4\n"
    assert len(list((tmp_path / "t" / "pictures" / "pixelation-4").glob("*.png"))) == 9
    for bad, why in ((["--noise", "fog"], b"unknown noise"), (["--severity", "7"], b"out of range")):
        failed = run("bench", "tasks", *bad, "-o", str(tmp_path / "no"))
        assert failed.returncode == 2 and failed.stdout == b"" and why in failed.stderr, failed.stderr
        assert failed.stderr.count(b"\n") == 1 and not (tmp_path / "no").exists()
