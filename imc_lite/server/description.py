"""What /openapi.json says beyond the routes' own types."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from imc_lite.server import schema

Responses = dict[int | str, dict[str, Any]]

EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAM: Responses = {
    200: {
        "description": "the answer; with `stream` chunks as `data: {…}` lines and `data: [DONE]` at the end",
        "content": {"text/event-stream": {"schema": EVENT}},
    }
}
PROMETHEUS: Responses = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
HEALTH: Responses = {503: {"model": schema.Health, "description": "not ready"}}


def _errors(why: dict[int, str]) -> Responses:
    """Replies in OpenAI's shape of an error, by status."""
    return {status: {"model": schema.Error, "description": text} for status, text in why.items()}


ANY_ROUTE = _errors({421: "not this machine's name"})
KEY = _errors({401: "wrong key"})
ONE_MODEL = KEY | _errors({404: "no such model"})
WORK = ONE_MODEL | _errors(
    {
        400: "bad input",
        408: "slow request",
        413: "too large",
        429: "queue full",
        500: "a fault of the server",
        503: "the server is ending",
        504: "too late",
    }
)
MODELS = ONE_MODEL | _errors({429: "queue full", 502: "the upstream cannot be reached", 504: "too late"})
FORWARDED = WORK | _errors(
    {422: "the picture is not gradable", 502: "the upstream cannot be reached; its own errors come as they are"}
)
FORWARDED_BODY = {
    "requestBody": {
        "description": "OpenAI's chat request, as the upstream takes it; `imc` is read here and not sent on",
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": schema.EXAMPLE}},
    }
}


def describe(app: FastAPI, keyed: bool) -> dict[str, Any]:
    """OpenAPI without FastAPI's own 422, which is never sent, and with the key where one is needed."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        found["info"]["description"] = "Questions about medical pictures, in the shape of OpenAI's chat API."
        for path, operations in found["paths"].items():
            for operation in operations.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
                if keyed and path.startswith("/v1/"):
                    operation["security"] = [{"key": []}]
        parts = found["components"]
        for name in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(name, None)
        if keyed:
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = found
    return app.openapi_schema
