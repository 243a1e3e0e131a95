"""Worker threads with a model each. The decoder has state, so a model serves one request at a time."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.pipeline import IMC

T = TypeVar("T")
Job = Callable[[IMC], T]


class Pool:
    """Runs jobs in the order they come. `admit` and `leave` keep the line short."""

    def __init__(self, open_model: Callable[[], IMC], workers: int, queue: int) -> None:
        """Nothing is opened before `start`.

        Args:
            open_model: called once in each worker.
            workers: jobs that run at once.
            queue: jobs that may wait besides.
        """
        self.workers, self.queue = workers, queue
        self.inside = self.running = 0
        self.model_id = self.model_version = ""
        self._open_model = open_model
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[Job, Future] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._mean = 1.0  # seconds a job takes, a moving average
        self._open = False

    def start(self) -> None:
        """Open and warm every model.

        Raises:
            ImcError: a model cannot be opened.
        """
        opened: SimpleQueue[BaseException | None] = SimpleQueue()
        for number in range(self.workers):
            thread = threading.Thread(target=self._work, args=(opened,), name=f"imc-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
            if (error := opened.get()) is not None:
                self.close()
                raise error
        self._open = True

    def close(self) -> None:
        """Finish what was submitted, then end the workers."""
        self._open = False
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def ready(self) -> bool:
        return self._open and all(thread.is_alive() for thread in self._threads)

    def admit(self) -> bool:
        """Take a place in the line, if there is one; `leave` gives it back."""
        with self._lock:
            if self.inside >= self.workers + self.queue:
                return False
            self.inside += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1

    def retry_after(self) -> int:
        """Seconds until the line has moved on by about half, 1 to 60."""
        return max(1, min(60, math.ceil(self.inside * self._mean / self.workers / 2)))

    def submit(self, job: Job[T]) -> Future[T]:
        """Run `job` in a worker; what it raises is in the future."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    async def run(self, job: Job[T], deadline: float) -> T:
        """As `submit`, waiting without blocking the event loop.

        Raises:
            TimeoutError: `deadline`, of `time.monotonic`, has passed; a job still in line is dropped.
        """
        future = asyncio.wrap_future(self.submit(job))
        return await asyncio.wait_for(future, max(0.0, deadline - time.monotonic()))

    def _work(self, opened: SimpleQueue[BaseException | None]) -> None:
        try:
            imc = self._open_model()
            # Sessions are made when first needed; the first request should not pay for that.
            imc.answer(np.full((64, 64, 3), 127, np.uint8), "Is this clear?", max_new_tokens=1)
            self.model_id, self.model_version = imc.model.id, imc.model.version
        except BaseException as error:
            opened.put(error)
            return
        opened.put(None)
        while (item := self._jobs.get()) is not None:
            job, future = item
            if not future.set_running_or_notify_cancel():
                continue
            self._run(imc, job, future)
            # A picture must not stay in memory until the next request comes.
            del item, job, future

    def _run(self, imc: IMC, job: Job[T], future: Future[T]) -> None:
        began = time.monotonic()
        with self._lock:
            self.running += 1
        try:
            result = job(imc)
        except MemoryError:
            error: Exception = ImcError("the picture is too large for this server's memory; scale it down first")
        except Exception as caught:
            error = caught
        else:
            error = None  # type: ignore[assignment]
        with self._lock:
            self.running -= 1
            self._mean += 0.1 * (time.monotonic() - began - self._mean)
        if error is None:
            future.set_result(result)
        else:
            # Frames of the traceback hold the picture.
            future.set_exception(error.with_traceback(None))
