"""Several calls to one model side by side, and what they give in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from queue import SimpleQueue
from typing import Any, TypeVar

from imc_lite.models.base import MLLM

FEWEST_AHEAD = 4

Holder = TypeVar("Holder")
Worker = TypeVar("Worker")
Item = TypeVar("Item")
Made = TypeVar("Made")


def replicas(model: MLLM) -> list[MLLM]:
    """As many models as `model` may have threads, which answer side by side with one thread each; weights are in memory
    once. The model alone where it has no `replicas` (`imc_lite.models.default.onnx.OrtMLLM.replicas`)."""
    # Of its class: one that hands on what it lacks to a model inside it would be replaced by that.
    found: Callable[[MLLM], list[MLLM]] | None = getattr(type(model), "replicas", None)
    return [model] if found is None else found(model)


def on(holder: Holder, model: MLLM) -> Holder:
    """A copy with another model in its `model`, such as a replica; all else, what is remembered too, both share."""
    other: Any = copy(holder)
    other.model = model
    return other


def in_order(
    workers: Sequence[Worker], work: Callable[[Worker, Item], Made], items: Iterable[Item], ahead: int | None = None
) -> Iterator[Made]:
    """What `work` makes of every item, in the order of the items; a worker is given one at a time.

    With one worker nothing else runs than what is asked for, in the calling thread. Whoever ends early, by an error of
    an item among others, finds that what has not begun is not begun any more; what runs goes on to its end.

    Args:
        workers: that work side by side, in a thread each.
        work: called with a worker that is free, and an item.
        items: taken so many ahead as `ahead` says.
        ahead: items that wait or run beside the one whose outcome is next; by default as many as there are workers.
    """
    if len(workers) == 1:
        for item in items:
            yield work(workers[0], item)
        return
    most = max(FEWEST_AHEAD, len(workers)) if ahead is None else ahead
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def call(item: Item) -> Made:
        worker = free.get()
        try:
            return work(worker, item)
        finally:
            free.put(worker)

    pool = ThreadPoolExecutor(len(workers), thread_name_prefix="imc-lite-replica")
    running: deque[Future[Made]] = deque()
    try:
        for item in items:
            running.append(pool.submit(call, item))
            if len(running) > most:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
