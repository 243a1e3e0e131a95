"""Errors in the shape that OpenAI's clients turn into exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from imc_lite.errors import ImcError, shown
from imc_lite.upstream.errors import UpstreamError

NO_JSON = "the body cannot be read as JSON; send UTF-8 JSON, numbers of at most 4,300 digits, and not nested deeply"
NO_ROUTE = "Not Found: questions go to /v1/chat/completions, and /openapi.json lists what else there is"


class ApiError(Exception):
    """A reply that is no success."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers or {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON that is sent."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def refused(error: ImcError) -> ApiError:
    """What the library says of bad input, or of the server that was to answer."""
    if isinstance(error, UpstreamError):
        return ApiError(502, str(error), kind="server_error", code="upstream_failed")
    return ApiError(400, " ".join(str(error).split()), code="bad_input")


def internal() -> ApiError:
    """For faults of ours; the log names their type, the client learns nothing."""
    return ApiError(500, "the server failed on this request; try another", kind="server_error", code="internal_error")


def busy(seconds: int) -> ApiError:
    return ApiError(
        429,
        f"too many requests wait already; try again in {seconds} s",
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": str(seconds)},
    )


def late(seconds: float) -> ApiError:
    return ApiError(504, f"no answer within {seconds:g} s; try again later", kind="server_error", code="timeout")


def ending() -> ApiError:
    return ApiError(503, "the server is ending; ask again in a while", kind="server_error", code="shutting_down")


def no_model(model: str) -> ApiError:
    return ApiError(404, f"this server has the model {model!r} only", code="model_not_found", param="model")


def handle_errors(app: FastAPI) -> None:
    """Have `app` send everything that is no success in OpenAI's shape."""

    @app.exception_handler(ApiError)
    async def _known(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(ImcError)
    async def _refused(_: Request, error: ImcError) -> Response:
        return refused(error).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return invalid(_plainest(error.errors())).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # Besides the route's own methods, OPTIONS is answered everywhere, and HEAD where GET is.
            own = {*headers.get("Allow", "").split(", "), "OPTIONS"}
            headers["Allow"] = ", ".join(sorted(own | ({"HEAD"} if "GET" in own else set())))
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=headers)
        code = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        message = {400: NO_JSON, 404: NO_ROUTE}.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, code=code, headers=headers).response()

    @app.exception_handler(Exception)
    async def _fault(_: Request, error: Exception) -> Response:
        return internal().response()


def _plainest(faults: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first fault. Where that says that a value is no text, and others say what is wrong with it as a list, the one
    that looked deepest: of content that may be either, pydantic tries text first."""
    first = faults[0]
    if first["type"] != "string_type":
        return first
    above = first["loc"][:-1]
    return max((f for f in faults if f["loc"][: len(above)] == above), key=lambda f: len(f["loc"]))


def invalid(fault: dict[str, Any]) -> ApiError:
    """The first of pydantic's faults; one is enough, and nothing but the name of a field is repeated of the input."""
    if fault["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON ({fault['ctx']['error']}); check it", code="invalid_request")
    if fault["type"] == "missing" and len(fault["loc"]) == 1:
        return ApiError(400, "the request has no body; send JSON", code="invalid_request")
    names = [str(part) for part in fault["loc"][1:]]
    # pydantic also names the member of a union that it tried.
    tried = ("list[", "tagged-union", "function-")
    where = shown(".".join(n for n in names if n not in ("str", "ImageUrl") and not n.startswith(tried)))
    what = fault["msg"]
    if fault["type"] == "union_tag_invalid":
        what = f"the type must be one of {fault['ctx']['expected_tags']}"
    return ApiError(400, f"{where or 'body'}: {what}", code="invalid_request", param=where or None)
