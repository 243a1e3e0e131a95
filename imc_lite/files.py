"""Writing files so that nothing the user had is lost or half-written, and lines of JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from imc_lite.errors import ImcError, shown

if sys.platform != "win32":
    import fcntl

LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` with a binary file whose content takes the place of `path` only when it is complete.

    A symbolic link stays: the file it points to is replaced. A file that is replaced keeps its permissions. A pipe,
    /dev/stdout, /dev/null or another device is sent the content, once it is complete.

    Raises:
        ImcError: the folder is missing, `path` is a folder or may not be written, or the disk is full. What was there
            is then as it was.
    """
    try:
        if is_stream(path):
            _send(path, write)
        else:
            _replace(Path(os.path.realpath(path)), write)
    except BrokenPipeError:
        raise  # the reader has left, which is no fault of the output's name
    except OSError as error:
        raise cannot_write(path, error) from error


def check_output(path: Path, *inputs: Path | None) -> None:
    """Refuse, before work that takes long, what `write_atomically` could not write after it, or what it would replace.

    Args:
        path: to be written.
        inputs: files that are read and stay the user's; None for one that was not given.

    Raises:
        ImcError: the folder is missing or may not be written, `path` is a folder or may not be written, or it is one of
            the inputs.
    """
    check_name(path)
    try:
        if not is_stream(path):
            target = Path(os.path.realpath(path))
            found = _look(target)
            if found is not None and any(_leads_to(found, given) for given in inputs if given is not None):
                raise ImcError(f"{shown(path)} is both input and output; choose another output file")
            if not stat.S_ISDIR(os.stat(target.parent).st_mode):
                raise _os_error(errno.ENOTDIR)
            if not os.access(target.parent, os.W_OK | os.X_OK):
                raise _refused(target.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def check_name(path: Path) -> None:
    """Refuse "-" for an output: as an input it is stdin, and a file of that name is nothing that anybody wants.

    Raises:
        ImcError: it is that.
    """
    if str(path) == "-":
        raise ImcError("- is no name for an output; name a file, or /dev/stdout")


def is_same(path: Path, other: Path) -> bool:
    """Whether two names lead to one file that is there.

    Raises:
        OSError: one of them cannot be looked at.
    """
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def cannot_write(path: Path, error: OSError) -> ImcError:
    """The line that says so."""
    return ImcError(f"cannot write {shown(path)} ({error.strerror or error}); choose another output file")


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a terminal or another device, which cannot be replaced or read again.

    What our own standard output goes to is one too, even if that is a file: /dev/stdout names it.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or _is_stdout(found)


def open_stream(path: Path) -> BinaryIO:
    """Open for writing what `is_stream`.

    Raises:
        OSError: it may not be written.
    """
    # Opening /dev/stdout anew would cut off a file that the shell appends to, and fails where it is a socket.
    same = _is_stdout(os.stat(path))
    return os.fdopen(os.dup(1) if same else os.open(path, os.O_WRONLY), "wb")


def lock(handle: int) -> bool:
    """Take the lock on an open file; False where another process has it. It ends with the handle or the process.

    Some network file systems have no locks, nor has Windows these: there nothing is kept apart.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, after whoever holds it now. It is there only as long as it is held.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_EX)
            if is_at(handle, path):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the one before us removed it: what we hold is no longer there
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def is_at(handle: int, path: Path) -> bool:
    """Whether the file that is open is the one that is at `path` now."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> None:
    before = _look(target)
    temporary = target.with_name(f".imc-lite-{os.urandom(8).hex()}.part")
    # Not `tempfile`: its files are for their owner alone, an output has the permissions that the user's umask gives.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            with contextlib.suppress(OSError):  # some file systems have no permissions
                os.chmod(temporary, stat.S_IMODE(before.st_mode))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _look(target: Path) -> os.stat_result | None:
    """What is there; a file that may not be written is refused, since renaming asks for leave to its folder alone."""
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise _os_error(errno.EISDIR)
    if not os.access(target, os.W_OK):
        raise _refused(target)
    return found


def _leads_to(found: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(found, os.stat(path))
    except (OSError, ValueError):  # what cannot be looked at will be said of that input
        return False


def _refused(path: Path) -> OSError:
    """Why a place may not be written to."""
    whole = sys.platform != "win32" and os.statvfs(path).f_flag & os.ST_RDONLY
    return _os_error(errno.EROFS if whole else errno.EACCES)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _send(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with tempfile.TemporaryFile() as file:  # some formats seek, which a pipe cannot
        write(file)
        file.seek(0)
        with open_stream(path) as stream:
            shutil.copyfileobj(file, stream)


def _is_stdout(found: os.stat_result) -> bool:
    try:
        return os.path.samestat(found, os.fstat(1))
    except OSError:
        return False


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON that every reader takes as one line of UTF-8.

    Characters that some readers take for the end of a line are escaped; half a surrogate pair, which a file name may
    hold and UTF-8 cannot, becomes "?".
    """
    text = json.dumps(row, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8").translate(LINE_BREAKS)
