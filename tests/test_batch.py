"""Batches: order, errors in their rows, and going on after a cut."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from imc_lite.batch.rows import read_case

CASES = [
    {"id": "a", "image": "chest.jpg", "question": "What modality is this?"},
    {"image": "gone.jpg", "question": "What modality is this?"},
    {"id": 7, "image": "chest.jpg", "question": " "},
    {"id": "d", "image": "chest.jpg", "question": "What body part is shown?"},
]


@pytest.fixture
def folder(tmp_path, chest):
    fill(tmp_path, chest)
    return tmp_path


def fill(folder, chest):
    shutil.copy(chest, folder / "chest.jpg")
    lines = [json.dumps(c) for c in CASES]
    lines[3:3] = ["not json", "[1]", '{"image": "chest.jpg"}']
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n\n")


def run(folder, *args):
    command = [sys.executable, "-m", "imc_lite", "answer", "--batch", str(folder / "cases.jsonl"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


def stable(text: str) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "timings_ms"} for line in text.splitlines()]


@pytest.mark.slow
def test_order_ids_and_errors(default_bundle, folder):
    done = run(folder)
    rows = stable(done.stdout)
    assert done.returncode == 0
    assert [r["id"] for r in rows] == ["a", "2", "7", "4", "5", "6", "d"]
    assert ["error" in r for r in rows] == [False, True, True, True, True, True, False]
    assert "5 cases could not be answered" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_cases_from_stdin(default_bundle, folder):
    """Pictures then lie where the command is run; a run that was cut off goes on with the same cases."""

    def answer(cases: str, sent: bytes = b"", *more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "imc_lite", "answer", "--batch", cases, "--no-timings", *more]
        return subprocess.run(command, input=sent, capture_output=True, cwd=folder, check=False)

    sent, rows, out = (folder / "cases.jsonl").read_bytes(), answer("cases.jsonl").stdout, folder / "out.jsonl"
    assert answer("-", sent).stdout == rows and rows.count(b"\n") == 7
    out.write_bytes(rows[: len(rows) // 2])
    assert answer("-", sent, "-o", "out.jsonl").returncode == 0 and out.read_bytes() == rows
    none = answer("-", b"", "-o", "out.jsonl")
    assert none.returncode == 2 and b"imc-lite: - holds no case" in none.stderr and none.stderr.count(b"\n") == 1
    assert out.read_bytes() == rows


@pytest.mark.slow
def test_rows_say_what_they_are_an_answer_to(default_bundle, folder, documented_fields):
    """As docs/json.md says it; the same on every run, and different for every case."""
    rows = [json.loads(line) for line in run(folder).stdout.splitlines()]
    assert {f"run.{key}" for row in rows for key in row["run"]} == documented_fields["Rows of a batch"]
    assert len({row["run"]["case"] for row in rows}) == len(rows)
    assert len({tuple(row["run"][key] for key in ("model", "prototypes", "options")) for row in rows}) == 1
    assert rows[0]["run"]["model"].split()[:2] == list(rows[0]["model"].values())
    assert rows[0]["run"]["options"] == "pdc sms timings"


@pytest.fixture(scope="module")
def finished(default_bundle, chest, tmp_path_factory):
    """A folder of cases, the rows that a run prints, and those that it writes into a file."""
    folder = tmp_path_factory.mktemp("finished")
    fill(folder, chest)
    whole = stable(run(folder).stdout)
    assert run(folder, "-o", str(folder / "whole.jsonl")).stdout == ""
    lines = (folder / "whole.jsonl").read_text().splitlines(keepends=True)
    assert stable("".join(lines)) == whole
    return folder, whole, lines


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0, 1, 3, 7])
@pytest.mark.parametrize("torn", [False, True])
def test_a_cut_run_goes_on_where_it_stopped(finished, tmp_path, keep, torn):
    folder, whole, lines = finished
    out = tmp_path / "out.jsonl"
    out.write_text("".join(lines[:keep]) + (lines[keep][:40] if torn and keep < 7 else ""))
    before = out.read_text()[: sum(map(len, lines[:keep]))]
    assert run(folder, "-o", str(out)).returncode == 0
    after = out.read_text()
    assert after.startswith(before), "finished rows are not answered again"
    assert stable(after) == whole


@pytest.mark.slow
def test_somebody_elses_file_is_left_alone(default_bundle, folder):
    case = '{"id": "a", "image": "other.jpg", "question": "my only copy of a case"}'
    for text in ('{"id": "zzz"}\n', "my notes", "my notes\n", '{"id": "a"}\n' * 9, case, case[:40], '{"id": "a"}'):
        out = folder / "out.jsonl"
        out.write_text(text)
        done = run(folder, "-o", str(out))
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert out.read_text() == text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"image": "", "question": "a"}', 'line 3 has an empty "image"'),
        (b'{"image": "a.png", "question": "a", "question": "b"}', 'line 3 has "question" twice'),
        (b'{"image": "a.png", "question": "a", "id": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"image": "a.png"', "line 3 is not JSON"),
    ],
)
def test_a_line_that_cannot_be_asked_says_why(line, why):
    case = read_case(line, 3)
    assert case.error is not None and why in case.error and "\n" not in case.error


def test_files_of_other_kinds_are_no_cases(default_bundle, folder):
    (folder / "cases.jsonl").write_text('[\n{"image": "chest.jpg", "question": "a"}\n]\n')
    assert "one JSON array" in run(folder, "-o", str(folder / "out.jsonl")).stderr
    (folder / "cases.csv").write_text("id,image,question\n1,chest.jpg,a\n")
    command = [sys.executable, "-m", "imc_lite", "answer", "--batch", str(folder / "cases.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2 and "give a JSONL or Parquet file" in done.stderr and not (folder / "out.jsonl").exists()
    )


def test_output_over_input_is_refused(default_bundle, folder):
    before = (folder / "cases.jsonl").read_text()
    done = run(folder, "-o", str(folder / "cases.jsonl"))
    assert done.returncode == 2 and "both input and output" in done.stderr
    assert (folder / "cases.jsonl").read_text() == before


@pytest.mark.parametrize("more", [[], ["-o", "/dev/stdout"]])
def test_rows_that_are_appended_to_their_cases_are_refused(default_bundle, folder, more):
    """They would be read as further cases, and so on."""
    cases = folder / "cases.jsonl"
    before = cases.read_text()
    command = [sys.executable, "-m", "imc_lite", "answer", "--batch", str(cases), *more]
    with cases.open("a") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "both input and output" in done.stderr and cases.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "why"),
    [(["--window", "lnug"], "'lnug' is no window"), (["--max-risk", "0.2"], "nothing was fitted for it")],
)
def test_what_no_case_can_have_is_said_once(default_bundle, folder, options, why):
    """Before a row is written that would then stand in the way."""
    bare = folder / "bare"
    shutil.copytree(default_bundle, bare)
    manifest = json.loads((bare / "manifest.json").read_text())
    del manifest["files"]["confidence.safetensors"]
    (bare / "manifest.json").write_text(json.dumps(manifest))
    done = run(folder, "-m", str(bare), *options, "-o", str(folder / "out.jsonl"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and why in done.stderr
    assert not (folder / "out.jsonl").exists()


def test_a_row_of_many_names_is_read_in_no_time():
    line = b'{"image": "a.png", "question": "a"' + b"".join(b', "%d": 0' % i for i in range(60_000)) + b', "7": 1}'
    began = os.times().user
    assert 'has "7" twice' in read_case(line, 1).error
    assert os.times().user - began < 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output(default_bundle, folder):
    folder.chmod(0o500)
    assert "cannot write" in run(folder, "-o", str(folder / "out.jsonl")).stderr


def test_empty_and_binary_inputs(default_bundle, folder):
    for data in (b"", b"\n\n", b"\xff\xfe\x00"):
        (folder / "cases.jsonl").write_bytes(data)
        done = run(folder)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
