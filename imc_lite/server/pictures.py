"""Pictures in requests: data URIs, and URLs of hosts that the operator has allowed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import http.client
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from imc_lite.errors import ImcError
from imc_lite.images.load import LoadedImage, load_shown
from imc_lite.models.deadline import Deadline
from imc_lite.server.budget import Budget
from imc_lite.server.schema import View
from imc_lite.server.settings import Settings
from imc_lite.upstream.connection import PORTS, connect

CHUNK = 1 << 16


@dataclass(frozen=True)
class Picture:
    """A picture as it came: a data URI, or bytes that were fetched."""

    source: str | bytes
    window: str | None
    frame: int | None
    max_pixels: int

    def load(self) -> LoadedImage:
        """Its pixels and how they are shown.

        Raises:
            ImcError: it cannot be used.
        """
        return load_shown(self.data(), window=self.window, frame=self.frame, max_pixels=self.max_pixels)

    def data(self) -> bytes:
        """The file.

        Raises:
            ImcError: not base64.
        """
        return from_data_uri(self.source) if isinstance(self.source, str) else self.source


async def receive(url: str, view: View, settings: Settings, budget: Budget) -> Picture:
    """The picture behind a URL of a request, fetched where it is no data URI.

    Raises:
        ImcError: it cannot be fetched.
        ApiError: the budget is over.
    """
    source: str | bytes = url
    if not is_embedded(url):
        fetched = asyncio.to_thread(fetch, url, settings.allow_hosts, settings.max_body, budget.deadline)
        source = await budget.wait(fetched)
    return Picture(source, view.window, view.frame, settings.max_pixels)


def is_embedded(url: str) -> bool:
    """Whether a URL holds the picture itself."""
    return url[:5].lower() == "data:"


def from_data_uri(url: str) -> bytes:
    """The bytes of `data:[type];base64,…`; the type is not believed, the content is looked at later.

    Raises:
        ImcError: not base64.
    """
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImcError("the data URI is not base64; write data:image/png;base64, and the encoded file")
    # As other clients write it: broken into lines, of the URL alphabet, without the padding.
    plain = "".join((unquote(data) if "%" in data else data).split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImcError("the data URI holds characters that are not base64; encode the file again") from error


def fetch(url: str, allowed: tuple[str, ...], limit: int, deadline: Deadline) -> bytes:
    """GET a picture from a host that is allowed, without following redirects.

    A name must resolve to public addresses only, and the connection goes to an address that was checked, so that a
    name cannot be pointed at the inside of a network after the check. An address that is itself allowed is meant.

    Args:
        url: http or https.
        allowed: lower-case `HOST` (default port) or `HOST:PORT`.
        limit: bytes at most.
        deadline: ends it, also while it waits for the host.

    Raises:
        ImcError: not allowed, not reachable, too large, or not answered with 200.
        DeadlineError: the picture is no longer wanted.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ImcError("the picture's URL cannot be read; check it") from error
    if parts.scheme not in PORTS or not host or parts.username is not None:
        raise ImcError("a picture must be a data URI, or an http or https URL without a user name; embed it")
    shown = f"[{host}]" if ":" in host else host
    if f"{shown}:{port}" not in allowed and not (shown in allowed and port == PORTS[parts.scheme]):
        raise ImcError("pictures are not fetched from that host; embed the picture as a data URI")
    failed: Exception | None = None
    try:
        for address in _addresses(host, port):
            try:
                return _get(parts, host, port, address, limit, deadline)
            except OSError as error:  # such as one of IPv6 where there is none; another may do
                failed = error
    except (OSError, http.client.HTTPException, ValueError) as error:
        failed = error
    raise ImcError(f"the picture could not be fetched ({type(failed).__name__}); embed it as a data URI") from failed


def _addresses(host: str, port: int) -> list[str]:
    """In the order in which they are to be tried."""
    found = dict.fromkeys(str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not all(ipaddress.ip_address(a.partition("%")[0]).is_global for a in found):
            raise ImcError("that host's name leads to a private address; embed the picture as a data URI") from None
    return list(found)


def _get(parts: SplitResult, host: str, port: int, address: str, limit: int, deadline: Deadline) -> bytes:
    with connect(parts.scheme, host, port, deadline, address) as connection:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"User-Agent": "imc-lite", "Accept": "image/*, application/dicom"})
        response = connection.getresponse()
        if response.status != 200:
            what = "a redirect" if 300 <= response.status < 400 else f"status {response.status}"
            raise ImcError(f"the picture's host answered with {what}; give the picture's own URL or embed it")
        data = bytearray()
        while chunk := response.read1(CHUNK):
            data += chunk
            if len(data) > limit:
                raise ImcError(f"the picture has over {limit >> 20} MiB; scale it down first")
        # A connection that was cut looks like one that ended.
        deadline.check()
        if response.length:
            raise ImcError("the picture's host broke off before the picture was whole; ask again")
        return bytes(data)
