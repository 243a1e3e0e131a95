"""The routes of a server whose answers come from another one (`imc-lite serve --upstream`)."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from imc_lite.errors import ImcError
from imc_lite.server import schema
from imc_lite.server.asked import Asked
from imc_lite.server.budget import Budget
from imc_lite.server.description import FORWARDED, FORWARDED_BODY, MODELS, STREAM
from imc_lite.server.errors import ApiError, busy
from imc_lite.server.mend import Mend, Mended, report
from imc_lite.server.metrics import Metrics
from imc_lite.server.pictures import is_embedded, receive
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
            _check_gradable(mended, settings)
        asked.put(mended.question, mended.picture)
        began = time.perf_counter()

        def row(told: Told) -> Row:
            metrics.tokens.inc(told.tokens)
            decode = 1000 * (time.perf_counter() - began)
            times = {"decode": decode, "assess": 0.0, "total": sum(mended.timings_ms.values()) + decode}
            return report(mended, told.id, told.text, told.model or asked.model, times)

        reply, body = await exchange(upstream, "POST", CHAT, asked.encoded(), budget)
        headers = _headers(reply)
        if not 200 <= reply.status < 300:
            return Response(await whole(body), reply.status, headers)
        if headers.get("content-type", "").lower().startswith("text/event-stream"):
            return StreamingResponse(events(body, asked.choices, row), reply.status, headers)
        return Response(with_report(await whole(body), row), reply.status, headers)

    async def listed(request: Request) -> tuple[Reply, bytes]:
        """As much as questions, these requests wait for the upstream: they take a place in the line."""
        if not pool.admit():
            raise busy(pool.retry_after())
        try:
            reply, body = await exchange(upstream, "GET", "/models", None, request.state.budget)
            return reply, await whole(body)
        finally:
            pool.leave()

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
    """What is to be done about a request. A picture elsewhere that this server may not or cannot fetch is not looked
    at: the upstream may know it."""
    options, picture, unseen = asked.options, None, None
    if asked.picture is not None:
        try:
            picture = await receive(asked.picture, options, settings, budget)
        except ImcError as error:
            if is_embedded(asked.picture):
                raise
            unseen = f"not looked at: {error}"
    return Mend(picture, unseen, asked.question, options.pdc, options.sms)


def _check_gradable(mended: Mended, settings: Settings) -> None:
    if settings.refuse_ungradable and mended.image.gradable is not True:
        why = mended.image.reason or "its noise was not looked for"
        raise ApiError(422, f"the picture is not known to be gradable ({why}); take another", code="not_gradable")


def _headers(reply: Reply) -> dict[str, str]:
    found = {name: reply.header(name) for name in PASSED}
    return {name: value for name, value in found.items() if value is not None}


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
