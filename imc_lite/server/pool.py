"""Worker threads with a model each. The decoder has state, so a model serves one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.models.deadline import Deadline
from imc_lite.models.replicas import on
from imc_lite.pipeline import IMC
from imc_lite.server.budget import Budget

T = TypeVar("T")
Job = Callable[[IMC, Deadline], T]
NOTICE_SECONDS = 0.5  # that a job has to notice that its request is over
MOST_STUCK = 4  # jobs that may still run after that; their pictures stay in memory


class Pool:
    """Runs jobs in the order they come. `admit` and `leave` keep the line short."""

    def __init__(self, open_model: Callable[[], IMC], workers: int, queue: int) -> None:
        """Nothing is opened before `start`.

        Args:
            open_model: called once, or once for each worker where the model has no `beside`.
            workers: jobs that run at once.
            queue: jobs that may wait besides.
        """
        self.workers, self.queue = workers, queue
        self.inside = 0
        self.model_id = self.model_version = ""
        self._open_model = open_model
        # Guards all that follows; notified when the line grows or the pool ends.
        self._changed = threading.Condition()
        self._line: dict[Future[Any], tuple[Job[Any], Deadline]] = {}  # in the order they came
        self._busy: dict[Future[Any], IMC] = {}  # what runs, with the model of its worker
        self._stuck = 0  # what still runs though another worker has taken the model over
        self._threads: list[threading.Thread] = []
        self._mean = 1.0  # seconds a job takes, a moving average
        self._held = 0.0  # seconds a place in the line is held, likewise; longer, where an upstream answers
        self._open = False

    def start(self) -> None:
        """Open and warm every model, in the calling thread, so that a signal can end it.

        Raises:
            ImcError: a model cannot be opened.
        """
        opened: list[IMC] = []
        for _ in range(self.workers):
            imc = (beside(opened[0]) if opened else None) or self._open_model()
            # Sessions are made when first needed; the first request should not pay for that.
            imc.answer(np.full((64, 64, 3), 127, np.uint8), "Is this clear?", max_new_tokens=1)
            opened.append(imc)
        self.model_id, self.model_version = imc.model.id, imc.model.version
        self._open = True
        for imc in opened:
            self._employ(imc)

    def close(self, seconds: float) -> bool:
        """End the workers, whose running jobs must be over; jobs in line are dropped. Whether all ended in time."""
        with self._changed:
            self._open = False
            self._line.clear()
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def ready(self) -> bool:
        return self._open and sum(thread.is_alive() for thread in self._threads) >= self.workers + self._stuck

    @property
    def running(self) -> int:
        """Jobs that are worked on, without those that are stuck."""
        return len(self._busy)

    def admit(self) -> bool:
        """Take a place in the line, if there is one; `leave` gives it back."""
        with self._changed:
            if self.inside >= self.workers + self.queue:
                return False
            self.inside += 1
            return True

    def leave(self, seconds: float) -> None:
        """Give a place back that was held for so long."""
        with self._changed:
            self.inside -= 1
            self._held += 0.1 * (seconds - self._held)

    def retry_after(self) -> int:
        """Seconds until the line has moved on by about half, 1 to 60."""
        work = self.inside * self._mean / self.workers
        return max(1, min(60, math.ceil(max(work, self._held) / 2)))

    def submit(self, job: Job[T], budget: Budget) -> Future[T]:
        """Run `job` in a worker; what it raises is in the future. One that is cancelled leaves the line at once."""
        future: Future[T] = Future()
        with self._changed:
            self._line[future] = (job, budget.deadline)
            self._changed.notify()
        future.add_done_callback(self._forget)
        budget.over.add_done_callback(lambda _: self._see_to(future))
        return future

    async def run(self, job: Job[T], budget: Budget) -> T:
        """As `submit`, waiting without blocking the event loop.

        Raises:
            ApiError: the budget is over; the job is dropped or ends within its pass.
        """
        return await budget.wait(awaitable(self.submit(job, budget)))

    def _forget(self, future: Future[Any]) -> None:
        """Keep no picture that nobody waits for."""
        with self._changed:
            self._line.pop(future, None)

    def _see_to(self, future: Future[Any]) -> None:
        """A request is over: what runs for it should end soon."""
        if not future.done():
            asyncio.get_running_loop().call_later(NOTICE_SECONDS, self._relieve, future)

    def _relieve(self, future: Future[Any]) -> None:
        """Have another thread go on with the model where a job has not ended.

        Libraries that read pictures cannot be interrupted; the job ends when it next looks at its deadline.
        """
        with self._changed:
            if self._stuck >= MOST_STUCK or future not in self._busy:
                return
            imc = self._busy.pop(future)
            self._stuck += 1
        self._employ(imc)

    def _employ(self, imc: IMC) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._work, args=(imc,), name="imc-worker", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _next(self) -> tuple[Future[Any], Job[Any], Deadline] | None:
        """The job that has waited longest; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or not self._open)
            if not self._open:
                return None
            future = next(iter(self._line))
            return future, *self._line.pop(future)

    def _work(self, imc: IMC) -> None:
        mine = True
        while mine and (item := self._next()) is not None:
            future, job, deadline = item
            if future.set_running_or_notify_cancel():
                mine = self._run(imc, job, deadline, future)
            # A picture must not stay in memory until the next request comes.
            del item, job, future

    def _run(self, imc: IMC, job: Job[T], deadline: Deadline, future: Future[T]) -> bool:
        """Whether the worker still has the model afterwards."""
        began = time.monotonic()
        with self._changed:
            self._busy[future] = imc
        failed: Exception | None = None
        try:
            deadline.check()
            result = job(imc, deadline)
        except MemoryError:
            failed = ImcError("the picture is too large for this server's memory; scale it down first")
        except Exception as error:
            failed = error
        with self._changed:
            mine = self._busy.pop(future, None) is not None
            if mine:
                self._mean += 0.1 * (time.monotonic() - began - self._mean)
            else:
                self._stuck -= 1
        if failed is None:
            future.set_result(result)
        else:
            # Frames of the traceback hold the picture.
            future.set_exception(failed.with_traceback(None))
        return mine


def beside(imc: IMC) -> IMC | None:
    """The same for another worker: weights are in memory once, and what one has encoded or repaired the other knows.

    None where the model has no `beside` (`imc_lite.models.default.onnx.OrtMLLM.beside`).
    """
    another = getattr(type(imc.model), "beside", None)  # not that of a model inside it
    return None if another is None else on(imc, another(imc.model))


def awaitable(future: Future[T]) -> asyncio.Future[T]:
    """As `asyncio.wrap_future`, which complains on stderr where a job ends after the loop did: a server that is told to
    end does not wait for a job's last pass."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()

    def settle() -> None:
        if waiter.done():
            return
        if future.cancelled():
            waiter.cancel()
        elif (error := future.exception()) is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(future.result())

    def tell(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    waiter.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
    future.add_done_callback(tell)
    return waiter
