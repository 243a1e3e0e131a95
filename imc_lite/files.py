"""Writing files so that nothing the user had is lost or half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from imc_lite.errors import ImcError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` with a binary file that takes the place of `path` only when it is complete.

    Raises:
        ImcError: the folder is missing or cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ImcError(f"cannot write {path} ({error.strerror}); choose another output file") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private; an output is not
        os.replace(temporary, path)
    except OSError as error:
        raise ImcError(f"cannot write {path} ({error.strerror}); choose another output file") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
