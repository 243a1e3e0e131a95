"""A chat request on its way to another server: what is looked at in it, and what is put in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from imc_lite.errors import shown
from imc_lite.server import schema
from imc_lite.server.errors import ApiError

# Types of parts: where pictures are looked for, and such as hold none.
READ = ("text", "image_url", "refusal", "input_audio")
Place = tuple[dict[str, Any], str]  # an object, and the name under which something stands in it


class Asked:
    """The request as it came. What is not understood stays as it is: the server that answers will say what it thinks.

    Attributes:
        options: of `imc`, which is for this server alone and goes no further.
        choices: how many answers are asked for.
    """

    def __init__(self, raw: bytes, model: str | None) -> None:
        """Read it.

        Args:
            raw: the body.
            model: takes the place of the request's own; None leaves that.

        Raises:
            ApiError, RequestValidationError: it is no JSON object, or `imc` is not what it should be, asks several
                questions, sets a limit to their risk or wants other wordings.
        """
        self._raw, self._body = raw, _read(raw)
        self.options = _options(self._body)
        if self.options.questions is not None:
            message = "imc.questions are not for a server with --upstream; send a request for each question"
            raise ApiError(400, message, code="unsupported_parameter", param="imc.questions")
        for name, given in (
            ("max_risk", self.options.max_risk is not None),
            ("check_wording", self.options.check_wording),
        ):
            if given:
                message = (
                    f"imc.{name} is not for a server with --upstream, whose answers nobody has calibrated; leave it out"
                )
                raise ApiError(400, message, code="unsupported_parameter", param=f"imc.{name}")
        self._changed = self._body.pop("imc", None) is not None
        if model is not None and self._body.get("model") != model:
            self._body["model"], self._changed = model, True
        n = self._body.get("n")
        self.choices = n if isinstance(n, int) and n > 1 else 1
        self._text, self._picture = _places(self._body)

    @property
    def model(self) -> str:
        """The model's name, "" where there is none."""
        return _text(self._body.get("model"))

    @property
    def question(self) -> str | None:
        """The last text of the last message of the user's; None where there is none."""
        return None if self._text is None else self._text[0][self._text[1]]

    @property
    def picture(self) -> str | None:
        """The URL of the last picture of that message; None where there is none."""
        return None if self._picture is None else self._picture[0][self._picture[1]]

    @property
    def others(self) -> list[Place]:
        """Where the URLs of all other pictures stand: of earlier messages, and beside that one."""
        mine = None if self._picture is None else self._picture[0]
        return [place for place in _urls(_messages(self._body)) if place[0] is not mine]

    @property
    def unread(self) -> list[str]:
        """The types of parts in which a picture may stand that nobody here can look at."""
        return [shown(part.get("type")) for part in _parts(_messages(self._body)) if part.get("type") not in READ]

    @property
    def unclear(self) -> str | None:
        """What another server may read otherwise than it is read here; None where there is nothing of that kind."""
        return next(_unclear(self._body), None)

    def rewrite(self) -> None:
        """Send what was read here, and not the bytes that came: of two values of one name, readers take either."""
        self._changed = True

    def put(self, question: str | None, picture: str | None) -> None:
        """Change the question, or the picture's URL; None leaves either as it is."""
        for place, new in ((self._text, question), (self._picture, picture)):
            if place is not None and new is not None:
                self.replace(place, new)

    def replace(self, place: Place, new: str) -> None:
        """Change what stands in one of `others`."""
        place[0][place[1]] = new
        self._changed = True

    def encoded(self) -> bytes:
        """The JSON to send: the very bytes that came, where nothing was changed.

        Raises:
            ApiError: a number in it is too large to be written again.
        """
        if not self._changed:
            return self._raw
        try:
            return json.dumps(self._body, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "the body cannot be sent on; check its numbers", code="invalid_request") from error


def _read(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError too
        why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ApiError(400, f"the body is not JSON ({why}); check it", code="invalid_request") from error
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object; send one with messages", code="invalid_request")
    return body


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _options(body: dict[str, Any]) -> schema.ImcOptions:
    try:
        return schema.ImcOptions.model_validate({} if body.get("imc") is None else body["imc"])
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", "imc", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults) from None


def _places(body: dict[str, Any]) -> tuple[Place | None, Place | None]:
    """Where the question stands, and where the URL of its picture."""
    asked = [message for message in _messages(body) if message.get("role") == "user"][-1:]
    content = asked[0].get("content") if asked else None
    if isinstance(content, str):
        return (asked[0], "content"), None
    texts = [part for part in _parts(asked) if part.get("type") == "text" and isinstance(part.get("text"), str)]
    pictures = _urls(asked)
    return (texts[-1], "text") if texts else None, pictures[-1] if pictures else None


def _unclear(body: dict[str, Any]) -> Iterator[str]:
    yield from _other_letters(body, ("messages",))
    messages = body.get("messages")
    if messages is not None and not isinstance(messages, list):
        yield "messages that are no list"
        return
    for message in messages or []:
        if not isinstance(message, dict):
            yield "a message that is no object"
            continue
        yield from _other_letters(message, ("role", "content"))
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            yield "content that is neither text nor a list"
            continue
        for part in content:
            if not isinstance(part, dict):
                yield "a part that is no object"
                continue
            yield from _other_letters(part, ("type", "image_url"))
            url = part.get("image_url")
            if part.get("type") != "image_url":
                if url is not None:
                    yield f"a part of type {shown(part.get('type'))} with an image_url"
            elif isinstance(url, dict) and isinstance(url.get("url"), str):
                yield from _other_letters(url, ("url",))
            elif not isinstance(url, str):
                yield "an image_url without a url"


def _other_letters(found: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Some readers take names in capitals for the same."""
    for name in found:
        if name not in names and name.lower() in names:
            yield f'the name "{shown(name)}"'


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


def _parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    contents = [content for m in messages if isinstance(content := m.get("content"), list)]
    return [part for content in contents for part in content if isinstance(part, dict)]


def _urls(messages: list[dict[str, Any]]) -> list[Place]:
    places: list[Place] = []
    for part in _parts(messages):
        url = part.get("image_url") if part.get("type") == "image_url" else None
        if isinstance(url, str):
            places.append((part, "image_url"))
        elif isinstance(url, dict) and isinstance(url.get("url"), str):
            places.append((url, "url"))
    return places


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
