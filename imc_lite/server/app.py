"""The routes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from imc_lite import __version__
from imc_lite.errors import ImcError
from imc_lite.pipeline import check_question
from imc_lite.server import jobs, schema
from imc_lite.server.chat import completion, events, read
from imc_lite.server.errors import ApiError, internal, late
from imc_lite.server.guard import Guard
from imc_lite.server.jobs import Picture
from imc_lite.server.metrics import Metrics
from imc_lite.server.page import page
from imc_lite.server.pictures import fetch
from imc_lite.server.pool import Job, Pool
from imc_lite.server.settings import Settings

T = TypeVar("T")
FAILURES = {400: "bad input", 401: "wrong key", 404: "no such model", 408: "slow request", 413: "too large"}
FAILURES |= {429: "queue full", 500: "a fault of the server", 504: "too late"}


def create_app(pool: Pool, settings: Settings, log: Callable[[str], object]) -> Guard:
    """The ASGI application.

    Args:
        pool: started by the caller, closed by the caller.
        settings: limits and access.
        log: called with one line a request, without anything of its content.
    """
    metrics = Metrics(pool)
    began = int(time.time())
    stranger: dict[int | str, dict[str, Any]] = {421: {"model": schema.Error, "description": "not this machine's name"}}
    app = FastAPI(title="imc-lite", version=__version__, docs_url=None, redoc_url=None, responses=stranger)
    replies: dict[int | str, dict[str, Any]] = {
        c: {"model": schema.Error, "description": d} for c, d in FAILURES.items()
    }

    async def work(request: Request, job: Job[T]) -> T:
        try:
            return await pool.run(job, request.state.deadline)
        except asyncio.TimeoutError:
            raise late(settings.timeout) from None

    async def picture(request: Request, url: str, view: schema.View) -> Picture:
        source: str | bytes = url
        if url[:5].lower() != "data:":
            deadline = request.state.deadline
            source = await asyncio.to_thread(fetch, url, settings.allow_hosts, settings.max_body, deadline)
        return Picture(source, view.window, view.frame, settings.max_pixels)

    @app.post("/v1/chat/completions", response_model=schema.ChatCompletion, responses=replies | STREAM, tags=["OpenAI"])
    async def chat(body: schema.ChatRequest, request: Request) -> Response:
        """Answer a question about a picture, whole or as server-sent events."""
        url, question, limit = read(body, (pool.model_id, "default"), settings.max_new_tokens)
        check_question(question)
        ask = jobs.Ask(
            picture=await picture(request, url, body.imc),
            question=question,
            pdc=body.imc.pdc,
            sms=body.imc.sms,
            max_new_tokens=limit,
            id=f"chatcmpl-{uuid.uuid4().hex}",
        )
        try:
            if body.stream:
                usage = body.stream_options is not None and body.stream_options.include_usage
                deadline = request.state.deadline
                stream = events(pool, ask, usage, deadline, settings.timeout, lambda row: count(row, ask))
                first = await anext(stream)
                return StreamingResponse(_after(first, stream), media_type="text/event-stream")
            row = await work(request, ask)
        except BaseException:
            # Late, or the client has gone: the worker stops at the next token.
            ask.stop.set()
            raise
        count(row, ask)
        return JSONResponse(completion(row, ask))

    def count(row: dict[str, Any], ask: jobs.Ask) -> None:
        metrics.tokens.inc(ask.tokens)
        seen(row["image"])

    def seen(report: dict[str, Any]) -> None:
        if report["noise"] is not None:
            metrics.noise.labels(report["noise"]["kind"]).inc()

    @app.get("/v1/models", response_model=schema.ModelList, responses={401: replies[401]}, tags=["OpenAI"])
    async def models() -> Response:
        """The one model that answers."""
        card = {"id": pool.model_id, "object": "model", "created": began, "owned_by": "imc-lite"}
        return JSONResponse({"object": "list", "data": [card]})

    @app.post("/v1/inspect", response_model=schema.ImageReport, responses=replies, tags=["imc-lite"])
    async def inspect(body: schema.PictureRequest, request: Request) -> Response:
        """Which noise a picture carries, how strong, and whether it is gradable."""
        report = await work(request, jobs.inspect(await picture(request, body.image, body)))
        seen(report)
        return JSONResponse(report)

    @app.post("/v1/restore", response_model=schema.Shown, responses=replies, tags=["imc-lite"])
    async def show(body: schema.PictureRequest, request: Request) -> Response:
        """The verdict, and the picture before and after its noise was taken out."""
        shown = await work(request, jobs.show(await picture(request, body.image, body)))
        seen(shown["image"])
        return JSONResponse(shown)

    @app.post("/v1/repair", response_model=schema.QuestionReport, responses=replies, tags=["imc-lite"])
    async def repair(body: schema.RepairRequest, request: Request) -> Response:
        """The question, repaired where that is safe, with every edit."""
        check_question(body.question)
        return JSONResponse(await work(request, jobs.repair(body.question)))

    health = {503: {"model": schema.Health, "description": "not ready"}}

    @app.get("/healthz", response_model=schema.Health, responses=health, tags=["operation"])
    async def healthz() -> Response:
        """Whether the models are open."""
        body = {"status": "ok" if pool.ready else "starting", "model": pool.model_id, "version": pool.model_version}
        return JSONResponse(body, 200 if pool.ready else 503)

    @app.get("/metrics", response_class=Response, responses=PROMETHEUS, tags=["operation"])
    async def prometheus() -> Response:
        """Counts and times for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    html, policy = page()

    @app.get("/", response_class=HTMLResponse, tags=["operation"])
    async def index() -> Response:
        """The page."""
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    _errors(app)
    app.openapi = lambda: _describe(app, settings.api_key is not None)  # type: ignore[method-assign]
    return Guard(app, pool, metrics, settings, log)


STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the answer; with `stream` chunks as `data: {…}` lines and `data: [DONE]` at the end",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
PROMETHEUS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


async def _after(first: str, rest: Any) -> Any:
    """Events with the one that was waited for in front; a refusal comes before any of them, as plain JSON."""
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()


def _errors(app: FastAPI) -> None:
    """Everything that is no success, in OpenAI's shape."""

    @app.exception_handler(ApiError)
    async def _known(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(ImcError)
    async def _refused(_: Request, error: ImcError) -> Response:
        return ApiError(400, " ".join(str(error).split()), code="bad_input").response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        # The first fault is enough; the input itself is not repeated.
        first = error.errors()[0]
        where = ".".join(
            str(p) for p in first["loc"][1:] if not str(p).startswith(("list[", "tagged-union", "function-"))
        )
        message = f"{where or 'body'}: {first['msg']}"[:300]
        return ApiError(400, message, code="invalid_request", param=where[:200] or None).response()

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        return ApiError(error.status_code, str(error.detail), code=code, headers=dict(error.headers or {})).response()

    @app.exception_handler(Exception)
    async def _fault(_: Request, error: Exception) -> Response:
        return internal().response()


def _describe(app: FastAPI, keyed: bool) -> dict[str, Any]:
    """OpenAPI without FastAPI's own 422, which is never sent, and with the key where one is needed."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        found["info"]["description"] = "Questions about medical pictures, in the shape of OpenAI's chat API."
        for path, operations in found["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if keyed and path.startswith("/v1/"):
                    operation["security"] = [{"key": []}]
        parts = found["components"]
        for name in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(name, None)
        if keyed:
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = found
    return app.openapi_schema
