"""What is not installed is named with what brings it; a module of our own that is lost is never taken for that."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imc_lite.errors import ImcError, missing

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'imc_lite.gone'", name="imc_lite.gone"),
        ModuleNotFoundError("No module named 'imc_lite'", name="imc_lite"),
        ImportError("libcudart.so.12: cannot open shared object file", name="onnxruntime"),
        ModuleNotFoundError("raised by hand, without a name"),
    ],
    ids=str,
)
def test_what_no_installation_mends_is_raised_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        missing(error, "imc-lite[serve]")
    assert caught.value is error


def test_a_missing_package_is_named_with_what_brings_it():
    found = missing(ModuleNotFoundError("No module named 'uvicorn.config'", name="uvicorn.config"), "imc-lite[serve]")
    assert isinstance(found, ImcError) and str(found) == "uvicorn is not installed; install imc-lite[serve]"


def run_without(module: str, *args) -> subprocess.CompletedProcess:
    """The command where a module cannot be imported."""
    code = f"import sys; sys.modules[{module!r}] = None; from imc_lite.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)


INT8 = ("export", "default", "--precision", "int8", "-o", "out")
CHECKPOINT = ("export", "organisation/name", "-o", "out", "--offline")
ANSWER = ("answer", str(CHECKOUT / "tests/images/synpic28602.jpg"), "Is it?", "-m", "organisation/name", "--offline")


@pytest.mark.parametrize(
    ("module", "command", "line"),
    [
        ("onnx", INT8, "onnx is not installed; install imc-lite[cpu] and onnx"),
        pytest.param("onnx", CHECKPOINT, "onnx is not installed; install imc-lite[cpu,export]", marks=pytest.mark.slow),
        ("torch", ANSWER, "torch is not installed; install imc-lite[gpu] or imc-lite[cpu,export]"),
        ("uvicorn", ("serve",), "uvicorn is not installed; install imc-lite[serve]"),
    ],
)
def test_a_command_names_the_package(module, command, line, default_bundle, tmp_path):
    done = run_without(module, *command)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"{line}\n")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("imc_lite.bench.data", INT8),
        pytest.param("imc_lite.export.parity", CHECKPOINT, marks=pytest.mark.slow),
        pytest.param("imc_lite.models.hf.parts", ANSWER, marks=pytest.mark.slow),
        ("imc_lite.server.pool", ("serve",)),
    ],
)
def test_a_module_of_our_own_is_not_to_be_installed(module, command, default_bundle):
    done = run_without(module, *command)
    assert done.returncode == 1 and done.stderr.startswith("imc-lite: unexpected ModuleNotFoundError")
    assert module in done.stderr and "install" not in done.stderr


def test_a_checkout_that_is_not_installed_exports(default_bundle, tmp_path):
    """With what it needs on the path, but without the files that an installation makes Python read."""
    packages = str(Path(np.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": packages}

    def export(source, precision, output):
        command = [sys.executable, "-S", CHECKOUT / "cli.py", "export", source, "--precision", precision, "-o", output]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)

    lost = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import imc_lite.export"]
    bare = subprocess.run(lost, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert "No module named 'imc_lite.export'" in bare.stderr, "this is no checkout without an installation"
    (tmp_path / "there").mkdir()
    done = export(default_bundle, "int8", tmp_path / "there")
    assert done.returncode == 2 and "is there already" in done.stderr, done.stderr
    done = export(default_bundle, "fp32", tmp_path / "copy")
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'copy'}\n", done.stderr
