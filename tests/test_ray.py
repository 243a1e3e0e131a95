"""Batches on Ray: the rows of a run in one process, byte for byte, also after a kill, also in Parquet."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="batches on many machines need imc-lite[ray]")
pyarrow = pytest.importorskip("pyarrow", reason="batches on many machines need imc-lite[ray]")
from pyarrow import parquet  # noqa: E402

IMAGES = Path(__file__).parent / "images"
QUESTIONS = ("What modality is this?", "Waht body part is shown?", "In what plane was this image taken?", "Is it?")


def command(folder: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "imc_lite", "answer", "--no-timings", "--batch", str(folder / args[0]), *args[1:]]


def run(folder: Path, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *args), capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    rows = []
    for path in sorted(IMAGES.glob("*.jpg")):
        shutil.copy(path, folder)
        rows += [{"image": path.name, "question": question} for question in QUESTIONS]
    rows[3]["id"], rows[5]["image"], rows[6]["question"] = "abc", "gone.jpg", " "
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {key: [row.get(key) for row in rows] for key in ("id", "image", "question")}
    parquet.write_table(pyarrow.table(table), folder / "cases.parquet")
    return folder


@pytest.fixture(scope="module")
def plain(default_bundle, folder):
    """The rows of a run in one process."""
    done = run(folder, "cases.jsonl", "-o", "plain.jsonl")
    assert done.returncode == 0, done.stderr
    text = (folder / "plain.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 16 and "timings_ms" not in text
    return text


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(folder, plain, monkeypatch):
    """kill -9, twice; then the run is completed and no row is there twice or missing."""
    # Else Ray's workers wait behind the other tests (nice 15).
    monkeypatch.setenv("RAY_worker_niceness", "0")
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    out = folder / "killed.jsonl"
    args = ("cases.jsonl", "-o", str(out), "--ray", context.address_info["address"])
    try:
        for rows in (2, 6):
            with subprocess.Popen(command(folder, *args), cwd=folder, stderr=subprocess.DEVNULL) as process:
                until = time.monotonic() + 300
                while not out.exists() or out.read_bytes().count(b"\n") < rows:
                    assert process.poll() is None and time.monotonic() < until
                    time.sleep(0.02)
                os.kill(process.pid, signal.SIGKILL)
            assert rows <= out.read_bytes().count(b"\n") < 16
        done = run(folder, *args)
        assert done.returncode == 0 and done.stdout == ""
        assert done.stderr == 'imc-lite: 2 cases could not be answered; their rows carry "error"\n'
        assert out.read_text(encoding="utf-8") == plain
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_parquet_in_and_out_on_a_cluster_of_its_own(folder, plain):
    out = folder / "answers.parquet"
    done = run(folder, "cases.parquet", "-o", str(out), "--ray", "--threads", str(min(2, os.cpu_count() or 1)))
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
    table = parquet.read_table(out)
    assert table.column_names == ["id", "answer", "confidence", "error", "report"]
    assert "".join(f"{row}\n" for row in table.column("report").to_pylist()) == plain
    rows = [json.loads(line) for line in plain.splitlines()]
    assert table.column("answer").to_pylist() == [row.get("answer") for row in rows]
    assert table.column("error").null_count == 14
    # It is whole, so nothing is started again; somebody else's file is left alone.
    assert run(folder, "cases.parquet", "-o", str(out)).returncode == 0
    shutil.copy(folder / "cases.parquet", folder / "other.parquet")
    done = run(folder, "cases.jsonl", "-o", "other.parquet")
    assert done.returncode == 2 and "no answer to this input" in done.stderr
    assert not list(folder.glob("*.rows.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["cases.jsonl", "--ray", "127.0.0.1:9"], "cannot reach or start Ray"),
        (["cases.jsonl", "--ray", "--model", "nothing"], "no model"),
        (["cases.jsonl", "--ray", "--threads", "256"], "fewer than the 256 CPUs"),
        (["gone.parquet"], "cannot read"),
        (["plain.parquet"], "not Parquet"),
        (["narrow.parquet"], 'no column "question"'),
    ],
)
def test_what_cannot_run_says_why(default_bundle, folder, args, why):
    (folder / "plain.parquet").write_text("text")
    parquet.write_table(pyarrow.table({"image": ["a"]}), folder / "narrow.parquet")
    done = run(folder, *args)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and why in done.stderr
