"""OpenAI's chat, spoken by a model that answers single questions about one picture."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from imc_lite.errors import ImcError
from imc_lite.models.base import TokenLogprob
from imc_lite.server import schema
from imc_lite.server.budget import Budget, inbox
from imc_lite.server.errors import ApiError, internal, no_model, refused
from imc_lite.server.jobs import Answered, Answers, Ask, Growth
from imc_lite.server.pool import Pool, awaitable
from imc_lite.sms.question import check_questions


def read(body: schema.ChatRequest, models: tuple[str, ...], most: int) -> tuple[str, tuple[str, ...], int]:
    """The picture's URL, the questions about it and the most tokens of each answer.

    Raises:
        ApiError: another model, nothing asked, no picture or several, or something that this model cannot do.
        ImcError: a question that cannot be asked.
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
    text = " ".join(p.text for p in _parts(asked[-1]) if isinstance(p, schema.TextPart))
    questions: tuple[str, ...] = (text,)
    if body.imc is not None and body.imc.questions is not None:
        questions = tuple(body.imc.questions)
        if text.strip():
            message = "imc.questions stand in the place of the last message's text; leave one of the two out"
            raise ApiError(400, message, code="bad_input", param="imc.questions")
    check_questions(questions)
    limit = body.max_completion_tokens or body.max_tokens or most
    url = pictures[-1][0].image_url
    return url if isinstance(url, str) else url.url, questions, min(limit, most)


def _parts(message: schema.Message) -> list[schema.TextPart | schema.ImagePart]:
    content = message.content or []
    return [schema.TextPart(type="text", text=content)] if isinstance(content, str) else content


def completion(answers: Answers, ask: Ask) -> dict[str, Any]:
    """OpenAI's chat.completion with a choice a question, and the report beside them."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answered.result.answer, "refusal": _refusal(answered)},
            "logprobs": _logprobs(answered, ask),
            "finish_reason": _finish(answered),
        }
        for index, answered in enumerate(answers.each)
    ]
    head = _head(ask, answers.report["model"]["id"], "chat.completion")
    return {**head, "choices": choices, "usage": _usage(answers), "imc": answers.report}


async def events(
    pool: Pool, ask: Ask, usage: bool, budget: Budget, done: Callable[[Answers], object]
) -> AsyncGenerator[str, None]:
    """Server-sent events as the answers grow, one after the other; the last chunk with a choice carries the report.

    Raises:
        ApiError, ImcError: before the first event only; later failures are sent as an event.
    """
    put, queue = inbox()
    ask.emit = put
    future = pool.submit(ask, budget)
    future.add_done_callback(put)
    begun, sent = -1, ""  # the choice that grows, and what was sent of its text
    last = len(ask.questions) - 1

    def event(index: int, delta: dict[str, Any], whole: Answered | None = None, **more: Any) -> str:
        logprobs, finish = (None, None) if whole is None else (_logprobs(whole, ask), _finish(whole))
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = {**_head(ask, pool.model_id, "chat.completion.chunk"), "choices": [choice], **more}
        return _event(chunk | ({"usage": None} if usage else {}))

    try:
        while True:
            item = await budget.wait(queue.get())
            if item is future:
                break
            growth: Growth = item
            index, text, whole = growth.index, growth.text, growth.whole
            if index != begun:
                yield event(index, {"role": "assistant", "content": "", "refusal": None})
                begun, sent = index, ""
            # The text so far may be cut inside a character; it is sent once it is whole.
            if text.startswith(sent) and len(text) > len(sent) and (whole is not None or not text.endswith("\ufffd")):
                yield event(index, {"content": text[len(sent) :]})
                sent = text
            if whole is not None and (refusal := _refusal(whole)) is not None:
                yield event(index, {"refusal": refusal})
            if whole is not None and index < last:
                yield event(index, {}, whole)
        answers = await budget.wait(awaitable(future))
        done(answers)
        yield event(last, {}, answers.each[last], imc=answers.report)
        if usage:
            head = _head(ask, pool.model_id, "chat.completion.chunk")
            yield _event({**head, "choices": [], "usage": _usage(answers)})
        yield "data: [DONE]\n\n"
    except Exception as error:
        if begun < 0:
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
    return {"id": ask.id, "object": kind, "created": ask.created, "model": model}


def _refusal(answered: Answered) -> str | None:
    """Why an answer is not given, where it is not."""
    found = answered.result.selective
    return None if found is None or found.refusal is None else f"the answer {found.refusal}"


def _finish(answered: Answered) -> str:
    return "length" if answered.result.cut and answered.result.answer is not None else "stop"


def _logprobs(answered: Answered, ask: Ask) -> dict[str, Any] | None:
    """The tokens of the answer, and of each as many of the likeliest as were asked for; None where none were."""
    if ask.top_logprobs is None:
        return None
    rows = [
        {**_token(likeliest[0]), "top_logprobs": [_token(c) for c in likeliest[: ask.top_logprobs]]}
        for likeliest in answered.result.top_logprobs
    ]
    return {"content": rows, "refusal": None}


def _token(candidate: TokenLogprob) -> dict[str, Any]:
    return {"token": candidate.text, "logprob": candidate.logprob, "bytes": list(candidate.text.encode())}


def _usage(answers: Answers) -> dict[str, int]:
    """Tokens of all questions and of all answers; the picture's are not counted."""
    asked, answered = sum(a.prompt_tokens for a in answers.each), sum(a.tokens for a in answers.each)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
