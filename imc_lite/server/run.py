"""The server's process: models, socket, signals, and an end within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from imc_lite.errors import ImcError, shown
from imc_lite.pipeline import IMC
from imc_lite.server.app import create_app
from imc_lite.server.guard import LAST_SECONDS, Guard
from imc_lite.server.pool import Pool
from imc_lite.server.protocol import protocol
from imc_lite.server.settings import Settings
from imc_lite.upstream.connection import is_loopback

BACKLOG = 1024
WORKER_SECONDS = 1.0  # for a worker to notice that its request is over


def serve(
    open_model: Callable[[], IMC],
    settings: Settings,
    port: int,
    workers: int,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Then no more connections are taken. Requests that run have `settings.grace` seconds to finish; what is left is given
    up within its pass, and its client gets 503. A second signal ends the process at once; its exit code then tells
    whether requests were lost.

    Args:
        open_model: called once for each worker.
        settings: where to listen, limits and access.
        port: 0 takes a free one; it is named on stderr.
        workers: models, each with a thread of its own.
        ready: called with the address once requests are taken.

    Raises:
        ImcError: the port is taken, the host is not ours, or a model cannot be opened.
    """
    # Requests overlap, so warnings are not switched off and on around each picture but for good.
    warnings.simplefilter("ignore")
    say = _logger()
    host = settings.host
    listening = _listen(host, port)
    pool = Pool(open_model, workers, settings.queue)
    server: _Server | None = None
    ending = False

    def end(number: int, _: FrameType | None) -> None:
        nonlocal ending
        if ending and server is not None:
            server.leave(128 + number)
            return
        if ending:
            os._exit(0)
        ending = True
        if server is None:
            sys.exit(0)
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        pool.start()
        address = f"[{host}]" if ":" in host else host
        before = "" if settings.upstream is None else f", {settings.upstream.url} answers"
        url = f"http://{address}:{listening.getsockname()[1]}"
        say(f"serving on {url} with {workers} worker(s){before}")
        if settings.api_key is None and not is_loopback(host):
            say("anybody who reaches this address may ask; set IMC_LITE_API_KEY or --api-key-file")
        server = _Server(create_app(pool, settings, say), settings, end, say)
        if ready is not None:
            ready(url)
        server.run(sockets=[listening])
    finally:
        listening.close()
    if not pool.close(WORKER_SECONDS):
        # A thread inside a library must not meet an interpreter that is being taken down.
        os._exit(0)


class _Server(uvicorn.Server):
    """uvicorn, with our signals and an end for requests that take too long."""

    def __init__(
        self,
        guard: Guard,
        settings: Settings,
        on_signal: Callable[[int, FrameType | None], None],
        say: Callable[[str], None],
    ) -> None:
        self.guard, self._grace, self._on_signal, self._say = guard, settings.grace, on_signal, say
        self._loop: asyncio.AbstractEventLoop | None = None
        self._said = -math.inf  # when a fault outside of requests was logged
        config = uvicorn.Config(
            guard,
            http=protocol(settings.timeout),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            # Connections that are left then have had the error, or do not read it.
            timeout_graceful_shutdown=math.ceil(settings.grace + LAST_SECONDS),
        )
        super().__init__(config)

    def leave(self, lost: int) -> None:
        """End the process, with exit code `lost` where requests run.

        A signal comes between any two instructions, so also after an answer was sent and before it is counted as sent.
        So the loop is asked, between two of its steps.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            os._exit(0)
        loop.call_soon_threadsafe(lambda: os._exit(lost if self.guard.busy else 0))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._fault)
        await super().startup(sockets)

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Outside of requests, such as a connection that cannot be taken: a line a second at most, and no traceback."""
        if loop.time() - self._said >= 1:
            self._said = loop.time()
            self._say(f"unexpected {type(context.get('exception')).__name__} outside of requests")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_signal(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._grace, self.guard.end)
        await super().shutdown(sockets)


def _logger() -> Callable[[str], None]:
    """Lines on a copy of stderr: the original is silenced while a picture's C decoder runs."""
    out = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # whoever read the log has gone; answers matter more
            out.write(f"imc-lite: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    return say


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no such host"
        raise ImcError(f"cannot listen on {shown(host)}:{port} ({why}); choose another --host or --port") from error
    return listening
