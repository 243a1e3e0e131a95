"""What another server answers, on its way back: passed on as it comes, with the report in it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from imc_lite.errors import shown
from imc_lite.server.budget import Budget, inbox
from imc_lite.server.errors import ApiError, internal, refused
from imc_lite.upstream.client import Reply, Upstream, broken
from imc_lite.upstream.errors import UpstreamError
from imc_lite.upstream.told import NO_COMPLETION, Row, Told, error_message, read_object

# Two ends of a line of any kind (WHATWG HTML, 9.2.6); a CR that comes last may be half of one.
EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}|\r\r")


async def exchange(
    upstream: Upstream, method: str, path: str, body: bytes | None, budget: Budget
) -> tuple[Reply, AsyncGenerator[bytes, None]]:
    """Send a request, and give back status and headers of the reply, and its body as it comes.

    Raises:
        UpstreamError: it cannot be reached, or its reply breaks off.
        ApiError: the budget is over.
    """
    put, queue = inbox()

    def talk() -> None:
        try:
            with upstream.send(method, path, body, budget.deadline) as reply:
                put(reply)
                for data in reply.chunks():
                    put(data)
            put(b"")
        except Exception as error:
            put(error.with_traceback(None))  # its frames hold the request

    async def take() -> Any:
        item = await queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def rest() -> AsyncGenerator[bytes, None]:
        while data := await budget.wait(take()):
            yield data

    threading.Thread(target=talk, name="imc-upstream", daemon=True).start()
    return await budget.wait(take()), rest()


async def whole(body: AsyncGenerator[bytes, None]) -> bytes:
    """All of a reply's body."""
    return b"".join([data async for data in body])


def with_report(
    data: bytes, upstream: Upstream, report: Callable[[Told], Row], count: Callable[[Told], object]
) -> bytes:
    """A chat completion of `upstream` with the report in it; `count` gets what was read.

    Raises:
        UpstreamError: it is none; some servers send an error with the status of a success.
    """
    told, said = Told(), read_object(data)
    if said is None:
        raise UpstreamError(NO_COMPLETION)
    if said.get("error") and "choices" not in said:
        raise UpstreamError(f"the upstream answers with an error: {shown(upstream.without_key(error_message(said)))}")
    told.take(said)
    count(told)
    return _json(said | {"imc": report(told)})


async def events(
    body: AsyncGenerator[bytes, None],
    upstream: Upstream,
    choices: int,
    report: Callable[[Told], Row],
    count: Callable[[Told], object],
) -> AsyncGenerator[bytes, None]:
    """Server-sent events of `upstream` as they come; the last chunk with a choice carries the report.

    Where none says that it is the last, the report comes in a chunk of its own. What goes wrong is an event too. At the
    end `count` gets what was read: how many tokens there are may come after the last choice.
    """
    told, reported, done = Told(), False, False
    try:
        async for event, end in _split(body):
            data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
            said = read_object(data)
            if not end:
                # A reader throws an unfinished event away, and would take what follows for its rest.
                if said is None and data != b"[DONE]":
                    break
                end = b"\n\n"
            if said is not None:
                told.take(said)
                done = done or bool(said.get("error")) or told.ended(choices)
                event = upstream.without_key(event) if said.get("error") else event
            if not reported and said is not None and told.ended(choices):
                reported = True
                others = [line + b"\n" for line in event.splitlines() if not line.startswith(b"data:")]
                event = b"".join(others) + b"data: " + _json(said | {"imc": report(told)})
            if data == b"[DONE]":
                done = True
                if not reported:
                    reported = True
                    head: Row = {"id": told.id, "object": "chat.completion.chunk", "created": int(time.time())}
                    yield b"data: " + _json(head | {"model": told.model, "choices": [], "imc": report(told)}) + b"\n\n"
            yield event + end
        if not done:
            raise broken()
    except Exception as error:
        known = error if isinstance(error, ApiError) else internal()
        if isinstance(error, UpstreamError):
            known = refused(error)
        yield b"data: " + _json(known.body()) + b"\n\n"
    finally:
        count(told)
        await body.aclose()


async def _split(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """Each event without and with only what ends it; the last one may have no end."""
    rest = b""
    async for data in body:
        seen = max(0, len(rest) - 3)
        rest += data
        while (end := EVENT_END.search(rest, seen)) is not None:
            yield rest[: end.start()], end[0]
            rest, seen = rest[end.end() :], 0
    if rest:
        yield rest, b""


def _json(body: Row) -> bytes:
    """JSON of what was read of the upstream.

    Raises:
        UpstreamError: a number in it is beyond what JSON readers hold.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except ValueError as error:
        raise UpstreamError("the upstream's reply holds a number that is out of range; ask again") from error
