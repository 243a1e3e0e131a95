"""Compressed pixel data are decoded in one child, which is kept, replaced when it dies, and ends with its parent."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imc_lite.images import codec, codec_process
from imc_lite.images.codec import DecodingError

pytest.importorskip("gdcm", reason="JPEG, JPEG-LS and JPEG 2000 are read with imc-lite[dicom]")

HOSTILE = Path(__file__).parent / "hostile"
STREAM = {"syntax": "1.2.840.10008.1.2.4.90", "photometric": "MONOCHROME2", "samples": 1, "bits": 8, "signed": False}


def stream(side: int = 32) -> tuple[bytes, np.ndarray]:
    """A lossless JPEG 2000 stream, and what is in it."""
    values = np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue(), values


def decoded(code: bytes, side: int = 32) -> np.ndarray:
    return codec.decode(code, rows=side, columns=side, **STREAM)


def child() -> int:
    assert codec._process._child is not None
    return codec._process._child.pid


def alive(process: int) -> bool:
    """Running, and not merely dead and not yet waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(process: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(process)


def aborting() -> bytes:
    """A stream of 283 bytes, found by chance, upon which GDCM 3.2.6 ends the process that it is in."""
    return (HOSTILE / "decoder_abort.jpg").read_bytes()


def abort() -> None:
    codec.decode(
        aborting(),
        **{"syntax": "1.2.840.10008.1.2.4.50", "photometric": "RGB", "rows": 3, "columns": 3, "samples": 3},
        bits=8,
        signed=False,
    )


def test_one_child_is_kept():
    code, values = stream()
    assert (decoded(code) == values).all()
    first = child()
    assert (decoded(code) == values).all() and child() == first != os.getpid()


def test_a_crash_is_an_error_and_the_next_stream_is_decoded():
    code, values = stream()
    with pytest.raises(DecodingError, match=r"make the decoder fail|are damaged"):
        abort()
    assert (decoded(code) == values).all()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are POSIX")
def test_a_child_that_was_killed_is_replaced():
    code, values = stream()
    decoded(code)
    first = child()
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert (decoded(code) == values).all() and child() != first


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are POSIX")
def test_a_child_killed_at_work_is_an_error():
    code, _ = stream(1500)
    decoded(stream()[0])
    killer = threading.Timer(0.02, os.kill, (child(), signal.SIGKILL))
    killer.start()
    with pytest.raises(DecodingError, match="make the decoder fail"):
        decoded(code, 1500)
    killer.join()


def test_a_child_that_takes_too_long_is_stopped(monkeypatch):
    code, _ = stream(1500)
    decoded(stream()[0])
    first = child()
    monkeypatch.setattr(codec, "SECONDS", -2.2)  # 50 ms for a picture that takes more
    with pytest.raises(DecodingError, match="take over 0 s to decode"):
        decoded(code, 1500)
    assert gone(first)


def test_a_size_that_memory_cannot_hold_is_an_error():
    """A stream that says more than it is asked for: the child's memory is limited by what it is asked for."""
    code, values = stream()
    larger = code[:8] + (20_000).to_bytes(4, "big") * 2 + code[16:]
    with pytest.raises(DecodingError):
        decoded(larger)
    assert (decoded(code) == values).all()


@pytest.mark.slow
def test_threads_take_turns():
    codes = [stream(side) for side in range(20, 44)]
    wrong = []

    def work(part: int) -> None:
        for code, values in codes[part::4] * 3:
            if part == 3:
                with pytest.raises(DecodingError):
                    abort()
            if not (decoded(code, len(values)) == values).all():
                wrong.append(len(values))

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="environments are read from /proc")
def test_the_child_gets_no_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-4711")
    monkeypatch.setenv("IMC_LITE_API_KEY", "secret-4711")
    codec._process.stop()
    decoded(stream()[0])
    variables = Path(f"/proc/{child()}/environ").read_bytes()
    assert b"secret" not in variables and b"TOKEN" not in variables
    opened = [os.readlink(p) for p in Path(f"/proc/{child()}/fd").iterdir()]
    assert all(name.startswith("pipe:") or name == os.devnull for name in opened), opened


PROGRAM = """
    import sys, os, signal
    from imc_lite.images import codec
    data = sys.stdin.buffer.read()
    picture = codec.decode(data, rows=32, columns=32, syntax="1.2.840.10008.1.2.4.90", photometric="MONOCHROME2",
                           samples=1, bits=8, signed=False)
    print(codec._process._child.pid, int(picture.sum()), flush=True)
    {end}
"""


def run(end: str, folder: Path) -> tuple[int, int]:
    """The child of a process that decodes and ends as told, and the sum of what it decoded."""
    program = textwrap.dedent(PROGRAM.format(end=end))
    done = subprocess.run([sys.executable, "-c", program], input=stream()[0], cwd=folder, capture_output=True)
    process, total = done.stdout.split()
    assert done.stderr == b""
    return int(process), int(total)


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_child_ends_with_its_parent(end, tmp_path):
    process, total = run(end, tmp_path)
    assert total == stream()[1].sum() and gone(process)


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
def test_a_child_that_is_busy_ends_too(tmp_path):
    """Its parent killed while it decodes, it ends at the latest when its time is up."""
    code, _ = stream(1500)
    program = """
        import sys, threading, os
        from imc_lite.images import codec
        data = sys.stdin.buffer.read()
        ask = dict(syntax="1.2.840.10008.1.2.4.90", photometric="MONOCHROME2", samples=1, bits=8, signed=False)
        codec._process._started()
        threading.Timer(0.03, os._exit, (9,)).start()
        print(codec._process._child.pid, flush=True)
        codec.decode(data, rows=1500, columns=1500, **ask)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], input=code, capture_output=True)
    assert gone(int(done.stdout))


def test_modules_of_the_current_folder_are_not_run(tmp_path):
    """A folder of pictures may hold files named like modules."""
    for name in ("json", "gdcm", "struct", "numpy", "imc_lite"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('run from the current folder')\n")
    program = textwrap.dedent(PROGRAM.format(end="pass")).replace(
        "import sys, os", "import sys; sys.path.pop(0); import os"
    )
    done = subprocess.run([sys.executable, "-c", program], input=stream()[0], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and int(done.stdout.split()[1]) == stream()[1].sum(), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_has_a_child_of_its_own():
    code, values = stream()
    decoded(code)
    first = child()
    fork = os.fork()
    if fork == 0:
        good = (decoded(code) == values).all() and child() != first and alive(first)
        codec._process.stop()
        os._exit(0 if good else 1)
    assert os.waitpid(fork, 0)[1] == 0
    assert (decoded(code) == values).all() and child() == first


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="limits are read from /proc")
def test_a_picture_is_never_in_a_core_dump():
    decoded(stream()[0])
    (line,) = (row for row in Path(f"/proc/{child()}/limits").read_text().splitlines() if "core file" in row)
    assert line.split()[4:6] == ["0", "0"]


@pytest.mark.parametrize(("mode", "photometric"), [("L", "MONOCHROME2"), ("RGB", "YBR_RCT"), ("I;16", "MONOCHROME2")])
def test_pydicoms_plugins_decode_what_gdcm_does_not(mode, photometric):
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3) if mode == "RGB" else (20, 30))
    values = values.astype(np.uint16 if mode == "I;16" else np.uint8) * (200 if mode == "I;16" else 1)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    header = {"syntax": STREAM["syntax"], "photometric": photometric, "rows": 20, "columns": 30, "signed": False}
    header |= {"samples": 3 if mode == "RGB" else 1, "bits": 16 if mode == "I;16" else 8}
    samples, container = codec_process._decode(None, header, buffer.getvalue())
    assert (np.frombuffer(samples, f"<u{container // 8}").reshape(values.shape) == values).all()
    with pytest.raises(ValueError, match="no decoder"):
        codec_process._decode(None, header, buffer.getvalue()[:100])
