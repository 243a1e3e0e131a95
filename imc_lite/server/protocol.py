"""HTTP/1.1 as uvicorn speaks it, with an end to connections on which nothing is asked."""

from __future__ import annotations

import asyncio
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

RESERVED = 64  # descriptors that are kept for models, pictures and upstreams
MOST = 4096  # connections, where the system has no lower limit


class Protocol(H11Protocol):
    """A connection whose request does not arrive is closed, and so is one too many.

    uvicorn waits for a request's head for ever. Whoever only opens connections would use up the process's descriptors,
    and then nobody else is answered.

    Attributes:
        seconds: that a request's head may take.
        most: connections at once.
    """

    seconds: float
    most: int
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:  # else the next request has arrived already
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self._patience = self.loop.call_later(self.seconds, self.transport.close)

    def _stop(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def protocol(seconds: float) -> type[Protocol]:
    """The protocol of a server whose clients have so many seconds to ask."""
    return type("LimitedProtocol", (Protocol,), {"seconds": seconds, "most": _most()})


def _most() -> int:
    """Connections that this process has descriptors for."""
    if sys.platform == "win32":
        return MOST
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft - RESERVED))
