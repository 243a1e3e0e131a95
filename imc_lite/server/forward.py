"""The routes of a server whose answers come from another one (`imc-lite serve --upstream`)."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from imc_lite.errors import ImcError
from imc_lite.results import ImageReport
from imc_lite.server import schema
from imc_lite.server.asked import Asked
from imc_lite.server.budget import Budget
from imc_lite.server.description import FORWARDED, FORWARDED_BODY, MODELS, STREAM
from imc_lite.server.errors import ApiError, busy
from imc_lite.server.mend import Mend, report
from imc_lite.server.metrics import Metrics
from imc_lite.server.pictures import Picture, is_embedded, receive
from imc_lite.server.pool import Pool
from imc_lite.server.relay import Row, events, exchange, whole, with_report
from imc_lite.server.settings import Settings
from imc_lite.upstream.client import Reply, Upstream
from imc_lite.upstream.errors import UpstreamError
from imc_lite.upstream.told import Told

CHAT = "/chat/completions"
PASSED = ("content-type", "retry-after", "x-request-id")  # headers of a reply that concern the client


def forward(app: FastAPI, pool: Pool, settings: Settings, upstream: Upstream, metrics: Metrics) -> None:
    """Have `app` ask `upstream`, with what IMC mends.

    Args:
        app: gets the routes.
        pool: of models that look and repair.
        settings: limits.
        upstream: answers.
        metrics: counts verdicts, and the answers' tokens.
    """

    @app.post(
        "/v1/chat/completions",
        response_model=schema.ForwardedCompletion,
        responses=FORWARDED | STREAM,
        tags=["OpenAI"],
        openapi_extra=FORWARDED_BODY,
    )
    async def chat(request: Request) -> Response:
        """Have the upstream answer; the last picture is restored, the last question repaired, where that is safe."""
        budget: Budget = request.state.budget
        asked = Asked(await request.body(), upstream.model)
        mended = await pool.run(await _mend(asked, settings, budget), budget)
        if asked.picture is not None:
            metrics.count(asdict(mended.image))
        if settings.refuse_ungradable:
            if asked.picture is not None:
                _check_gradable(mended.image)
            await _check_others(asked, pool, settings, budget)
        asked.put(mended.question, mended.picture)
        began = time.perf_counter()

        def row(told: Told) -> Row:
            decode = 1000 * (time.perf_counter() - began)
            times = {"decode": decode, "assess": 0.0, "total": sum(mended.timings_ms.values()) + decode}
            return report(mended, told.id, told.text or None, told.model or asked.model, times)

        def count(told: Told) -> None:
            metrics.tokens.inc(told.tokens)

        reply, body = await exchange(upstream, "POST", CHAT, asked.encoded(), budget)
        headers = _headers(reply)
        if not 200 <= reply.status < 300:
            return Response(upstream.without_key(await whole(body)), reply.status, headers)
        if headers.get("content-type", "").lower().startswith("text/event-stream"):
            return StreamingResponse(events(body, upstream, asked.choices, row, count), reply.status, headers)
        return Response(with_report(await whole(body), upstream, row, count), reply.status, headers)

    async def listed(request: Request) -> tuple[Reply, bytes]:
        """As much as questions, these requests wait for the upstream: they take a place in the line."""
        if not pool.admit():
            raise busy(pool.retry_after())
        began = time.monotonic()
        try:
            reply, body = await exchange(upstream, "GET", "/models", None, request.state.budget)
            return reply, upstream.without_key(await whole(body))
        finally:
            pool.leave(time.monotonic() - began)

    @app.get("/v1/models", response_model=schema.ModelList, responses=MODELS, tags=["OpenAI"])
    async def models(request: Request) -> Response:
        """What the upstream has, or the model that it is asked for."""
        if upstream.model is not None:
            return JSONResponse({"object": "list", "data": [_card(upstream.model)]})
        reply, data = await listed(request)
        return Response(data, reply.status, _headers(reply))

    @app.get("/v1/models/{model:path}", response_model=schema.ModelCard, responses=MODELS, tags=["OpenAI"])
    async def one(model: str, request: Request) -> Response:
        """One of these models, by its id."""
        if upstream.model is None:
            reply, data = await listed(request)
            if not 200 <= reply.status < 300:
                return Response(data, reply.status, _headers(reply))
            cards = _cards(data)
        else:
            cards = [_card(upstream.model)]
        for card in cards:
            if card.get("id") == model:
                return JSONResponse(card)
        raise ApiError(404, "the upstream has no such model", code="model_not_found", param="model")


async def _mend(asked: Asked, settings: Settings, budget: Budget) -> Mend:
    """What is to be done about a request."""
    picture, unseen = None, None
    if asked.picture is not None:
        picture, unseen = await _receive(asked.picture, asked.options, settings, budget)
    return Mend(picture, unseen, asked.question, asked.options.pdc, asked.options.sms)


async def _receive(
    url: str, view: schema.View, settings: Settings, budget: Budget
) -> tuple[Picture | None, str | None]:
    """A picture, or why it is not looked at: the upstream may know one that this server may not or cannot fetch."""
    try:
        return await receive(url, view, settings, budget), None
    except ImcError as error:
        if is_embedded(url):
            raise
        return None, f"not looked at: {error}"


async def _check_others(asked: Asked, pool: Pool, settings: Settings, budget: Budget) -> None:
    """What is sent on as it is, fetched where it is an address: pictures of earlier messages, and beside the last.

    Raises:
        ApiError: one is not known to be gradable, or may stand where nobody can look.
    """
    asked.rewrite()
    if (what := asked.unclear) is not None:
        message = f"{what} is not looked at, and no such picture is sent; write it as OpenAI's interface has it"
        raise ApiError(422, message, code="not_gradable")
    for kind in asked.unread:
        message = f"a part of type {kind} is not looked at, and no such picture is sent; send it as an image_url"
        raise ApiError(422, message, code="not_gradable")
    for place in asked.others:
        url = place[0][place[1]]
        picture, unseen = await _receive(url, schema.View(), settings, budget)
        mended = await pool.run(Mend(picture, unseen, None, pdc=True, sms=False, restore=False), budget)
        _check_gradable(mended.image)
        if mended.picture is not None:
            asked.replace(place, mended.picture)


def _check_gradable(image: ImageReport) -> None:
    if image.gradable is not True:
        why = image.reason or "its noise was not looked for"
        raise ApiError(422, f"the picture is not known to be gradable ({why}); take another", code="not_gradable")


def _headers(reply: Reply) -> dict[str, str]:
    """Those that concern the client; none that cannot be sent, such as one folded over two lines."""
    found = {name: reply.header(name) for name in PASSED}
    return {name: value for name, value in found.items() if value and value.isascii() and value.isprintable()}


def _card(model: str) -> Row:
    return {"id": model, "object": "model", "created": 0, "owned_by": "upstream"}


def _cards(data: bytes) -> list[Row]:
    """The models of a list.

    Raises:
        UpstreamError: it is none.
    """
    try:
        found: Any = json.loads(data)["data"]
        return [card for card in found if isinstance(card, dict)]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise UpstreamError("the upstream's list of models cannot be read; check its URL") from error
