"""A bundle carried elsewhere: whole, self-contained, checked, and nothing of the user's overwritten."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from imc_lite import ImcError
from imc_lite.bundle.copy import copy_bundle
from imc_lite.bundle.store import Bundle

QUESTION = "What modality is this?"


def run(*args, **env) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "imc_lite", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)


@pytest.fixture(scope="module")
def exported(default_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "model"
    done = run("export", "default", "-o", folder)
    assert done.returncode == 0 and done.stdout == f"{folder}\n" and done.stderr == ""
    return folder


def test_the_copy_is_the_bundle_and_nothing_else_is_left(exported, default_bundle):
    assert sorted(p.name for p in exported.iterdir()) == sorted(p.name for p in default_bundle.iterdir())
    assert Bundle(exported).manifest == Bundle(default_bundle).manifest
    assert [p.name for p in exported.parent.iterdir()] == [exported.name]


@pytest.mark.slow
def test_it_answers_without_cache_network_or_torch(exported, chest, tmp_path):
    """As on a host that has nothing but the package, onnxruntime and this folder."""
    empty = {"IMC_LITE_CACHE": str(tmp_path / "none"), "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}
    there = run("answer", chest, QUESTION, "--model", exported, "--offline", "--json", **empty)
    here = run("answer", chest, QUESTION, "--json")
    a, b = json.loads(there.stdout), json.loads(here.stdout)
    assert {k: a[k] for k in ("answer", "confidence", "image", "model")} == {
        k: b[k] for k in ("answer", "confidence", "image", "model")
    }
    assert not (tmp_path / "none").exists()
    code = (
        "import sys; from imc_lite import IMC\n"
        f"IMC.from_pretrained({str(exported)!r}, offline=True).answer({str(chest)!r}, {QUESTION!r})\n"
        "print(sorted({'torch', 'transformers', 'onnx', 'gguf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_verify_and_info(exported, tmp_path):
    done = run("bundle", "verify", exported)
    assert done.returncode == 0 and "whole" in done.stdout
    lines = run("bundle", "info", exported).stdout.splitlines()
    assert "id\tdefault" in lines and any(line.startswith("file\tencoder.onnx\t") for line in lines)
    assert json.loads(run("bundle", "info", exported, "--json").stdout)["id"] == "default"
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    (broken / "config.json").write_text("{}")
    (broken / "tokenizer.json").unlink()
    done = run("bundle", "verify", broken)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 2
    assert "config.json was changed" in done.stderr and "tokenizer.json is missing" in done.stderr
    for verb in ("verify", "info"):
        done = run("bundle", verb, tmp_path)
        assert done.returncode == 2 and "not a bundle" in done.stderr and done.stderr.count("\n") == 1
    with pytest.raises(ImcError, match=r"config\.json was changed"):
        copy_bundle(broken, tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_what_is_there_is_never_overwritten(default_bundle, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for destination, why in ((kept, "there already"), (tmp_path / "no" / "where", "cannot write")):
        with pytest.raises(ImcError, match=why):
            copy_bundle(default_bundle, destination)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"] and not list(kept.iterdir())
    done = run("export", "gpt", "-o", tmp_path / "x")
    assert done.returncode == 2 and "no model 'gpt'" in done.stderr and done.stderr.count("\n") == 1
