"""The one class that speaks to an upstream: a server of OpenAI's chat API, wherever it runs."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import AnyStr
from urllib.parse import urlsplit

from imc_lite import __version__
from imc_lite.errors import ImcError, shown
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.upstream.connection import PORTS, connect, is_loopback
from imc_lite.upstream.errors import UpstreamError, UpstreamUnavailable

KEY_VARIABLE = "IMC_LITE_UPSTREAM_KEY"
PAUSES = (0.1, 0.3, 0.9)  # seconds before another try
CHUNK = 1 << 16
MOST = 64 << 20  # bytes of a reply
TIMEOUT, MOST_SECONDS = 60, 3600
EXAMPLE = "give a base URL such as http://127.0.0.1:11434/v1"


@dataclass(frozen=True)
class Reply:
    """What comes back, while it comes.

    Attributes:
        status: of HTTP; errors of the upstream are replies like others.
    """

    status: int
    _response: http.client.HTTPResponse

    def header(self, name: str) -> str | None:
        """A header's value, by its name in any case."""
        return self._response.headers.get(name)

    def chunks(self) -> Iterator[bytes]:
        """The body, as it arrives.

        Raises:
            UpstreamError: it breaks off, or is too large.
        """
        size = 0
        try:
            while data := self._response.read1(CHUNK):
                size += len(data)
                if size > MOST:
                    raise UpstreamError(f"the upstream's reply has over {MOST >> 20} MiB; ask for less")
                yield data
        except (OSError, http.client.HTTPException) as error:
            raise broken() from error
        if self._response.length:
            raise broken()


class Upstream:
    """A server of OpenAI's chat API.

    Nothing is sent before `send`. Of the environment only the key is read, from IMC_LITE_UPSTREAM_KEY; proxies that it
    names are not used.

    Attributes:
        url: the base URL, without a slash at the end.
        model: the model to ask there; None leaves it to the request.
        timeout: seconds that an answer may take, where the server's own limit does not hold.
    """

    def __init__(self, url: str, model: str | None = None, *, timeout: float = TIMEOUT, offline: bool = False) -> None:
        """Check the address.

        Args:
            url: http or https, as OpenAI's clients take it as their base URL; without a path it is that of /v1.
            model: as the upstream calls it.
            timeout: 1 to 3600 seconds.
            offline: refuse an upstream that is not on this machine.

        Raises:
            ImcError: the URL is none, holds a user name, or is not this machine's where it has to be; the key in the
                environment cannot be sent; or there is no such time.
        """
        for what, given in (("address", url), ("model", "" if model is None else model)):
            if not isinstance(given, str):
                raise ImcError(f"the upstream's {what} must be text, not {type(given).__name__}; give a string")
        scheme, host, port, path = _read(url)
        if model is not None and not model.strip():
            raise ImcError("the upstream's model has an empty name; give the name that it has there, or none")
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not (number and 1 <= timeout <= MOST_SECONDS):
            raise ImcError(f"the upstream's timeout is {shown(timeout)}; give 1 to {MOST_SECONDS} seconds")
        if offline and not is_loopback(host):
            raise ImcError(
                f"offline, and {shown(host)!r} is not this machine; give an upstream on 127.0.0.1 or localhost"
            )
        self._address, self._path, self._key = (scheme, host, port), path, _read_key()
        self.url = f"{scheme}://{urlsplit(url).netloc}{path}"
        self.model, self.timeout = model, timeout

    @contextlib.contextmanager
    def send(self, method: str, path: str, body: bytes | None = None, deadline: Deadline = NEVER) -> Iterator[Reply]:
        """One request. Where the connection fails before anything comes back, it is tried again three times.

        Args:
            method: GET or POST.
            path: below the base URL, such as /chat/completions.
            body: JSON.
            deadline: cuts it off.

        Raises:
            UpstreamUnavailable: it cannot be reached, or its reply is no HTTP, a redirect, of a status that is neither
                success nor error, or compressed.
            DeadlineError: the reply is no longer wanted.
        """
        for pause in (*PAUSES, None):
            with contextlib.ExitStack() as stack:
                try:
                    connection = stack.enter_context(connect(*self._address, deadline))
                    response = _exchange(connection, method, self._path + path, body, self._headers(body))
                except (OSError, http.client.HTTPException) as error:
                    deadline.check()
                    if pause is None or isinstance(error, ssl.SSLError) or not isinstance(error, OSError):
                        raise _unreachable(error) from error
                else:
                    _check(response)
                    yield Reply(response.status, response)
                    # A connection that was cut looks like one that ended.
                    deadline.check()
                    return
            time.sleep(pause)

    def without_key(self, said: AnyStr) -> AnyStr:
        """What the upstream says, without the key, which some repeat where they refuse it."""
        if self._key is None:
            return said
        return said.replace(self._key, "…") if isinstance(said, str) else said.replace(self._key.encode(), "…".encode())

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"User-Agent": f"imc-lite/{__version__}", "Accept": "application/json, text/event-stream"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> http.client.HTTPResponse:
    """The head of the reply. Some refuse by the head of the request alone, and close before they have read the body."""
    try:
        connection.request(method, path, body, headers)
    except OSError as error:
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise error from None
    return connection.getresponse()


def _check(response: http.client.HTTPResponse) -> None:
    """Refuse what nobody can be handed on."""
    status = response.status
    if 300 <= status < 400:
        raise UpstreamUnavailable("the upstream answers with a redirect; give the URL that it leads to")
    if not (200 <= status < 300 or 400 <= status < 600):
        raise UpstreamUnavailable(f"the upstream answers with status {status}, which is no chat API's; check its URL")
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UpstreamUnavailable("the upstream compresses its reply, though asked not to; switch that off there")


def broken() -> UpstreamError:
    """For a reply that ends too early."""
    return UpstreamError("the upstream broke its reply off; ask again")


def _unreachable(error: Exception) -> UpstreamUnavailable:
    if isinstance(error, OSError):
        why = getattr(error, "verify_message", None) or error.strerror or type(error).__name__
        return UpstreamUnavailable(f"the upstream cannot be reached ({why}); start it, or check its URL")
    return UpstreamUnavailable(f"the upstream does not speak HTTP ({type(error).__name__}); check its URL")


def _read(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of a base URL; one with a user name is not repeated in the error."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ImcError(f"the upstream's URL cannot be read; {EXAMPLE}") from error
    if "@" in parts.netloc:
        raise ImcError(f"the upstream's URL holds a user name; leave it out, and put a key into {KEY_VARIABLE}")
    if parts.scheme not in PORTS or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ImcError(f"{shown(url)!r} is no http or https URL for an upstream; {EXAMPLE}")
    if parts.query or parts.fragment:
        raise ImcError(f"the upstream's URL has a part after ? or #, which is not sent; {EXAMPLE}")
    return parts.scheme, host, PORTS[parts.scheme] if port is None else port, parts.path.rstrip("/") or "/v1"


def _read_key() -> str | None:
    if KEY_VARIABLE not in os.environ:
        return None
    key = os.environ[KEY_VARIABLE].strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ImcError(f"{KEY_VARIABLE} holds no usable key; give printable ASCII characters, or unset it")
    return key
