"""`imc-lite env`: what a bug report needs, without a word about who reports it."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

import imc_lite
from imc_lite.bundle.store import default_bundle_folder
from imc_lite.cli.env import env

HEAVY = {"torch", "transformers", "triton", "onnxruntime", "ray", "fastapi", "pydicom"}


def report(*arguments: str) -> str:
    done = CliRunner().invoke(env, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_versions_processor_and_memory():
    found = json.loads(report("--json"))
    assert found["imc_lite"] == imc_lite.__version__ == metadata.version("imc-lite")
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["cpu"]["cores"] >= 1 and isinstance(found["cpu"]["avx2"], bool)
    assert found["memory_mib"]["total"] >= found["memory_mib"]["available"] > 0
    assert "cpu" in found["onnxruntime_providers"]
    printed = report()
    assert [line.split(":")[0] for line in printed.splitlines()] == list(found)


def test_values_of_variables_and_folders_of_the_user_stay_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "somebody"))
    monkeypatch.setenv("IMC_LITE_API_KEY", "very-secret")
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path / "elsewhere"))
    for printed in (report(), report("--json")):
        assert "IMC_LITE_API_KEY" in printed
        assert not [word for word in ("very-secret", "somebody", "elsewhere", str(tmp_path)) if word in printed]
    monkeypatch.delenv("IMC_LITE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert json.loads(report("--json"))["cache"] == {"folder": "~/.cache/imc-lite", "default_model": "not built yet"}


@pytest.mark.parametrize("damage", ["missing", "cut", "no manifest"])
def test_a_model_that_is_not_whole_is_said(monkeypatch, tmp_path, default_bundle, damage):
    assert json.loads(report("--json"))["cache"]["default_model"].endswith(" files, all of their size")
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path))
    folder = default_bundle_folder()
    shutil.copytree(default_bundle, folder, copy_function=lambda a, b: Path(b).symlink_to(a))
    broken = folder / ("manifest.json" if damage == "no manifest" else "tokenizer.json")
    broken.unlink()
    if damage == "cut":
        broken.write_bytes(b"{}")
    assert json.loads(report("--json"))["cache"]["default_model"].startswith("broken: ")


def test_nothing_heavy_is_imported():
    code = "from imc_lite.cli.env import describe; import sys; describe(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
