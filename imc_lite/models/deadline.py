"""When an answer is no longer wanted: too late, or nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WATCH_SECONDS = 0.05  # between two looks


class DeadlineError(Exception):
    """The time is over, or the one who asked has gone; what was being computed is given up."""


class Deadline:
    """Handed down through `IMC.answer`, `repair`, `MLLM.generate` and `MLLM.score`, which look at it between passes.

    It never changes an answer: either the whole of it is computed, or `DeadlineError` is raised.
    """

    def __init__(self, seconds: float | None = None, stop: threading.Event | None = None) -> None:
        """Start the clock.

        Args:
            seconds: from now; None never ends.
            stop: ends it at once when it is set.
        """
        self._end = None if seconds is None else time.monotonic() + seconds
        self._stop = stop

    def check(self) -> None:
        """Go on, or raise DeadlineError.

        Raises:
            DeadlineError: the time is over, or `stop` is set.
        """
        if self._stop is not None and self._stop.is_set():
            raise DeadlineError("nobody waits for the answer any more")
        if self._end is not None and time.monotonic() > self._end:
            raise DeadlineError("the time for the answer is over")

    def within(self, seconds: float) -> Deadline:
        """One that is over with this one, and after so many seconds from now at the latest."""
        found = Deadline(seconds, self._stop)
        if self._end is not None and found._end is not None:
            found._end = min(self._end, found._end)
        return found

    @contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """For a long call that cannot look at the deadline itself: another thread does, and calls `interrupt`.

        Args:
            interrupt: makes the call inside the `with` fail; called once at most.

        Raises:
            DeadlineError: in place of whatever the interrupted call raises.
        """
        if self._end is None and self._stop is None:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(WATCH_SECONDS):
                try:
                    self.check()
                except DeadlineError:
                    interrupt()
                    return

        threading.Thread(target=watch, name="imc-deadline", daemon=True).start()
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            done.set()


NEVER = Deadline()
"""Has no end."""
