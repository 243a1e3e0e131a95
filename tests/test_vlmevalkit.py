"""Data sets of VLMEvalKit through the pipeline: its own command, its own data sets, four questions in their place.

No package of VLMEvalKit is published: put a checkout on PYTHONPATH, with what it needs installed.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

vlmeval = pytest.importorskip("vlmeval", reason="VLMEvalKit is not installed: no package of it is published")

IMAGES = Path(__file__).parent / "images"
ROWS = (
    ("synpic28602.jpg", "What modality is this?", ("ct", "x-ray", "mri", "photograph"), "B"),
    ("synpic54610.jpg", "What modlity is this?", ("x-ray", "microscopy", "mri", "photograph"), "C"),
    ("synpic28602.jpg", "Which body part is shown?", ("abdomen", "chest", "head", "foot"), "B"),
    ("synpic54610.jpg", "Which body part is shown?", ("abdomen", "chest", "head", "foot"), "C"),
)
REVISION = "0" * 40


def put(hub: Path, repository: str, file: str) -> None:
    """The questions in the hub's cache, where the real data would lie."""
    import pandas

    root = hub / f"datasets--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    (root / "snapshots" / REVISION).mkdir(parents=True)
    rows = [
        {
            "index": i, "image": base64.b64encode((IMAGES / image).read_bytes()).decode(), "question": question,
            **dict(zip("ABCD", options, strict=True)), "answer": answer, "modality": "x", "category": "x",
        }
        for i, (image, question, options, answer) in enumerate(ROWS)
    ]  # fmt: skip
    pandas.DataFrame(rows).to_csv(root / "snapshots" / REVISION / file, sep="\t", index=False)


def run(tmp_path: Path, *args: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "LMUData": str(tmp_path / "LMU")}
    command = [sys.executable, "-m", "imc_lite.integrations.vlmevalkit", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "repository", "file"),
    [
        ("MedQDEGBench_simulate_test", "jiyaoliufd/MedQ-DEG-Bench", "MedQ-Robust-simulate-test.tsv"),
        ("MedqbenchMCQ_test", "jiyaoliufd/MedQ-Bench", "medqbench_QA_test.tsv"),
    ],
)
def test_a_data_set_is_answered_and_counted(default_bundle, tmp_path, name, repository, file):
    put(tmp_path / "hub", repository, file)
    kit = Path(vlmeval.__file__).parent.parent / "run.py"
    models = ("imc_lite", "imc_lite_plain")
    out = tmp_path / "out"
    done = run(
        tmp_path, str(kit), "--model", *models, "--data", name, "--work-dir", str(out), "--judge", "exact_matching"
    )
    assert done.returncode == 0, done.stderr
    for model in models:
        found = json.loads(next((out / model).glob("*/status.json")).read_text())["datasets"][name]
        assert found["status"] == "done" and found["metrics"][found["primary_metric"]] == 1.0, found


def test_a_checkout_has_to_be_named(tmp_path):
    done = run(tmp_path, "no/run.py")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("imc-lite: name the run.py")
