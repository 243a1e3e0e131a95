"""What every request passes before and after its route: key, size, time, a place in the line, log and metrics."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from imc_lite.server.budget import Budget
from imc_lite.server.errors import ApiError, busy, ending, internal
from imc_lite.server.metrics import Metrics
from imc_lite.server.pool import Pool
from imc_lite.server.settings import Settings
from imc_lite.upstream.connection import is_loopback

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")  # the others are logged as "other"
ABSOLUTE = re.compile("https?://([^/]*)", re.IGNORECASE)
GONE = 499  # the client left before the answer
LAST_SECONDS = 2.0  # for the error to reach a client whose time is over


class Guard:
    """The outermost ASGI application. A request's body is read whole here, so that the routes never wait for it."""

    def __init__(
        self, app: FastAPI, pool: Pool, metrics: Metrics, settings: Settings, log: Callable[[str], object]
    ) -> None:
        self.app, self.pool, self.metrics, self.settings, self.log = app, pool, metrics, settings, log
        self.held = 0
        self._key = None if settings.api_key is None else _digest(settings.api_key.encode())
        self._running: set[Budget] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.monotonic()
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._running.discard(budget)  # its client has all of it: nothing more can be lost

        # Clients write addresses with and without a slash at the end; a redirect would cost them the body.
        inner = {**scope, **_origin_form(scope)}
        inner["path"] = inner["path"].rstrip("/") or "/"
        if scope["method"] == "HEAD":
            inner["method"] = "GET"  # the server that calls us leaves the body out
        budget = Budget(self.settings.timeout)
        inner["state"] = {**scope.get("state", {}), "budget": budget}
        self._running.add(budget)
        try:
            if not await self._serve(inner, receive, counted, budget):
                status = GONE
        except ApiError as error:
            await error.response()(inner, receive, counted)
        except Exception as error:  # a fault of ours: no traceback, it could show the request
            self.log(f"unexpected {type(error).__name__} in {self._declared(inner)[0]}")
            if status == 0:
                await internal().response()(inner, receive, counted)
        finally:
            # Whatever came of it: what a worker still does for it is in vain.
            budget.end(ending)
            self._running.discard(budget)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._count(method, self._declared(inner)[0], status, time.monotonic() - began)

    @property
    def busy(self) -> bool:
        """Whether requests run whose answers are not wholly sent."""
        return bool(self._running)

    def end(self) -> None:
        """Give up all requests that run; their clients hear so."""
        for budget in [*self._running]:
            budget.end(ending)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, budget: Budget) -> bool:
        """Whether the client stayed to the end."""
        if self.settings.local:
            _check_host(scope)
        works = scope["path"].startswith("/v1/")
        if works and scope["method"] != "OPTIONS":
            self._check_key(scope)
        body = bytearray()
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            if works:  # it may wait for an upstream
                return await self._run(scope, body, receive, send, budget)
            await self.app(scope, receive, send)
            return True
        try:
            try:
                await budget.wait(self._read(receive, body))
            except ConnectionError:
                return False
            except ApiError as error:
                if error.code != "timeout":
                    raise
                raise ApiError(408, "the request did not arrive in time; send it again", code="timeout") from None
            if not works or not self._declared(scope)[1]:
                return await self._run(scope, body, receive, send, budget)
            _check_type(scope)
            if not self.pool.admit():
                raise busy(self.pool.retry_after())
            began = time.monotonic()
            try:
                return await self._run(scope, body, receive, send, budget)
            finally:
                self.pool.leave(time.monotonic() - began)
        finally:
            self.held -= len(body)

    def _check_key(self, scope: Scope) -> None:
        if self._key is None:
            return
        scheme, _, token = _header(scope, b"authorization").partition(b" ")
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

    async def _run(self, scope: Scope, body: bytearray, receive: Receive, send: Send, budget: Budget) -> bool:
        """The route, ended when its client leaves."""
        read = False
        left = asyncio.create_task(_disconnect(receive))

        async def replay() -> Message:
            nonlocal read
            if not read:
                read = True
                return {"type": "http.request", "body": bytes(body), "more_body": False}
            await asyncio.wait({left})
            return {"type": "http.disconnect"}

        async def answer() -> None:
            await self.app(scope, replay, send)

        route = asyncio.create_task(answer())
        any_of: set[asyncio.Future[Any]] = {route, left, budget.over}
        try:
            await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
            if not route.done() and not left.done():
                # It says so to its client, unless that one does not read.
                await asyncio.wait({route, left}, return_when=asyncio.FIRST_COMPLETED, timeout=LAST_SECONDS)
            if not route.done():
                route.cancel()
                await asyncio.wait({route})
                return False
            await route
            return True
        finally:
            left.cancel()
            route.cancel()

    def _declared(self, scope: Scope) -> tuple[str, bool]:
        """A route's path as it is declared, and whether it has the request's method.

        What else people ask for is "other", neither logged nor counted apart.
        """
        for route in self.app.routes:
            if isinstance(route, Route) and (match := route.matches(scope)[0]) != Match.NONE:
                return route.path, match == Match.FULL
        return "other", False

    def _count(self, method: str, route: str, status: int, seconds: float) -> None:
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.log(f"{method} {route} {status} {1000 * seconds:.0f} ms")


def _origin_form(scope: Scope) -> dict[str, Any]:
    """Path and headers of a target that names the server too, as a proxy's clients write it: what it names counts, and
    not the Host beside it (RFC 9112, 3.2.2)."""
    found = ABSOLUTE.match(scope["path"])
    if found is None:
        return {}
    headers = [header for header in scope["headers"] if header[0] != b"host"]
    return {"path": scope["path"][found.end() :], "headers": [*headers, (b"host", found[1].encode())]}


def _check_host(scope: Scope) -> None:
    """Turn away a page whose name was led to this machine (DNS rebinding): its browser still sends that name."""
    host = _header(scope, b"host").decode("latin-1").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if host and not is_loopback(name):
        raise ApiError(
            421,
            "without an API key only this machine is answered, by the name localhost or a loopback address; set a key, "
            "or let the proxy send such a Host",
            code="wrong_host",
        )


def _check_type(scope: Scope) -> None:
    """Another site's page may send anything but JSON without asking this server first (cross-site request forgery)."""
    kind = _header(scope, b"content-type").decode("latin-1").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(400, "send JSON, with the header Content-Type: application/json", code="invalid_request")


def _header(scope: Scope, name: bytes) -> bytes:
    return dict(scope["headers"]).get(name, b"")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
