"""Errors in the shape that OpenAI's clients turn into exceptions."""

from __future__ import annotations

from starlette.responses import JSONResponse


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
