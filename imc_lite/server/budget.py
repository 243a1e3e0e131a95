"""How long a request has, whether anybody still waits for its answer, and what comes to it from other threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from imc_lite.models.deadline import Deadline, DeadlineError
from imc_lite.server.errors import ApiError, late

T = TypeVar("T")


class Budget:
    """The time of one request. It begins when it is made, in the event loop, and is over when `end` is called: by its
    own clock, by the server when it has to end, or when the request is done with.

    Attributes:
        deadline: what the worker looks at; over with the budget.
        over: done when it is over.
    """

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Callable[[], ApiError]] = loop.create_future()
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._stop = threading.Event()
        self._timer = loop.call_later(seconds, self.end, lambda: late(seconds))
        self.deadline = Deadline(seconds, self._stop)

    def end(self, error: Callable[[], ApiError]) -> None:
        """Give up: the worker stops within its pass, and whoever waits gets `error()`. A second call does nothing."""
        if self.over.done():
            return
        self._timer.cancel()
        self._stop.set()
        # Made when it is raised: one that is kept here would keep the frames it went through, and their pictures.
        self.over.set_result(error)

    async def wait(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the budget is over first.

        Raises:
            ApiError: the budget is over.
        """
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self.over}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self.over.result()()
            return task.result()
        except DeadlineError:  # the worker's clock was ahead by a moment
            raise late(self._seconds) from None
        finally:
            task.cancel()


def inbox() -> tuple[Callable[[Any], None], asyncio.Queue[Any]]:
    """What other threads call to send something to the running loop, and the queue that it arrives in."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def put(item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ends with the server, a thread a moment later
            loop.call_soon_threadsafe(queue.put_nowait, item)

    return put, queue
