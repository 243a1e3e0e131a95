"""Batches that would stop a run, mix two runs up, or lose what was there: each row, file and second run by its name."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from imc_lite import IMC, ImcError
from imc_lite.batch.output import own
from imc_lite.batch.rows import LONGEST, Plan
from imc_lite.batch.run import in_process, run_batch
from imc_lite.models.default.onnx import OrtMLLM

GOOD = b'{"id": "good", "image": "gone.jpg", "question": "Is it?"}'
CASE = b'"image": "gone.jpg", "question": "Is it?"}'
GONE = "gone.jpg does not exist"

# name -> line, its row's id (None: the line's number), a part of its row's error
ROWS = {
    "no JSON": (b"not json", None, "is not JSON"),
    "a list": (b"[1]", None, "is not a JSON object"),
    "a number": (b"7", None, "is not a JSON object"),
    "nothing asked": (b"{}", None, 'no text "image"'),
    "nested deeply": (b'{"id": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "nested too deeply"),
    "a huge line": (b'{"id": "a", "x": "' + b"x" * LONGEST + b'"}', None, "longer than 1,048,576 bytes"),
    "not UTF-8": (b'{"id": "\xff", ' + CASE, None, "is not UTF-8"),
    "zeros": (b"\0\0\0\0", None, "is not JSON"),
    "an integer of many digits": (b'{"id": ' + b"9" * 5000 + b", " + CASE, None, "is not JSON"),
    "id with half a surrogate pair": (b'{"id": "\\ud800", ' + CASE, None, "half a surrogate pair"),
    "id true": (b'{"id": true, ' + CASE, None, "neither text nor an integer"),
    "id of a list": (b'{"id": ["x"], ' + CASE, None, "neither text nor an integer"),
    "id of an object": (b'{"id": {"x": 1}, ' + CASE, None, "neither text nor an integer"),
    "id NaN": (b'{"id": NaN, ' + CASE, None, "neither text nor an integer"),
    "id with a fraction": (b'{"id": 1.0, ' + CASE, None, "neither text nor an integer"),
    "id of an integer": (b'{"id": -7, ' + CASE, "-7", GONE),
    "id null": (b'{"id": null, ' + CASE, None, GONE),
    "id of a line separator": ('{"id": "a\u2028b\u2029c\x85d", '.encode() + CASE, "a\u2028b\u2029c\x85d", GONE),
    "id of control characters": (b'{"id": "a\\n\\u0000\\u001e", ' + CASE, "a\n\0\x1e", GONE),
    "the id of the row before": (GOOD, "good", GONE),
    "the id of another line": (b'{"id": "1", ' + CASE, "1", GONE),
    "picture with half a surrogate pair": (b'{"image": "\\ud800.jpg", "question": "Is it?"}', None, "cannot read"),
    "picture with a zero": (b'{"image": "a\\u0000b.jpg", "question": "Is it?"}', None, "cannot read"),
    "picture of a long name": (b'{"image": "' + b"x" * 5000 + b'.jpg", "question": "Is it?"}', None, "cannot read"),
    "picture of a device": (b'{"image": "/dev/zero", "question": "Is it?"}', None, "is a pipe or a device"),
    "picture of a pipe": (b'{"image": "PIPE", "question": "Is it?"}', None, "is a pipe or a device"),
    "question of a surrogate": (b'{"image": "gone.jpg", "question": "\\udfff?"}', None, GONE),
    "question null": (b'{"image": "gone.jpg", "question": null}', None, 'no text "question"'),
    "frame true": (b'{"frame": true, ' + CASE, None, '"frame" that is not a number'),
    "frame huge": (b'{"frame": ' + b"9" * 300 + b', "image": "CHEST", "question": "Is it?"}', None, "not DICOM"),
    "window of a number": (b'{"window": 3, ' + CASE, None, '"window" that is not a text'),
}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "imc_lite", "answer", "--no-timings", *map(str, args)]


def run(folder, *args: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*args), capture_output=True, text=True, cwd=folder, check=False, **options)


def refused(done: subprocess.CompletedProcess, *why: str) -> None:
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("imc-lite: ") and all(part in done.stderr for part in why), done.stderr


def write(folder, *lines: bytes):
    (folder / "cases.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder / "cases.jsonl"


def answered(model, folder, out, **plan):
    cases = folder / "cases.jsonl"
    return run_batch(in_process(lambda: IMC(model)), cases, out, Plan(folder, timings=False, **plan), dict)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_gives_a_row_and_stops_nothing(name, default_model, tmp_path, chest):
    line, id, why = ROWS[name]
    shutil.copy(chest, tmp_path / "CHEST")
    os.mkfifo(tmp_path / "PIPE")
    write(tmp_path, GOOD, line, GOOD)
    out = tmp_path / "out.jsonl"
    assert answered(default_model, tmp_path, out).cases == 3
    text = out.read_bytes().decode("utf-8")
    rows = [json.loads(row) for row in text.splitlines()]
    assert [row["id"] for row in rows] == ["good", "2" if id is None else id, "good"]
    assert why in rows[1]["error"] and GONE in rows[0]["error"] and GONE in rows[2]["error"]
    # Whole or cut off anywhere, it is known again and completed to the same bytes.
    assert answered(default_model, tmp_path, out).answered == 0
    for keep in (0, 1, len(text.splitlines()[0]) + 20, len(text.encode()) - 1):
        out.write_bytes(text.encode()[:keep])
        answered(default_model, tmp_path, out)
        assert out.read_bytes() == text.encode()


@pytest.mark.parametrize("name", ROWS)
def test_parquet_holds_every_row_too(name, default_model, tmp_path, chest):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs imc-lite[ray]")
    shutil.copy(chest, tmp_path / "CHEST")
    os.mkfifo(tmp_path / "PIPE")
    write(tmp_path, GOOD, ROWS[name][0])
    answered(default_model, tmp_path, tmp_path / "out.jsonl")
    answered(default_model, tmp_path, tmp_path / "out.parquet")
    reports = parquet.read_table(tmp_path / "out.parquet").column("report").to_pylist()
    assert "".join(f"{row}\n" for row in reports) == (tmp_path / "out.jsonl").read_text("utf-8")
    assert answered(default_model, tmp_path, tmp_path / "out.parquet").answered == 0
    assert {p.name for p in tmp_path.iterdir()} == {"CHEST", "PIPE", "cases.jsonl", "out.jsonl", "out.parquet"}


@pytest.mark.slow
def test_a_byte_order_mark_loses_no_row(default_bundle, tmp_path, chest):
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(chest, tmp_path / name)
    row = '{{"id": "r{0}", "image": "{1}.jpg", "question": "What modality is this?"}}\n'
    (tmp_path / "bom.jsonl").write_text("\ufeff" + row.format(1, "a") + row.format(2, "b"), "utf-8")
    rows = [json.loads(line) for line in run(tmp_path, "--batch", "bom.jsonl").stdout.splitlines()]
    assert [(r["id"], r["answer"]) for r in rows] == [("r1", "x-ray"), ("r2", "x-ray")]


def test_line_numbers_are_those_of_an_editor(default_model, tmp_path):
    write(tmp_path, b"", b"no", b"  ", CASE.replace(b'"image"', b'{"image"'))
    answered(default_model, tmp_path, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [r["id"] for r in rows] == ["2", "4"] and "line 2" in rows[0]["error"]


FILES = {
    "UTF-16": ('{"id": "a"}\n'.encode("utf-16"), "not UTF-8 text"),
    "zeros": (bytes(5000), "not text"),
    "a picture": (b"\xff\xd8\xff\xe0\0\x10JFIF", "not UTF-8 text"),
    "blank lines": (b"\n \n\t\n", "holds no case"),
    "a mark alone": (b"\xef\xbb\xbf", "holds no case"),
    "half a Parquet file": (b"PAR1\0\0\0", r"holds Parquet; name it \.parquet"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_cases_is_one_line(name, default_model, tmp_path):
    data, why = FILES[name]
    (tmp_path / "cases.jsonl").write_bytes(data)
    with pytest.raises(ImcError, match=why):
        answered(default_model, tmp_path, tmp_path / "out.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["cases.jsonl"]


@pytest.mark.slow
def test_cases_from_a_pipe_and_from_devices(default_bundle, tmp_path):
    done = run(tmp_path, "--batch", "/dev/stdin", input=GOOD.decode() + "\n")
    assert done.returncode == 0 and json.loads(done.stdout)["id"] == "good"
    refused(run(tmp_path, "--batch", "/dev/zero", timeout=60), "cannot read /dev/zero")
    refused(run(tmp_path, "--batch", tmp_path), "cannot read")


class Failing(OrtMLLM):
    """A model that fails as one that meets a picture nobody thought of."""

    raised: BaseException

    def perceive(self, image):
        raise self.raised


class Panic(BaseException):
    """What a library written in Rust raises is no Exception."""


@pytest.mark.parametrize("kind", [MemoryError, RecursionError, RuntimeError, KeyError, OSError, Panic])
def test_any_failure_of_one_case_is_its_row(kind, default_bundle, tmp_path, chest):
    model = Failing(default_bundle)
    secret = "the patient's name"
    model.raised = kind(secret)
    shutil.copy(chest, tmp_path / "chest.jpg")
    write(tmp_path, b'{"id": "a", "image": "chest.jpg", "question": "Is it?"}', GOOD)
    summary = answered(model, tmp_path, tmp_path / "out.jsonl")
    text = (tmp_path / "out.jsonl").read_text()
    assert (summary.answered, summary.failed) == (2, 2) and secret not in text
    assert type(model.raised).__name__ in json.loads(text.splitlines()[0])["error"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_stop_stops(kind, default_bundle, tmp_path, chest):
    model = Failing(default_bundle)
    model.raised = kind()
    shutil.copy(chest, tmp_path / "chest.jpg")
    write(tmp_path, GOOD, b'{"id": "a", "image": "chest.jpg", "question": "Is it?"}', GOOD)
    with pytest.raises(kind):
        answered(model, tmp_path, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 1


def three_cases(folder):
    """Two folders with a batch of three cases each, the same lines; their pictures are gone, which makes quick rows."""
    lines = [
        b'{"image": "a.jpg", "question": "What modality is this?"}',
        b'{"id": 5, "image": "gone.jpg", "question": "Is it?"}',
        b"no",
    ]
    for name in ("one", "two"):
        (folder / name).mkdir()
        write(folder / name, *lines)
    return folder


@pytest.fixture
def batch(tmp_path):
    return three_cases(tmp_path)


@pytest.fixture(scope="module")
def refusing(default_bundle, tmp_path_factory):
    """Such folders, and the bytes of a finished run's output; for tests that put back what they change."""
    folder = three_cases(tmp_path_factory.mktemp("refusing"))
    assert run(folder, "--batch", "one/cases.jsonl", "-o", "out.jsonl").returncode == 0
    return folder, (folder / "out.jsonl").read_bytes()


@pytest.fixture
def finished(batch, default_bundle):
    out = batch / "out.jsonl"
    assert run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl").returncode == 0
    return out


OTHERS = {
    "the same names in another folder": (["--batch", "two/cases.jsonl"], ["line 1", "another case", "picture"]),
    "without PDC": (["--no-pdc"], ["prototypes", "not none"]),
    "without SMS": (["--no-sms"], ["options pdc sms, not pdc"]),
    "another window": (["--window", "lung"], ["options pdc sms, not pdc sms window=lung"]),
    "another frame": (["--frame", "2"], ["frame=2"]),
    "another device": (["--device", "cpu"], ["device=cpu"]),
    "other prototypes": (["--prototypes", "own.safetensors"], ["prototypes"]),
    "another model": (["--model", "model"], ["model", "default other"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("whole", [True, False])
def test_the_output_of_another_run_is_refused_and_kept(name, whole, refusing, default_bundle):
    args, why = OTHERS[name]
    batch, written = refusing
    finished = batch / "out.jsonl"
    finished.write_bytes(written)
    if name == "other prototypes":
        shutil.copy(default_bundle / "prototypes.safetensors", batch / "own.safetensors")
        with open(batch / "own.safetensors", "ab") as file:
            file.write(b" ")
    if name == "another model":
        manifest = json.loads((default_bundle / "manifest.json").read_text())
        (batch / "model").mkdir(exist_ok=True)
        (batch / "model" / "manifest.json").write_text(json.dumps({**manifest, "version": "other"}))
    if not whole:
        finished.write_bytes(finished.read_bytes()[:-50])
    before = finished.read_bytes()
    args = args if "--batch" in args else ["--batch", "one/cases.jsonl", *args]
    refused(run(batch, "-o", "out.jsonl", *args), "out.jsonl", "choose another output file", *why)
    assert finished.read_bytes() == before


@pytest.mark.slow
def test_another_batch_is_refused_and_says_what_differs(finished, batch):
    before = finished.read_bytes()
    lines = (batch / "one" / "cases.jsonl").read_bytes().splitlines()
    other_question = lines[0].replace(b"modality", b"organ")
    for changed, why in (
        ([other_question, *lines[1:]], "line 1 of out.jsonl answers another case of the same id"),
        ([lines[0], lines[1].replace(b"5", b"6"), lines[2]], "line 2 of out.jsonl answers case 5, not 6"),
        ([*lines[:2], b"na"], "line 3 of out.jsonl answers another case"),
        (lines[:2], "line 3 of out.jsonl is no answer to this input"),
    ):
        write(batch / "one", *changed)
        refused(run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl"), why)
        assert finished.read_bytes() == before


def test_what_does_not_matter_does_not_matter(finished, batch):
    """Other columns, another place of the output, another way to name the same folder, more cases at the end."""
    finished.rename(batch / "two" / "moved.jsonl")
    lines = (batch / "one" / "cases.jsonl").read_bytes().splitlines()
    lines[0] = lines[0].replace(b"}", b', "truth": "x-ray"}')
    write(batch / "one", *lines, GOOD)
    done = run(batch / "one", "--batch", "cases.jsonl", "-o", "../two/moved.jsonl")
    assert done.returncode == 0 and (batch / "two" / "moved.jsonl").read_bytes().count(b"\n") == 4
    again = run(batch / "one", "--batch", batch / "one" / "cases.jsonl", "-o", "../two/moved.jsonl")
    assert "all 4 cases have a row in ../two/moved.jsonl already" in again.stderr


@pytest.mark.slow
def test_rows_of_an_earlier_version_are_not_taken_for_ours(finished, batch):
    rows = [json.loads(line) for line in finished.read_text().splitlines()]
    for change in (lambda row: row.pop("run"), lambda row: row.update(run="x"), lambda row: row.update(run={})):
        broken = [dict(row) for row in rows]
        change(broken[1])
        finished.write_text("".join(json.dumps(row) + "\n" for row in broken))
        before = finished.read_bytes()
        refused(run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl"), "line 2 of out.jsonl")
        assert finished.read_bytes() == before


def test_a_finished_run_opens_no_model(default_bundle, batch):
    """Its bundle has lost what opening it takes by then; only the manifest is read."""
    (batch / "model").mkdir()
    for name in ("manifest.json", "config.json", "prototypes.safetensors", "confidence.safetensors"):
        shutil.copy(default_bundle / name, batch / "model")
    args = ("--batch", "one/cases.jsonl", "-o", "out.jsonl", "--model", "model")
    assert run(batch, *args).returncode == 0
    for name in ("config.json", "prototypes.safetensors", "confidence.safetensors"):
        (batch / "model" / name).unlink()
    done = run(batch, *args)
    assert done.returncode == 0 and "all 3 cases have a row" in done.stderr and "3 cases could not" in done.stderr


@pytest.mark.slow
def test_zeros_that_a_power_cut_left_are_cut_off(finished, batch):
    whole = finished.read_bytes()
    third = whole[:-1].rfind(b"\n") + 1
    for left in (whole[:-20] + bytes(20), whole[:third] + bytes(99), whole[: third + 4] + bytes(9), whole + bytes(99)):
        finished.write_bytes(left)
        done = run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl")
        if left.startswith(whole):  # beyond the last case there is nothing of ours
            refused(done, "line 4")
        else:
            assert done.returncode == 0 and finished.read_bytes() == whole


def test_a_second_run_into_the_same_file_is_refused(default_bundle, batch):
    out = batch / "out.jsonl"
    with own(out):
        refused(run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl"), "another run is writing out.jsonl")
        (batch / "link.jsonl").symlink_to(out)
        refused(run(batch, "--batch", "one/cases.jsonl", "-o", "link.jsonl"), "another run is writing")
    assert not out.exists()
    pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    with own(batch / "out.parquet.rows.jsonl"):
        refused(run(batch, "--batch", "one/cases.jsonl", "-o", "out.parquet"), "another run is writing")


def test_the_lock_of_a_killed_run_blocks_nobody(default_bundle, batch):
    code = "import sys, time; from pathlib import Path; from imc_lite.batch.output import own\n"
    code += "with own(Path('out.jsonl')):\n print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=batch, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        refused(run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl"), "another run")
        os.kill(holder.pid, signal.SIGKILL)
    assert run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl").returncode == 0
    assert (batch / "out.jsonl").read_bytes().count(b"\n") == 3


def test_a_run_that_cannot_start_leaves_no_file(default_bundle, batch):
    refused(run(batch, "--batch", "one/cases.jsonl", "-o", "out.jsonl", "--model", "nothing"), "no model")
    bad = ["--batch", "one/cases.jsonl", "-o", "out.jsonl", "--prototypes", "one/cases.jsonl"]
    refused(run(batch, *bad), "no readable prototypes")
    refused(run(batch, *bad[:4], "--prototypes", "gone"), "no readable prototypes")
    assert not (batch / "out.jsonl").exists()


@pytest.mark.slow
def test_pipes_and_devices_are_written_to(default_bundle, batch):
    plain = run(batch, "--batch", "one/cases.jsonl").stdout
    assert plain.count("\n") == 3
    args = ("--batch", "one/cases.jsonl", "-o")
    assert run(batch, *args, "/dev/stdout", timeout=120).stdout == plain
    assert run(batch, *args, "/dev/null", timeout=120).returncode == 0
    refused(run(batch, *args, "/dev/full", timeout=120), "cannot write /dev/full (No space left on device)")
    os.mkfifo(batch / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((batch / "pipe").read_text()))
    reader.start()
    assert run(batch, *args, "pipe", timeout=120).returncode == 0
    reader.join()
    assert read == [plain]
    # Where the shell appends to a file, nothing of it is cut off.
    (batch / "log").write_text("before\n")
    with open(batch / "log", "ab") as log:
        subprocess.run(command(*args, "/dev/stdout"), cwd=batch, stdout=log, stderr=subprocess.PIPE, check=True)
    assert (batch / "log").read_text() == "before\n" + plain
    refused(run(batch, *args, "one"), "cannot write one (Is a directory)")
    for name in ("x" * 300, "x" * 250 + ".parquet", "no/where", "one/cases.jsonl/below"):
        refused(run(batch, *args, name), "cannot write")


def test_a_full_disk_keeps_the_rows_that_are_there(default_bundle, batch, finished):
    """A limit on the size of files stands for the disk: writing fails in the middle of a row."""
    whole = finished.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ends[0] + 10, ends[0] + 10))

    finished.unlink()
    args = ("--batch", "one/cases.jsonl", "-o", "out.jsonl")
    refused(run(batch, *args, preexec_fn=small), "cannot write out.jsonl (File too large)")
    assert finished.read_bytes() == whole[: ends[0]]
    assert run(batch, *args).returncode == 0 and finished.read_bytes() == whole


@pytest.mark.slow
def test_memory_does_not_grow_with_the_batch(default_bundle, tmp_path):
    """50 MB of cases and 5 MB of answers, written and then read again, in the memory that a few take."""
    code = "import re, sys\nfrom pathlib import Path\nfrom imc_lite import IMC\n"
    code += "from imc_lite.batch.rows import Plan\nfrom imc_lite.batch.run import in_process, run_batch\n"
    code += "cases, out = map(Path, sys.argv[1:])\n"
    code += "run_batch(in_process(IMC.from_pretrained), cases, out, Plan(cases), dict)\n"
    # Not getrusage: that counts what this process held when it started the other one.
    code += "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1], file=sys.stderr)"
    peaks = []
    for count in (100, 50_000):
        cases, out = tmp_path / f"{count}.jsonl", tmp_path / f"{count}.out"
        cases.write_text(f"{'x' * 1000}\n" * count)
        for target, to in (("/dev/stdout", out), (str(out), os.devnull)):  # the second time the rows are there
            with open(to, "ab") as stdout:
                done = subprocess.run(
                    [sys.executable, "-c", code, str(cases), target], stdout=stdout, stderr=subprocess.PIPE, check=True
                )
            peaks.append(int(done.stderr.split()[-1]))
        assert out.read_bytes().count(b"\n") == count
    assert max(peaks[2:]) < max(peaks[:2]) + 8 * 1024, peaks


def test_a_killed_conversion_to_parquet_leaves_nothing_behind(default_model, tmp_path):
    """Killed after the Parquet file had its name and before the rows were removed: the next run removes them."""
    pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    write(tmp_path, GOOD, b"no")
    answered(default_model, tmp_path, tmp_path / "out.jsonl")
    answered(default_model, tmp_path, tmp_path / "out.parquet")
    rows = tmp_path / "out.parquet.rows.jsonl"
    rows.write_text("somebody's\n")
    answered(default_model, tmp_path, tmp_path / "out.parquet")
    assert rows.read_text() == "somebody's\n"
    shutil.copy(tmp_path / "out.jsonl", rows)
    answered(default_model, tmp_path, tmp_path / "out.parquet")
    assert not rows.exists()


PARQUET = {
    "pictures as bytes": ({"image": [b"\xff\xd8"], "question": ["Is it?"]}, 'column "image"'),
    "questions as numbers": ({"image": ["a"], "question": [1]}, 'column "question"'),
    "no question": ({"image": ["a"]}, 'no column "question"'),
    "no row": ({"image": [], "question": []}, "holds no case"),
    "a column twice": ([("image", ["a"]), ("question", ["Is it?"]), ("image", ["b"])], 'more than one column "image"'),
    "ids as bytes": ({"image": ["a"], "question": ["Is it?"], "id": [b"7"]}, 'column "id" of .* holds bytes'),
    "windows as bytes": ({"image": ["a"], "question": ["Is it?"], "window": [b"lung"]}, 'column "window" of .* holds'),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_that_holds_no_cases_is_one_line(name, default_model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    from pyarrow import parquet

    columns, why = PARQUET[name]
    names, values = zip(*(columns.items() if isinstance(columns, dict) else columns), strict=True)
    table = pyarrow.Table.from_arrays([pyarrow.array(each) for each in values], names=list(names))
    parquet.write_table(table, tmp_path / "cases.parquet")
    with pytest.raises(ImcError, match=why):
        run_batch(in_process(lambda: IMC(default_model)), tmp_path / "cases.parquet", None, Plan(tmp_path), dict)


def test_parquet_under_other_names_is_said_so(default_model, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs imc-lite[ray]")
    import pyarrow

    cases = tmp_path / "cases.pq"
    parquet.write_table(pyarrow.table({"image": ["gone.jpg"], "question": ["Is it?"]}), cases)
    answers = in_process(lambda: IMC(default_model))
    with pytest.raises(ImcError, match=r"holds Parquet; name it \.parquet"):
        run_batch(answers, cases, None, Plan(tmp_path), dict)
    good = cases.rename(tmp_path / "cases.parquet")
    for name in ("out.pq", "out.parq"):
        with pytest.raises(ImcError, match=r"name it \.jsonl or \.parquet"):
            run_batch(answers, good, tmp_path / name, Plan(tmp_path), dict)
    assert [path.name for path in tmp_path.iterdir()] == ["cases.parquet"]


def test_text_that_arrow_keeps_as_views_is_text(default_model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", "16", reason="Parquet needs imc-lite[ray]")
    from pyarrow import parquet

    text = [pyarrow.array(values, pyarrow.string_view()) for values in (["gone.jpg"], ["Is it?"])]
    parquet.write_table(pyarrow.Table.from_arrays(text, names=["image", "question"]), tmp_path / "cases.parquet")
    out = tmp_path / "out.jsonl"
    run_batch(in_process(lambda: IMC(default_model)), tmp_path / "cases.parquet", out, Plan(tmp_path), dict)
    assert "gone.jpg does not exist" in json.loads(out.read_text())["error"]


def test_parquet_without_pyarrow_is_missed_before_anything_is_answered(batch):
    """In a Python in which pyarrow cannot be imported."""
    (batch / "without").mkdir()
    (batch / "without" / "pyarrow.py").write_text("raise ImportError")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(batch / "without"), *sys.path))}
    asked = ("--batch", "one/cases.jsonl", "-o", "out.parquet", "-m", "nothing")
    refused(run(batch, *asked, env=environment), "pyarrow is not installed; install imc-lite[ray]")
    assert not list(batch.glob("out.parquet*"))


def test_ids_of_parquet_follow_the_same_rule(default_model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    from pyarrow import parquet

    for ids, wanted in (([7, None], ["7", "2"]), ([7.0, None], ["1", "2"]), (["a", None], ["a", "2"])):
        columns = {"id": ids, "image": ["gone.jpg"] * 2, "question": ["Is it?"] * 2}
        parquet.write_table(pyarrow.table(columns), tmp_path / "cases.parquet")
        out = tmp_path / "out.jsonl"
        run_batch(in_process(lambda: IMC(default_model)), tmp_path / "cases.parquet", out, Plan(tmp_path), dict)
        assert [json.loads(row)["id"] for row in out.read_text().splitlines()] == wanted
        out.unlink()


def test_frames_with_gaps_are_whole_numbers(default_model, tmp_path):
    """pandas keeps such a column as floats."""
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    from pyarrow import parquet

    columns = {"image": ["gone.dcm"] * 3, "question": ["Is it?"] * 3, "frame": [2.0, None, 1.5]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "cases.parquet")
    out = tmp_path / "out.jsonl"
    run_batch(in_process(lambda: IMC(default_model)), tmp_path / "cases.parquet", out, Plan(tmp_path), dict)
    said = [json.loads(row)["error"] for row in out.read_text().splitlines()]
    assert ["counted from 1" in error for error in said] == [False, False, True] and "gone.dcm" in said[0]


def test_text_that_is_not_utf8_and_outputs_that_are_none_are_one_line(default_model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    from pyarrow import parquet

    texts = [pyarrow.array([b"a\xff.jpg"]).view(pyarrow.string()), pyarrow.array(["Is it?"])]
    parquet.write_table(pyarrow.Table.from_arrays(texts, names=["image", "question"]), tmp_path / "cases.parquet")
    answers, plan = in_process(lambda: IMC(default_model)), Plan(tmp_path)
    with pytest.raises(ImcError, match=r"cannot read .*not UTF-8.*; give a Parquet file of cases"):
        run_batch(answers, tmp_path / "cases.parquet", tmp_path / "out.jsonl", plan, dict)
    parquet.write_table(pyarrow.table({"image": ["gone.jpg"], "question": ["Is it?"]}), tmp_path / "cases.parquet")
    (tmp_path / "out.parquet").write_text("text")
    with pytest.raises(ImcError, match=r"cannot read .*out.parquet .*; choose another output file"):
        run_batch(answers, tmp_path / "cases.parquet", tmp_path / "out.parquet", plan, dict)
    assert (tmp_path / "out.parquet").read_text() == "text"


def test_damaged_parquet_is_one_line(default_model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs imc-lite[ray]")
    from pyarrow import parquet

    table = pyarrow.table({"image": [f"{i}.jpg" for i in range(5000)], "question": ["Is it?"] * 5000})
    parquet.write_table(table, tmp_path / "cases.parquet")
    data = bytearray((tmp_path / "cases.parquet").read_bytes())
    data[200:2000] = bytes(1800)
    (tmp_path / "cases.parquet").write_bytes(data)
    with pytest.raises(ImcError, match="cannot read"):
        run_batch(in_process(lambda: IMC(default_model)), tmp_path / "cases.parquet", None, Plan(tmp_path), dict)


def test_two_runs_started_together(default_bundle, batch):
    """One of them writes all rows; the other is refused, or comes late and finds them."""
    args = command("--batch", "one/cases.jsonl", "-o", "out.jsonl")
    both = [subprocess.Popen(args, cwd=batch, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    until = time.monotonic() + 120
    ends = [(p.communicate(timeout=until - time.monotonic())[1], p.returncode) for p in both]
    assert sorted(code for _, code in ends) in ([0, 0], [0, 2])
    assert all(code == 0 or "another run is writing" in said for said, code in ends)
    assert (batch / "out.jsonl").read_bytes().count(b"\n") == 3
