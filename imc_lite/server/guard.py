"""What every request passes before and after its route: key, size, time, a place in the line, log and metrics."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from imc_lite.server.errors import ApiError, busy, internal
from imc_lite.server.metrics import Metrics
from imc_lite.server.pool import Pool
from imc_lite.server.settings import Settings, is_loopback

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ROUTES = (
    *("/", "/healthz", "/metrics", "/openapi.json"),
    *("/v1/chat/completions", "/v1/models", "/v1/inspect", "/v1/repair", "/v1/restore"),
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
GONE = 499  # the client left before the answer


class Guard:
    """The outermost ASGI application. A request's body is read whole here, so that the routes never wait for it."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        pool: Pool,
        metrics: Metrics,
        settings: Settings,
        log: Callable[[str], object],
    ) -> None:
        self.app, self.pool, self.metrics, self.settings, self.log = app, pool, metrics, settings, log
        self.held = 0
        self._key = None if settings.api_key is None else _digest(settings.api_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.monotonic()
        status = 0

        async def counted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        scope.setdefault("state", {})["deadline"] = began + self.settings.timeout
        try:
            if not await self._serve(scope, receive, counted):
                status = GONE
        except ApiError as error:
            await _reply(error, scope, receive, counted)
        except Exception as error:  # a fault of ours: no traceback, it could show the request
            self.log(f"unexpected {type(error).__name__} in {_route(scope)}")
            if status == 0:
                await _reply(internal(), scope, receive, counted)
        self._count(scope, status, time.monotonic() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the client stayed to the end."""
        if self.settings.local:
            _check_host(scope)
        works = scope["path"].startswith("/v1/")
        if works:
            self._check_key(scope)
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return True
        body = bytearray()
        try:
            deadline = scope["state"]["deadline"]
            try:
                await asyncio.wait_for(self._read(receive, body), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                raise ApiError(408, "the request did not arrive in time; send it again", code="timeout") from None
            except ConnectionError:
                return False
            if scope["path"] not in ROUTES or not works:
                return await self._run(scope, body, receive, send)
            if not self.pool.admit():
                raise busy(self.pool.retry_after())
            try:
                return await self._run(scope, body, receive, send)
            finally:
                self.pool.leave()
        finally:
            self.held -= len(body)

    def _check_key(self, scope: Scope) -> None:
        if self._key is None:
            return
        sent = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = sent.partition(b" ")
        # Digests have one length: the time to compare them tells nothing of the key.
        if scheme.lower() != b"bearer" or not hmac.compare_digest(_digest(token.strip()), self._key):
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(
                401, "wrong or missing API key; send it as a bearer token", code="invalid_api_key", headers=headers
            )

    async def _read(self, receive: Receive, body: bytearray) -> None:
        """The whole body. What is too much is read on and thrown away: a client that still sends hears no answer."""
        total, more = 0, True
        error = None
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            part, more = message.get("body", b""), message.get("more_body", False)
            total += len(part)
            if total > 4 * self.settings.max_body and error is not None:
                break
            if error is None and total > self.settings.max_body:
                mib = self.settings.max_body >> 20
                error = ApiError(413, f"the request has over {mib} MiB; scale the picture down", code="too_large")
            elif error is None and self.held + len(part) > self.settings.max_held:
                error = busy(self.pool.retry_after())
            if error is None:
                body += part
                self.held += len(part)
        if error is not None:
            raise error

    async def _run(self, scope: Scope, body: bytearray, receive: Receive, send: Send) -> bool:
        """The route, ended when its client leaves."""
        read = False
        left = asyncio.create_task(_disconnect(receive))

        async def replay() -> dict[str, Any]:
            nonlocal read
            if not read:
                read = True
                return {"type": "http.request", "body": bytes(body), "more_body": False}
            await asyncio.wait({left})
            return {"type": "http.disconnect"}

        route = asyncio.create_task(self.app(scope, replay, send))
        try:
            await asyncio.wait({route, left}, return_when=asyncio.FIRST_COMPLETED)
            if not route.done():
                route.cancel()
                await asyncio.wait({route})
                return False
            await route
            return True
        finally:
            left.cancel()
            route.cancel()

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.log(f"{scope['method'] if len(scope['method']) < 8 else 'other'} {route} {status} {1000 * seconds:.0f} ms")


def _check_host(scope: Scope) -> None:
    """Turn away a page whose name was led to this machine (DNS rebinding): its browser still sends that name."""
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if host and not is_loopback(name):
        raise ApiError(
            421,
            "without an API key only this machine is answered, by the name localhost or a loopback address; set a key, "
            "or let the proxy send such a Host",
            code="wrong_host",
        )


def _route(scope: Scope) -> str:
    """A path of ours; what else people ask for is neither logged nor counted apart."""
    return scope["path"] if scope["path"] in ROUTES else "other"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reply(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    await error.response()(scope, receive, send)
