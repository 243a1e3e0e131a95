"""Several threads: a model's replicas work side by side, and what comes is what one thread gives."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from imc_lite import IMC, ImcError
from imc_lite.batch.answering import workers_of
from imc_lite.batch.rows import Plan
from imc_lite.batch.run import in_process, run_batch
from imc_lite.bench.benchmark import quick_cases, run_benchmark
from imc_lite.bench.generators import Generator
from imc_lite.bench.plan import Options
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.replicas import in_order, on, replicas
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.server.pool import beside

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
QUESTIONS = ("What modality is this?", "Waht body part is shown?")


def opened(bundle: Path, threads: int) -> IMC:
    model = OrtMLLM(bundle, threads)
    return IMC(model, load_prototypes(model.prototypes_file(), model.identity))


def test_replicas_share_everything_but_the_decoders_cache(default_bundle):
    model = OrtMLLM(default_bundle, threads=3)
    first, second, third = replicas(model)
    assert first.sessions is second.sessions is third.sessions and first.sessions.threads == 1
    assert first.identity == model.identity and model.sessions.threads == 3
    assert first.decoder is not second.decoder and first.decoder.session is second.decoder.session
    alone = OrtMLLM(default_bundle)
    assert replicas(alone) == [alone]
    imc = IMC(model, None)
    other = on(imc, second)
    assert other.model is second and other._repaired is imc._repaired and imc.model is model
    elsewhere = IMC.from_pretrained(default_bundle, threads=2, upstream="http://127.0.0.1:9/v1")
    assert workers_of(elsewhere) == [elsewhere], "another server is asked one question after the other"


def test_a_model_that_hands_on_to_another_is_not_replaced_by_it(default_bundle):
    class Around:
        def __getattr__(self, name):
            return getattr(inner, name)

    inner = OrtMLLM(default_bundle, threads=2)
    around = Around()
    assert around.sessions is inner.sessions and replicas(around) == [around]
    assert beside(IMC(around, None)) is None


def test_what_is_made_side_by_side_comes_in_order():
    """A worker does one thing at a time, several work at once, and no more is taken than is needed."""
    taken, busy, most = [], set(), 0
    met = threading.Barrier(2, timeout=60)

    def items():
        for number in range(8):
            taken.append(number)
            yield number

    def work(worker: str, number: int) -> int:
        nonlocal most
        assert worker not in busy
        busy.add(worker)
        most = max(most, len(busy))
        met.wait()  # passed only where both work
        time.sleep(0.02 * (number % 2))
        busy.remove(worker)
        return number * number

    made = in_order(["a", "b"], work, items())
    assert next(made) == 0 and taken == [0, 1, 2, 3, 4]
    assert list(made) == [1, 4, 9, 16, 25, 36, 49] and most == 2
    assert list(in_order(["a"], lambda worker, item: (worker, item), [1, 2])) == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_more_is_begun_behind_an_error(workers):
    begun = []

    def work(worker: int, number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ImcError("the second")
        time.sleep(0.05)
        return number

    made = in_order(range(workers), work, range(50))
    assert next(made) == 0
    with pytest.raises(ImcError, match="the second"):
        list(made)
    time.sleep(0.2)
    assert len(begun) < 8


def test_a_batch_on_two_threads_writes_the_same_bytes(default_bundle, tmp_path):
    rows = [{"image": path.name, "question": question} for path in IMAGES[:3] for question in QUESTIONS]
    rows[1:1] = [{"image": "gone.jpg", "question": "Is it?"}, {"image": IMAGES[0].name, "questions": list(QUESTIONS)}]
    for path in IMAGES[:3]:
        shutil.copy(path, tmp_path)
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = []
    for threads in (1, 2):
        out = tmp_path / f"{threads}.jsonl"
        imc = opened(default_bundle, threads)
        run_batch(in_process(lambda imc=imc: imc), tmp_path / "cases.jsonl", out, Plan(tmp_path, timings=False), dict)
        written.append(out.read_text())
    assert written[0].count("\n") == len(rows) and written[0].count('"error"') == 1
    assert written[1] == written[0]


@pytest.mark.slow
def test_a_benchmark_on_two_threads_ends_with_the_same_files(default_bundle, tmp_path):
    options = Options(noises=("impulse", "typo"), severities=(4,), limit=1, questions=1)
    cases = [case for case in quick_cases() if case.source in ("vqa_rad", "bccd", "nih_cxr")]
    for threads in (1, 2):
        run_benchmark(opened(default_bundle, threads), cases, options, tmp_path / str(threads))
    for name in ("results.json", "table.md", "report.html"):
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name


def test_a_condition_that_fails_ends_the_others_and_says_why(default_bundle, tmp_path):
    """What was judged before is kept, and the error is that of the condition that failed."""

    def fails(picture, severity, seed):
        raise ValueError("no such film")

    theirs = (Generator("theirs", fails, "0"),)
    options = Options(noises=("theirs", "impulse"), severities=(4,), limit=1, questions=1, generators=theirs)
    cases = [case for case in quick_cases() if case.source in ("vqa_rad", "bccd", "nih_cxr")]
    with pytest.raises(ImcError, match=r"the noise theirs failed at severity 4 .*no such film"):
        run_benchmark(opened(default_bundle, 2), cases, options, tmp_path)
    kept = {path.stem for path in (tmp_path / "parts").iterdir()}
    assert "clean" in kept and "theirs-4" not in kept and not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_a_benchmark_on_two_threads_is_ended_by_an_interrupt(default_bundle, tmp_path):
    command = [sys.executable, "-m", "imc_lite", "bench", "--limit", "1", "--threads", "2", "-o", str(tmp_path / "out")]
    # A shell that runs the tests in the background has its children ignore interrupts.
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=default) as process:
        while "clean done" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) != 0
    assert "Traceback" not in rest and not (tmp_path / "out" / "results.json").exists()
