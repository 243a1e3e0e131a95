"""The kernels compile for a real GPU (sm_90) without spilling registers; no GPU is needed for that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from compile_kernels import case
from imc_lite.kernels.registry import kernels


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton ships its assembler for Linux alone")
def test_kernels_compile_for_sm_90_without_spills():
    # A process of its own: the interpreter, once chosen, replaces the compiler.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compile_kernels.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in found] == [case(k, dtype, shape) for k in kernels() for dtype, shape in k.compiled]
    for name, registers, stack, shared in found:
        assert int(stack) == 0, f"{name} spills"
        assert int(registers) <= 255
        assert int(shared) <= 227 * 1024, f"{name} asks for more shared memory than sm_90 has"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_bench_smoke_run_checks_times_and_writes(tmp_path):
    pytest.importorskip("transformers")
    rows = tmp_path / "rows.csv"
    command = [sys.executable, "-m", "imc_lite.kernels.bench", "--device", "cpu", "-o", rows]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = rows.read_text().splitlines()
    assert len(lines) == 1 + 1 + 3 + 3 + 1
    assert {line.split(",")[3] for line in lines[1:]} == {"copy", "match", "calibrate", "tower"}
