"""The server's process: models, socket, signals, and an end that finishes what runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable

import uvicorn

from imc_lite.errors import ImcError
from imc_lite.pipeline import IMC
from imc_lite.server.app import create_app
from imc_lite.server.pool import Pool
from imc_lite.server.settings import Settings, is_loopback

BACKLOG = 1024


def serve(open_model: Callable[[], IMC], settings: Settings, port: int, workers: int) -> None:
    """Serve until SIGTERM or SIGINT; then no more connections are taken and those that run are finished.

    Args:
        open_model: called once for each worker.
        settings: where to listen, limits and access.
        port: 0 takes a free one; it is named on stderr.
        workers: models, each with a thread of its own.

    Raises:
        ImcError: the port is taken, the host is not ours, or a model cannot be opened.
    """
    # Requests overlap, so warnings are not switched off and on around each picture but for good.
    warnings.simplefilter("ignore")
    say = _logger()
    host = settings.host
    listening = _listen(host, port)
    # Before uvicorn runs this ends the process; afterwards uvicorn raises the signal again when all is finished.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pool = Pool(open_model, workers, settings.queue)
    try:
        pool.start()
        shown = f"[{host}]" if ":" in host else host
        say(f"serving on http://{shown}:{listening.getsockname()[1]} with {workers} worker(s)")
        if settings.api_key is None and not is_loopback(host):
            say("anybody who reaches this address may ask; set IMC_LITE_API_KEY or --api-key-file")
        config = uvicorn.Config(
            create_app(pool, settings, say),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.timeout) + 1,
        )
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
        pool.close()


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
        raise ImcError(f"cannot listen on {host}:{port} ({why}); choose another --host or --port") from error
    return listening
