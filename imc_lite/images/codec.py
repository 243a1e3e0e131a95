"""Compressed pixel data decoded in a process of its own, which is started at first need and kept.

What runs there are C and C++ libraries that read whatever a file holds. A crash, a hang or a demand for all memory is
one error here. The process gets none of the environment but what it needs to start, and ends with this one.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from imc_lite.images.codec_process import read_message, write_message

START_SECONDS = 60.0  # for a machine that is very busy
SECONDS = 4.0  # for a frame, and one more for a million samples
KEPT_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class DecodingError(Exception):
    """Samples did not come back; the text says why, as what the pixel data "are" or "do"."""


def decode(
    code: bytes,
    *,
    syntax: str,
    photometric: str,
    rows: int,
    columns: int,
    samples: int,
    bits: int,
    signed: bool,
) -> np.ndarray:
    """Decode one frame of JPEG, JPEG-LS or JPEG 2000, colours as the stream has them.

    Safe to call from several threads; they take turns.

    Args:
        code: the stream.
        syntax: its transfer syntax UID.
        photometric: PhotometricInterpretation.
        rows, columns, samples: as the stream itself says.
        bits: of a sample, as the stream itself says, 32 at most.
        signed: whether the samples are in two's complement.

    Returns:
        Integers [H, W], or [H, W, C] where `samples` is above 1.

    Raises:
        DecodingError: no installed decoder reads it, or the decoder crashed or took too long.
    """
    seconds = SECONDS + rows * columns * samples / 1e6
    header = {
        **{"syntax": syntax, "photometric": photometric, "rows": rows, "columns": columns, "samples": samples},
        **{"bits": bits, "signed": signed, "seconds": seconds, "length": len(code)},
    }
    count = rows * columns * samples
    found, body = _process.ask(header, code, seconds, most=4 * count)
    container = found.get("container")
    if found.get("error") or container not in (8, 16, 32) or len(body) * 8 != count * container:
        raise DecodingError("are damaged or that no installed decoder reads")
    values = np.frombuffer(body, f"<{'i' if signed else 'u'}{container // 8}")
    return values.reshape((rows, columns) if samples == 1 else (rows, columns, samples))


class _Process:
    """The one child of this process, under a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, header: dict[str, Any], code: bytes, seconds: float, most: int) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            try:
                reply, late = _converse(self._started(), (header, code), seconds, most)
            except BaseException:  # Ctrl-C in the middle of a message: the next one would get its reply
                self.stop()
                raise
            if reply is None or late:
                self.stop()
        if reply is None:
            raise DecodingError(f"take over {seconds:.0f} s to decode" if late else "make the decoder fail")
        return reply

    def stop(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()  # closes its pipes and waits for it

    def forget(self) -> None:
        """In a fork of this process the child is the other's: leave it alone, and close its pipes here."""
        child, self._child, self._lock = self._child, None, threading.Lock()
        if child is not None:
            for pipe in (child.stdin, child.stdout):
                pipe and pipe.close()
            child.returncode = 0  # so that nobody here waits for it

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.stop()
        try:
            self._child = _start()
        except OSError:
            raise DecodingError("need a decoder process, which cannot be started,") from None
        ready, late = _converse(self._child, None, START_SECONDS, most=0)
        if ready is None or late:
            self.stop()
            raise DecodingError("need a decoder process, which does not start,")
        return self._child


def _start() -> subprocess.Popen[bytes]:
    # Isolated (-I), it imports from where this process does and from nowhere else: no folder that happens to be
    # the current one. `-m` would look there first.
    where = [os.path.abspath(path) for path in sys.path]
    program = f"import sys; sys.path[:] = {where!r}; from imc_lite.images.codec_process import main; main()"
    variables = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-c", program],
        bufsize=0,  # so that no byte waits in a buffer that a fork would copy
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def _converse(
    child: subprocess.Popen[bytes], request: tuple[dict[str, Any], bytes] | None, seconds: float, most: int
) -> tuple[tuple[dict[str, Any], bytes] | None, bool]:
    """The reply, None where the child died first; and whether its time ran out, upon which it is killed."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        child.kill()

    assert child.stdin is not None and child.stdout is not None
    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        if request is not None:
            write_message(child.stdin, *request)
        reply = read_message(child.stdout, most)
    except OSError:  # it died while it was written to
        reply = None
    finally:
        timer.cancel()
        timer.join()
    return reply, late.is_set()


_process = _Process()
atexit.register(_process.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget)
