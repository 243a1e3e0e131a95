"""The routes."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from imc_lite import __version__
from imc_lite.server import jobs, reports, schema, tryout
from imc_lite.server.budget import Budget
from imc_lite.server.chat import completion, events, read
from imc_lite.server.description import ANY_ROUTE, HEALTH, KEY, ONE_MODEL, PROMETHEUS, STREAM, WORK, describe
from imc_lite.server.errors import handle_errors, no_model
from imc_lite.server.forward import forward
from imc_lite.server.guard import Guard
from imc_lite.server.metrics import Metrics
from imc_lite.server.page import page
from imc_lite.server.pictures import Picture, receive
from imc_lite.server.pool import Job, Pool
from imc_lite.server.settings import Settings
from imc_lite.sms.question import check_question

T = TypeVar("T")


def create_app(pool: Pool, settings: Settings, log: Callable[[str], object]) -> Guard:
    """The ASGI application.

    Args:
        pool: started by the caller, closed by the caller.
        settings: limits and access.
        log: called with one line a request, without anything of its content.
    """
    metrics = Metrics(pool)
    app = FastAPI(
        title="imc-lite",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=ANY_ROUTE,
        # FastAPI would tell a tracing library that is set up for the whole host of bad requests, with their content.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    if settings.upstream is None:
        _answers(app, pool, settings, metrics)
        _models(app, pool)
    else:
        forward(app, pool, settings, settings.upstream, metrics)
    _looks(app, pool, settings, metrics)
    _operation(app, pool, settings, metrics)
    handle_errors(app)
    app.openapi = lambda: describe(app, settings.api_key is not None)  # type: ignore[method-assign]
    return Guard(app, pool, metrics, settings, log)


def _answers(app: FastAPI, pool: Pool, settings: Settings, metrics: Metrics) -> None:
    """The model answers."""

    @app.post("/v1/chat/completions", response_model=schema.ChatCompletion, responses=WORK | STREAM, tags=["OpenAI"])
    async def chat(body: schema.ChatRequest, request: Request) -> Response:
        """Answer a question about a picture, or several, whole or as server-sent events."""
        url, questions, limit = read(body, (pool.model_id, "default"), settings.max_new_tokens)
        options = body.imc or schema.ImcOptions()
        ask = jobs.Ask(
            picture=await receive(url, options, settings, _budget(request)),
            questions=questions,
            several=options.questions is not None,
            pdc=options.pdc,
            sms=options.sms,
            max_new_tokens=limit,
            max_risk=settings.limit(options.max_risk),
            check_wording=options.check_wording,
            id=f"chatcmpl-{uuid.uuid4().hex}",
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )

        def done(answers: jobs.Answers) -> None:
            metrics.tokens.inc(sum(answered.tokens for answered in answers.each))
            metrics.count(answers.report["image"])

        if body.stream:
            usage = body.stream_options is not None and bool(body.stream_options.include_usage)
            stream = events(pool, ask, usage, _budget(request), done)
            first = await anext(stream)
            return StreamingResponse(_after(first, stream), media_type="text/event-stream")
        answers = await pool.run(ask, _budget(request))
        done(answers)
        return JSONResponse(completion(answers, ask))


def _looks(app: FastAPI, pool: Pool, settings: Settings, metrics: Metrics) -> None:
    """Routes that need no answer; as the others, they take a place in the line and a worker's time."""

    async def work(request: Request, job: Job[T]) -> T:
        return await pool.run(job, _budget(request))

    async def picture(request: Request, body: schema.PictureRequest) -> Picture:
        return await receive(body.image, body, settings, _budget(request))

    @app.post("/v1/inspect", response_model=reports.ImageReport, responses=WORK, tags=["imc-lite"])
    async def inspect(body: schema.PictureRequest, request: Request) -> Response:
        """Which noise a picture carries, how strong, and whether it is gradable."""
        report = await work(request, jobs.inspect(await picture(request, body)))
        metrics.count(report)
        return JSONResponse(report)

    @app.post("/v1/restore", response_model=reports.Shown, responses=WORK, tags=["imc-lite"])
    async def show(body: schema.PictureRequest, request: Request) -> Response:
        """The verdict, and the picture before and after its noise was taken out."""
        shown = await work(request, jobs.show(await picture(request, body)))
        metrics.count(shown["image"])
        return JSONResponse(shown)

    @app.post("/v1/noise", response_model=tryout.Damaged, responses=WORK, tags=["imc-lite"])
    async def damage(body: tryout.NoiseRequest, request: Request) -> Response:
        """A noisy copy of a picture, at most 640 pixels long, to see what noise does."""
        job = tryout.damage(await picture(request, body), body.kind, body.severity, body.seed)
        return JSONResponse(await work(request, job))

    @app.get("/v1/examples", response_model=tryout.Examples, responses=KEY, tags=["imc-lite"])
    async def packaged() -> Response:
        """Three pictures of the packaged benchmark, each with a question."""
        return JSONResponse({"examples": tryout.examples()})

    @app.post("/v1/repair", response_model=reports.QuestionReport, responses=WORK, tags=["imc-lite"])
    async def repair(body: schema.RepairRequest, request: Request) -> Response:
        """The question, repaired where that is safe, with every edit."""
        check_question(body.question)
        return JSONResponse(await work(request, jobs.repair(body.question)))


def _models(app: FastAPI, pool: Pool) -> None:
    """The one model, as OpenAI's clients look for it."""
    began = int(time.time())

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": began, "owned_by": "imc-lite"}

    @app.get("/v1/models", response_model=schema.ModelList, responses=KEY, tags=["OpenAI"])
    async def models() -> Response:
        """The one model that answers."""
        return JSONResponse({"object": "list", "data": [card(pool.model_id)]})

    @app.get("/v1/models/{model:path}", response_model=schema.ModelCard, responses=ONE_MODEL, tags=["OpenAI"])
    async def model(model: str) -> Response:
        """The model by its id, or as `default`."""
        if model.lower() not in (pool.model_id.lower(), "default"):
            raise no_model(pool.model_id)
        return JSONResponse(card(model))


def _operation(app: FastAPI, pool: Pool, settings: Settings, metrics: Metrics) -> None:
    """What whoever runs the server looks at."""

    @app.get("/healthz", response_model=schema.Health, responses=HEALTH, tags=["operation"])
    async def healthz() -> Response:
        """Whether the models are open."""
        body = {"status": "ok" if pool.ready else "starting", "model": pool.model_id, "version": pool.model_version}
        return JSONResponse(body, 200 if pool.ready else 503)

    @app.get("/metrics", response_class=Response, responses=PROMETHEUS, tags=["operation"])
    async def prometheus() -> Response:
        """Counts and times for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    # Another server's answers are not calibrated, so nothing is made of other wordings there.
    html, policy = page(wording=settings.upstream is None)

    @app.get("/", response_class=HTMLResponse, tags=["operation"])
    async def index() -> Response:
        """The page."""
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _budget(request: Request) -> Budget:
    found: Budget = request.state.budget
    return found


async def _after(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """Events with the one that was waited for in front; a refusal comes before any of them, as plain JSON."""
    try:
        yield first
        async for event in rest:
            yield event
    finally:
        await rest.aclose()
