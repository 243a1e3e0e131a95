"""`imc-lite doctor`: a whole installation is called whole, and each thing that is broken is found and named."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from imc_lite.bundle.manifest import write_manifest
from imc_lite.bundle.store import default_bundle_folder
from imc_lite.doctor.hardware import driver_version, oldest_driver
from imc_lite.doctor.machine import _left_of_limit, free_disk
from imc_lite.doctor.model import check_cache, check_model
from imc_lite.doctor.pictures import check_pictures
from imc_lite.doctor.runtime import check_onnxruntime

CHECKOUT = Path(__file__).parent.parent


def run(code: str, *args: str) -> subprocess.CompletedProcess:
    """The command after some code, in a process of its own."""
    command = [sys.executable, "-c", f"{code}; from imc_lite.cli.main import main; main()", "doctor", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_whole_installation(default_bundle, documented_fields):
    pytest.importorskip("gdcm")
    at_exit = "import atexit, sys; atexit.register(lambda: print(*sorted({'torch', 'ray'} & set(sys.modules))))"
    done = run(at_exit, "--json")
    assert done.returncode == 0 and done.stderr == ""
    text, loaded = done.stdout.splitlines()
    found = json.loads(text)
    assert found["ok"] and loaded == ""  # nothing heavy was imported without --deep
    names = [check["name"] for check in found["checks"]]
    order = "python packages extras cpu memory gpu onnxruntime providers pictures decoder dicom cache model answer"
    assert names == order.split()
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert all(states[name] == "ok" for name in ("onnxruntime", "pictures", "decoder", "dicom", "model", "answer"))
    assert str(Path.home()) not in text and str(default_bundle.parent) not in text
    fields = {f"checks[].{key}" for check in found["checks"] for key in check} | set(found) - {"checks"}
    assert fields == documented_fields["doctor"]


def test_what_is_broken_does_not_hide_the_rest(tmp_path):
    done = run("import os, sys; sys.modules['PIL'] = None; os.environ['IMC_LITE_CACHE'] = " + repr(str(tmp_path)))
    assert done.returncode == 2 and done.stderr == ""
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    states = {name: state for state, name, *_ in rows}
    assert states["pictures"] == states["model"] == "problem"
    assert states["python"] == states["onnxruntime"] == "ok"
    assert all(len(row) == 4 for row in rows if row[0] == "problem")  # each says what to do


def test_a_decoder_that_does_not_start():
    pytest.importorskip("gdcm")
    code = "import sys; sys.executable = '/nowhere/python'; from imc_lite.doctor.pictures import check_dicom; "
    code += "print([(c.name, c.state, c.detail) for c in check_dicom()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name: (state, detail) for name, state, detail in eval(done.stdout)}
    assert found["decoder"][0] == "problem" and found["dicom"][0] == "problem"
    assert "JPEG-LS" in found["dicom"][1] and found["dicom"][1].endswith("RLE can")


def test_pictures_and_runtime_here():
    assert [check.state for check in check_pictures()] == ["ok"]
    assert {check.state for check in check_onnxruntime()} <= {"ok", "warning"}


# Packages


def installation(folder: Path, **versions: str) -> Path:
    """A folder in which these packages are installed, as far as their metadata say, and imc-lite and `packaging`."""
    import packaging

    shutil.copytree(Path(packaging.__file__).parent, folder / "packaging")
    ours = folder / "imc_lite-0.2.0.dist-info"
    ours.mkdir()
    known = metadata.distribution("imc-lite")
    lines = ["Metadata-Version: 2.4", "Name: imc-lite", "Version: 0.2.0"]
    lines += [f"Requires-Dist: {asked}" for asked in known.requires or ()]
    lines += [f"Provides-Extra: {extra}" for extra in known.metadata.get_all("Provides-Extra")]
    (ours / "METADATA").write_text("\n".join(lines) + "\n")
    for name, number in versions.items():
        info = folder / f"{name}-{number}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {number}\n")
    return folder


def checked(folder: Path, function: str) -> list[tuple[str, str, str]]:
    """State, detail and remedy of each finding there."""
    path = f"[{str(folder)!r}, {str(CHECKOUT)!r}, *(p for p in sys.path if 'site-' not in p)]"
    code = f"import sys; sys.path[:] = {path}; "
    code += f"from imc_lite.doctor.packages import {function} as check; found = check(); "
    code += "found = found if isinstance(found, list) else [found]; "
    code += "print([(c.state, c.detail, c.remedy) for c in found])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


NEEDED = {"numpy": "2.0", "pillow": "11.0", "tokenizers": "0.21", "click": "8.2", "safetensors": "0.5", "tqdm": "4.67"}


def test_versions_and_what_is_missing(tmp_path):
    whole = installation(tmp_path / "whole", **NEEDED, gguf="0.17", packaging="26.0", torch="2.9")
    assert [state for state, *_ in checked(whole, "check_packages")] == ["ok"]
    broken = installation(tmp_path / "broken", **NEEDED | {"numpy": "1.20"}, packaging="26.0", transformers="4.40")
    found = checked(broken, "check_packages")
    assert ("problem", "gguf is not installed", "pip install imc-lite") in found
    assert ("problem", "numpy 1.20 is installed, >=1.26 is needed", "pip install 'numpy>=1.26'") in found
    assert [state for state, detail, _ in found if "transformers 4.40" in detail] == ["warning"]
    assert len(found) == 3


def test_extras_that_are_half_installed(tmp_path):
    half = installation(tmp_path / "half", fastapi="0.120", prometheus_client="0.22", pydicom="3.0.1")
    assert checked(half, "check_extras") == [
        (
            "warning",
            "[dicom] is half installed: pydicom is there, python-gdcm not",
            "pip install 'imc-lite[dicom]'",
        ),
        ("warning", "[serve] is half installed: fastapi is there, uvicorn not", "pip install 'imc-lite[serve]'"),
    ]
    none = installation(tmp_path / "none")
    assert checked(none, "check_extras") == [("ok", "whole: none is installed", "")]


def test_two_runtimes_break_each_other(tmp_path):
    one = installation(tmp_path / "one", onnxruntime="1.25.0")
    assert checked(one, "check_runtimes") == [("ok", "onnxruntime 1.25.0", "")]
    both = installation(tmp_path / "both", onnxruntime="1.25.0", onnxruntime_gpu="1.25.0")
    none = installation(tmp_path / "none")
    assert [checked(folder, "check_runtimes")[0][0] for folder in (both, none)] == ["problem", "problem"]


# Cache and model


def test_a_model_that_was_changed_is_named_without_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path))
    folder = default_bundle_folder()  # a small bundle in the place of the default one, nothing of which is shared
    folder.mkdir()
    for name in ("config.json", "encoder.onnx", "encoder.bin", "projector.onnx", "tokenizer.json"):
        (folder / name).write_text(f"this is {name}")
    write_manifest(folder, {"id": "default", "version": "1"})
    (folder / "tokenizer.json").write_text("that is tokenizer.json")
    (folder / "projector.onnx").unlink()
    (found,) = check_model()
    assert (found.name, found.state) == ("model", "problem") and "imc-lite pull" in found.remedy
    assert found.detail.endswith("projector.onnx, tokenizer.json") and str(tmp_path) not in str(found)
    (folder / "manifest.json").write_text("{}")
    assert [(c.state, "manifest" in c.detail) for c in check_model()] == [("problem", True)]


def test_a_fresh_installation_has_no_problem_and_is_told_what_comes(tmp_path, monkeypatch):
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path / "new"))
    (found,) = check_model()
    assert found.state == "warning" and "imc-lite pull" in found.remedy
    assert [check.state for check in check_cache()] == ["ok"]
    assert not (tmp_path / "new").exists()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("IMC_LITE_CACHE", str(folder))
        (found,) = check_cache()
        assert found.state == "problem" and "IMC_LITE_CACHE" in found.remedy and str(tmp_path) not in str(found)


def test_a_cache_that_holds_the_model_need_not_be_writable(default_bundle, tmp_path):
    """As on a host whose folders are mounted to be read only. Root is kept from writing by losing a capability."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / default_bundle.name).symlink_to(default_bundle)
    (tmp_path / "cache").chmod(0o555)
    code = "from imc_lite.doctor.model import check_cache; print(*(check.state for check in check_cache()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "IMC_LITE_CACHE": str(tmp_path / "cache")},
        preexec_fn=lambda: ctypes.CDLL(None).prctl(24, 1, 0, 0, 0),  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr
    (tmp_path / "cache").chmod(0o755)


# Machine


def test_a_containers_limit_counts(tmp_path):
    group = ("max", "current", "stat", "inactive_file")
    assert _left_of_limit(tmp_path, *group) is None
    for name, text in (("max", "1000\n"), ("current", "900\n"), ("stat", "anon 700\ninactive_file 150\n")):
        (tmp_path / name).write_text(text)
    assert _left_of_limit(tmp_path, *group) == 250  # files that were read and can be dropped do not count
    (tmp_path / "max").write_text("max\n")
    assert _left_of_limit(tmp_path, *group) is None


def test_room_is_that_of_the_nearest_folder(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert abs(free_disk(tmp_path / "not" / "there") - free) < 1 << 28


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021", (470, 57, 2)),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", (580, 65, 6)),
        ("nothing of the kind", None),
    ],
)
def test_the_drivers_version(line, expected, tmp_path):
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.2.0\n")
    assert driver_version(tmp_path / "version") == expected
    assert driver_version(tmp_path / "none") is None


def test_a_driver_that_is_too_old_for_torch():
    assert (470, 57, 2) < oldest_driver("12.8") <= (525, 60, 13) < oldest_driver("13.0")
    assert oldest_driver("99.1") is None


@pytest.mark.slow
def test_the_kernels_that_deep_runs():
    pytest.importorskip("triton")
    from imc_lite.doctor.runtime import run_kernels

    assert run_kernels("cpu")
