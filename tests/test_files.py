"""Outputs appear whole or not at all, wherever they are sent."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from imc_lite import ImcError
from imc_lite.errors import shown
from imc_lite.files import check_output, is_stream, locked, write_atomically

NOISE = [sys.executable, "-m", "imc_lite", "noise", "--kind", "gaussian", "--severity", "2", "-o"]


def put(path, data: bytes = b"new") -> None:
    write_atomically(path, lambda file: file.write(data))


def test_a_symbolic_link_stays_and_leads_to_the_new_content(tmp_path):
    (tmp_path / "far").mkdir()
    target, link, second = tmp_path / "far" / "target", tmp_path / "link", tmp_path / "second"
    target.write_bytes(b"old")
    link.symlink_to("far/target")
    second.symlink_to(link)
    put(second)
    assert link.is_symlink() and second.is_symlink() and target.read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "far").iterdir()] == ["target"]
    target.unlink()
    put(link)  # it leads to nothing yet
    assert link.is_symlink() and target.read_bytes() == b"new"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ImcError, match="cannot write"):
        put(loop)


def test_a_new_file_has_the_umask_and_an_old_one_keeps_its_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        put(tmp_path / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new").chmod(0o600)
    put(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_the_umask_is_the_same_in_every_thread_meanwhile(tmp_path):
    """It belongs to the process: whoever sets it for a moment spoils what other threads write then."""
    before, stop, seen = os.umask(0o077), threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            path = tmp_path / "other"
            path.touch()
            seen.add(path.stat().st_mode & 0o777)
            path.unlink()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(300):
            put(tmp_path / "out")
    finally:
        stop.set()
        thread.join()
        os.umask(before)
    assert seen == {0o600}


def test_a_folder_and_a_missing_folder(tmp_path):
    (tmp_path / "kept").mkdir()
    for path, why in ((tmp_path / "kept", "Is a directory"), (tmp_path / "no" / "x", "No such file")):
        with pytest.raises(ImcError, match=f"cannot write .*{why}"):
            put(path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.slow
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    """Building prototypes takes long: as the pictures are looked for afterwards, their folder need not be there."""
    (tmp_path / "file").write_bytes(b"kept")
    build = [sys.executable, "-m", "imc_lite", "prototypes", "build", "--images", tmp_path / "gone", "-o"]
    for name, why in (
        ("", "Is a directory"),
        ("no/x", "No such file"),
        ("file/x", "Not a directory"),
        ("x" * 300, "name too long"),
    ):
        done = subprocess.run([*build, tmp_path / name], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "cannot write" in done.stderr and why in done.stderr
    check_output(tmp_path / "file")
    check_output(tmp_path / "new")
    check_output(Path("/dev/stdout"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_was_given_to_read_is_not_written_over(tmp_path):
    (tmp_path / "cases").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "cases")
    for name in ("cases", "link", "./cases"):
        with pytest.raises(ImcError, match="is both input and output; choose another output file"):
            check_output(tmp_path / name, None, tmp_path / "gone", tmp_path / "cases")
    check_output(tmp_path / "other", tmp_path / "cases")
    check_output(Path("/dev/stdout"), Path("/dev/stdout"))
    command = [sys.executable, "-m", "imc_lite"]
    for line in (
        ("calibrate", "--cases", tmp_path / "cases", "-o", tmp_path / "cases"),
        ("inspect", tmp_path, "--baseline", tmp_path / "cases", "--report", tmp_path / "cases"),
    ):
        done = subprocess.run([*command, *line], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "both input and output" in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "cases").read_text() == "{}"


def test_names_of_every_length_that_the_disk_takes(tmp_path):
    put(tmp_path / ("x" * 255))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]
    with pytest.raises(ImcError, match="File name too long") as caught:
        put(tmp_path / ("x" * 300))
    assert len(str(caught.value)) < 200


def test_a_file_that_may_not_be_written_stays():
    """Its folder may be: renaming would replace it."""
    code = "import os; from pathlib import Path; from imc_lite import ImcError\n"
    code += "from imc_lite.files import write_atomically\n"
    code += "if os.geteuid() == 0: os.setuid(65534)\n"
    code += "try: write_atomically(Path('x'), lambda file: file.write(b'new'))\n"
    code += "except ImcError as error: print(error)"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = Path(folder) / "x"
        path.write_bytes(b"old")
        path.chmod(0o444)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
        assert "cannot write x (Permission denied)" in done.stdout
        assert path.read_bytes() == b"old" and os.listdir(folder) == ["x"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fails(file) -> None:
        file.write(b"half")
        raise KeyError("x")

    with pytest.raises(KeyError):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(chest, tmp_path):
    """A limit on the size of files stands for the disk."""
    out = tmp_path / "noisy.png"
    out.write_bytes(b"old")

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run([*NOISE, out, chest], capture_output=True, text=True, preexec_fn=small, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot write" in done.stderr
    assert out.read_bytes() == b"old" and list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_devices_and_pipes_are_sent_the_content(chest, tmp_path):
    out = tmp_path / "noisy.png"
    subprocess.run([*NOISE, out, chest], check=True)
    picture = out.read_bytes()
    assert subprocess.run([*NOISE, "/dev/stdout", chest], capture_output=True, check=True).stdout == picture
    assert subprocess.run([*NOISE, "/dev/null", chest], capture_output=True, check=True).stdout == b""
    assert is_stream(os.devnull)
    done = subprocess.run([*NOISE, "/dev/full", chest], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left on device" in done.stderr
    log = tmp_path / "log"
    log.write_bytes(b"before")
    with open(log, "ab") as file:  # >>
        subprocess.run([*NOISE, "/dev/stdout", chest], stdout=file, check=True)
    assert log.read_bytes() == b"before" + picture


def test_a_device_node_stays_one(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | 0o020000, os.makedev(1, 3))
        put(null)
    except PermissionError:
        pytest.skip("only root makes device nodes")
    assert null.is_char_device() and list(tmp_path.iterdir()) == [null]


def test_a_lock_file_keeps_others_out_and_goes(tmp_path):
    path, order = tmp_path / "lock", []

    def second() -> None:
        with locked(path):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and list(tmp_path.iterdir()) == []


def test_many_take_turns(tmp_path):
    """Each adds one to a number that it reads first; none is lost though the lock file comes and goes."""
    code = "import sys; from pathlib import Path; from imc_lite.files import locked\n"
    code += "for _ in range(50):\n with locked(Path('lock')):\n"
    code += "  n = Path('n'); n.write_text(str(int(n.read_text()) + 1))"
    (tmp_path / "n").write_text("0")
    jobs = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    assert (tmp_path / "n").read_text() == "200"


def test_what_a_user_gave_is_shown_short_and_printable():
    assert shown("/a/b") == "/a/b"
    long = shown("a" * 100 + "z")
    assert len(long) == 80 and long.startswith("aaa") and long.endswith("az") and "…" in long
    assert shown("\x1b[31m\nx\ud800") == "\ufffd[31m\ufffdx\ufffd"
