"""vLLM's engine on a thread of its own, asked by any number of threads at once."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import Iterator
from itertools import count
from typing import Any

from imc_lite.errors import ImcError
from imc_lite.models.deadline import NEVER, Deadline

# Read when vLLM is imported: it would write to stdout, where answers go.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import vllm
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["Engine", "vllm"]

POLL = 0.05  # seconds between two looks at a deadline


class Engine:
    """Requests of all threads go through the language model together (continuous batching).

    Source: Kwon et al. 2023, https://arxiv.org/abs/2309.06180.

    Attributes:
        room: tokens that a prompt and its answer may have together.
    """

    def __init__(self, name: str, **options: Any) -> None:
        """Start vLLM's processes.

        Args:
            name: of the model on the Hugging Face hub, or a folder.
            options: of `vllm.AsyncEngineArgs`.

        Raises:
            ImcError: vLLM cannot open it.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        self._numbers = count()
        try:
            engine = asyncio.run_coroutine_threadsafe(_start(name, options), self._loop).result()
        except Exception as error:  # configuration, weights, memory: vLLM has an exception for each
            self._loop.call_soon_threadsafe(self._loop.stop)
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ImcError(f"vLLM cannot open {name} ({why[:300]}); VLLM_LOGGING_LEVEL=INFO shows more") from error
        self.room = int(engine.model_config.max_model_len)
        # In a list, so that nothing of it is left when it is closed, which the end of the process does too.
        self._running = [engine]
        self.close = weakref.finalize(self, _stop, self._running, self._loop, self._thread)

    def ask(self, prompt: dict[str, Any], params: Any, deadline: Deadline = NEVER) -> Iterator[RequestOutput]:
        """What comes back for one prompt: the request so far, again and again, the last of them whole.

        Args:
            prompt: a `vllm.inputs.TokensPrompt`.
            params: `vllm.SamplingParams`.
            deadline: looked at while the engine works; over it the request is taken back.

        Raises:
            DeadlineError: the answer is no longer wanted.
            ImcError: the engine does not take the request, has failed, or was closed.
        """
        came: queue.SimpleQueue[RequestOutput | Exception | None] = queue.SimpleQueue()
        running = asyncio.run_coroutine_threadsafe(self._follow(prompt, params, came), self._loop)
        try:
            while True:
                deadline.check()
                try:
                    item = came.get(timeout=POLL)
                except queue.Empty:
                    if not self.close.alive:  # nobody is left who would put anything in
                        raise ImcError("vLLM was closed before it had answered; open the model again") from None
                    continue
                if item is None:
                    return
                if isinstance(item, Exception):
                    why = (str(item).strip().splitlines() or [""])[0]
                    raise ImcError(f"vLLM does not answer ({type(item).__name__} {why[:200]})") from item
                yield item
        finally:
            running.cancel()  # takes the request back, where it still runs

    async def _follow(self, prompt: dict[str, Any], params: Any, came: queue.SimpleQueue[Any]) -> None:
        try:
            async for output in self._running[0].generate(prompt, params, f"imc-{next(self._numbers)}"):
                came.put(output)
            came.put(None)
        except Exception as error:  # handed to the thread that asked
            came.put(error)


async def _start(name: str, options: dict[str, Any]) -> AsyncLLM:
    """On the loop, which the engine's own tasks belong to."""
    return AsyncLLM.from_engine_args(AsyncEngineArgs(model=name, **options))


def _stop(running: list[AsyncLLM], loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    # On the loop, where no task of the engine sees it go.
    asyncio.run_coroutine_threadsafe(_shut(running), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


async def _shut(running: list[AsyncLLM]) -> None:
    running.pop().shutdown()
