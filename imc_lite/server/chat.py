"""OpenAI's chat, spoken by a model that answers one question about one picture."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from imc_lite.errors import ImcError
from imc_lite.models.base import TokenLogprob
from imc_lite.server import schema
from imc_lite.server.budget import Budget, inbox
from imc_lite.server.errors import ApiError, internal, no_model, refused
from imc_lite.server.jobs import Ask
from imc_lite.server.pool import Pool, awaitable


def read(body: schema.ChatRequest, models: tuple[str, ...], most: int) -> tuple[str, str, int]:
    """The picture's URL, the question and the most tokens of the answer.

    Raises:
        ApiError: another model, nothing asked, no picture or several, or something that this model cannot do.
    """
    if body.model and body.model.lower() not in (m.lower() for m in models):
        raise no_model(models[0])
    for name, value in (body.model_extra or {}).items():
        if name in schema.HARMLESS and value is not None and value not in schema.HARMLESS[name]:
            raise ApiError(400, f"{name} is not supported; leave it out", code="unsupported_parameter", param=name)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs goes with logprobs: true", code="bad_input", param="top_logprobs")
    asked = [m for m in body.messages if m.role == "user"]
    if not asked or body.messages[-1].role != "user":
        raise ApiError(400, "the last message must be the user's", code="bad_input", param="messages")
    pictures = [found for m in asked if (found := [p for p in _parts(m) if isinstance(p, schema.ImagePart)])]
    if not pictures:
        message = "no picture: add an image_url part with a data URI to the user's message"
        raise ApiError(400, message, code="bad_input", param="messages")
    if len(pictures[-1]) > 1:
        raise ApiError(400, "one picture a question; ask about each in turn", code="bad_input", param="messages")
    question = " ".join(p.text for p in _parts(asked[-1]) if isinstance(p, schema.TextPart))
    limit = body.max_completion_tokens or body.max_tokens or most
    url = pictures[-1][0].image_url
    return url if isinstance(url, str) else url.url, question, min(limit, most)


def _parts(message: schema.Message) -> list[schema.TextPart | schema.ImagePart]:
    content = message.content or []
    return [schema.TextPart(type="text", text=content)] if isinstance(content, str) else content


def completion(row: dict[str, Any], ask: Ask) -> dict[str, Any]:
    """OpenAI's chat.completion with the report beside it."""
    message = {"role": "assistant", "content": row["answer"], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": _logprobs(ask), "finish_reason": _finish(ask)}
    head = _head(ask, row["model"]["id"], "chat.completion")
    return {**head, "choices": [choice], "usage": _usage(ask), "imc": row}


async def events(
    pool: Pool, ask: Ask, usage: bool, budget: Budget, done: Callable[[dict[str, Any]], object]
) -> AsyncGenerator[str, None]:
    """Server-sent events as the answer grows; the last chunk with a choice carries the report.

    Raises:
        ApiError, ImcError: before the first event only; later failures are sent as an event.
    """
    put, queue = inbox()
    ask.emit = put
    future = pool.submit(ask, budget)
    future.add_done_callback(put)
    sent, began = "", False

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        logprobs = None if finish is None else _logprobs(ask)
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = {**_head(ask, pool.model_id, "chat.completion.chunk"), "choices": [choice], **more}
        return _event(chunk | ({"usage": None} if usage else {}))

    try:
        while True:
            item = await budget.wait(queue.get())
            row = await budget.wait(awaitable(future)) if item is future else None
            text = item if row is None else row["answer"]
            if not began:
                yield event({"role": "assistant", "content": "", "refusal": None})
                began = True
            # The text so far may be cut inside a character; it is sent once it is whole.
            if text.startswith(sent) and len(text) > len(sent) and (row is not None or not text.endswith("\ufffd")):
                yield event({"content": text[len(sent) :]})
                sent = text
            if row is not None:
                break
        done(row)
        yield event({}, _finish(ask), imc=row)
        if usage:
            head = _head(ask, pool.model_id, "chat.completion.chunk")
            yield _event({**head, "choices": [], "usage": _usage(ask)})
        yield "data: [DONE]\n\n"
    except Exception as error:
        if not began:
            raise
        known = error if isinstance(error, ApiError) else internal()
        if isinstance(error, ImcError):
            known = refused(error)
        yield _event(known.body())
    finally:
        future.cancel()


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _head(ask: Ask, model: str, kind: str) -> dict[str, Any]:
    return {"id": ask.id, "object": kind, "created": int(time.time()), "model": model}


def _finish(ask: Ask) -> str:
    return "length" if ask.tokens >= ask.max_new_tokens else "stop"


def _logprobs(ask: Ask) -> dict[str, Any] | None:
    """The tokens of the answer, and of each as many of the likeliest as were asked for; None where none were."""
    if ask.top_logprobs is None:
        return None
    rows = [
        {**_token(likeliest[0]), "top_logprobs": [_token(c) for c in likeliest[: ask.top_logprobs]]}
        for likeliest in ask.found
    ]
    return {"content": rows, "refusal": None}


def _token(candidate: TokenLogprob) -> dict[str, Any]:
    return {"token": candidate.text, "logprob": candidate.logprob, "bytes": list(candidate.text.encode())}


def _usage(ask: Ask) -> dict[str, int]:
    """Tokens of the question and of the answer; the picture's are not counted."""
    asked, answered = ask.prompt_tokens, ask.tokens
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
