"""One question about one picture, put to an upstream."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from imc_lite.errors import shown
from imc_lite.models.base import Generation, TokenLogprob
from imc_lite.models.deadline import NEVER, Deadline, DeadlineError
from imc_lite.upstream.client import KEY_VARIABLE, Upstream
from imc_lite.upstream.errors import UpstreamError, UpstreamUnavailable
from imc_lite.upstream.told import NO_COMPLETION, Row, Told, error_message, read_object

CHAT = "/chat/completions"
UNKNOWN = "unknown"
MAY_MEAN_LOGPROBS = (400, 403, 422, 501)  # statuses of servers that refuse a request for what they cannot give
THOUGHTS = ("reasoning", "reasoning_content")  # of messages that hold more than the answer
REMEDIES = {401: f"check the key in {KEY_VARIABLE}", 403: f"check the key in {KEY_VARIABLE}"}
REMEDIES |= dict.fromkeys((404, 405), "check its URL and the model's name")
REMEDIES |= dict.fromkeys((429, 502, 503, 504), "ask again later")


@dataclass
class Chat:
    """Asks an upstream, greedily and with a fixed seed.

    It asks for the probabilities of the answer's tokens until the upstream turns out to refuse that.
    """

    upstream: Upstream
    _gives_logprobs: bool = True

    def ask(
        self, question: str, picture: str, max_new_tokens: int, deadline: Deadline = NEVER, top_logprobs: int = 0
    ) -> tuple[Generation, str]:
        """The answer, and the model that the upstream says it is from.

        Args:
            question: as it is to be read.
            picture: a data URI.
            max_new_tokens: the answer is cut off there.
            deadline: looked at all the while; the upstream's own `timeout` holds besides.
            top_logprobs: of each token so many of the likeliest.

        Returns:
            The answer, without log-probabilities where the upstream gives none, or gives those of its thoughts too.

        Raises:
            UpstreamUnavailable: the upstream cannot be reached, takes too long, or would refuse other questions too.
            UpstreamError: it refuses this one, or its answer has no text, or not the `top_logprobs` that are asked for.
            DeadlineError: the answer is no longer wanted.
        """
        parts: list[Row] = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": picture}}]
        body: Row = {} if self.upstream.model is None else {"model": self.upstream.model}
        body |= {"messages": [{"role": "user", "content": parts}], "temperature": 0, "seed": 0}
        body |= {"max_tokens": max_new_tokens}
        wanted: Row = {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {"logprobs": True}
        own = deadline.within(self.upstream.timeout)
        try:
            with_logprobs = bool(top_logprobs) or self._gives_logprobs
            status, data = self._post(body | wanted if with_logprobs else body, own)
            if with_logprobs and not top_logprobs and status in MAY_MEAN_LOGPROBS:
                status, data = self._post(body, own)
                self._gives_logprobs = not 200 <= status < 300
        except DeadlineError:
            deadline.check()
            why = f"the upstream has not answered within {self.upstream.timeout:g} seconds"
            raise UpstreamUnavailable(f"{why}; give it more time, or a smaller model") from None
        return self._read(status, data, max_new_tokens, top_logprobs)

    def _post(self, body: Row, deadline: Deadline) -> tuple[int, bytes]:
        with self.upstream.send("POST", CHAT, json.dumps(body).encode(), deadline) as reply:
            return reply.status, b"".join(reply.chunks())

    def _read(self, status: int, data: bytes, max_new_tokens: int, top_logprobs: int) -> tuple[Generation, str]:
        said = read_object(data)
        if not 200 <= status < 300 or (said is not None and said.get("error")):
            raise self._refused(status, said)
        choices = None if said is None else said.get("choices")
        if said is None or not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise UpstreamUnavailable(NO_COMPLETION)
        told = Told()
        told.take(said)
        text = (told.text or "").strip()
        if not text:
            why = f"the upstream's answer of at most {max_new_tokens} tokens has no text"
            raise UpstreamError(f"{why}; take a model that answers at once, without thinking aloud")
        tokens = _tokens(choices[0])
        if top_logprobs and not any(len(likeliest) >= min(2, top_logprobs) for likeliest in tokens):
            raise UpstreamError("the upstream gives no probabilities of single tokens; do not ask for them")
        logprobs = tuple(likeliest[0].logprob for likeliest in tokens)
        top = tuple(likeliest[:top_logprobs] for likeliest in tokens) if top_logprobs else ()
        return Generation(text, logprobs, top), told.model or self.upstream.model or UNKNOWN

    def _refused(self, status: int, said: Row | None) -> UpstreamError:
        """For a reply that is an error: what the upstream says, and what to do."""
        what = self.upstream.without_key(error_message(said))
        line = f"the upstream answers with status {status}" + (f": {shown(what)}" if what else "")
        if status in REMEDIES:
            return UpstreamUnavailable(f"{line}; {REMEDIES[status]}")
        return UpstreamError(f"{line}; mend that, or take a model that is shown pictures")


def _tokens(choice: Row) -> list[tuple[TokenLogprob, ...]]:
    """Each token that was written, and after it the others that came nearest.

    None where they are not given, where one cannot be read, or where they are of thoughts too.
    """
    message, given = choice.get("message"), choice.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    if not isinstance(content, list) or not isinstance(message, dict) or any(message.get(name) for name in THOUGHTS):
        return []
    try:
        found = []
        for entry in content:
            written = _token(entry)
            near = [_token(other) for other in entry.get("top_logprobs") or ()]
            again = next((i for i, token in enumerate(near) if token.text == written.text), len(near))
            found.append((written, *near[:again], *near[again + 1 :]))
        return found
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return []


def _token(entry: Row) -> TokenLogprob:
    text, logprob = entry["token"], float(entry["logprob"])
    if not isinstance(text, str) or not math.isfinite(logprob):
        raise ValueError
    return TokenLogprob(text, min(0.0, logprob))
