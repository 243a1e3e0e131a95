"""Hold back what libraries print and warn about while they read; several threads may do so at once.

Warning filters and file descriptor 2 belong to the whole process. If each thread saved and restored them on its own,
one would restore them while another still reads. So the first thread in sets them, and the last one out restores them.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class _Shared:
    """A context manager that is entered when the first thread enters, and left when the last one leaves."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._held = self._make()
                self._held.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._held.__exit__(None, None, None)


@contextmanager
def _ignored_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _silent_stderr() -> Iterator[None]:
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        kept = os.dup(2)
    except OSError:  # the process has no standard error, so nothing can be printed there
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


no_warnings = _Shared(_ignored_warnings)
"""`with no_warnings:` ignores Python warnings, of all threads."""
no_stderr = _Shared(_silent_stderr)
"""`with no_stderr:` discards what is written to file descriptor 2, where C libraries print, by all threads."""
