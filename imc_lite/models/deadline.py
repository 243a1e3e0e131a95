"""When an answer is no longer wanted: too late, or nobody waits for it."""

from __future__ import annotations

import threading
import time


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


NEVER = Deadline()
"""Has no end."""
