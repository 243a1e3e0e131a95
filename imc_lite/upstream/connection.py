"""Connections that end when nobody waits any more for what they bring."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from functools import cache

from imc_lite.models.deadline import Deadline

PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 5.0


@contextlib.contextmanager
def connect(
    scheme: str, host: str, port: int, deadline: Deadline, address: str | None = None
) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut when the deadline is over. No proxy is used, whatever the environment names.

    Args:
        scheme: http or https; a certificate that is not valid for `host` is refused.
        host: name or address, as it is sent.
        port: of the host.
        deadline: looked at all the while.
        address: to connect to, where the host's name was looked up already.

    Raises:
        OSError: there is no such host, it does not listen, or its certificate is refused.
        DeadlineError: in place of whatever fails once the deadline is over.
    """
    deadline.check()
    with contextlib.closing(socket.create_connection((address or host, port), timeout=CONNECT_SECONDS)) as plain:
        plain.settimeout(None)
        with deadline.interrupting(lambda: _cut(plain)), contextlib.closing(_speak(scheme, host, port, plain)) as found:
            yield found


def is_loopback(host: str) -> bool:
    """Whether an address or name, without a port, is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _speak(scheme: str, host: str, port: int, plain: socket.socket) -> http.client.HTTPConnection:
    if scheme == "http":
        connection, sock = http.client.HTTPConnection(host, port), plain
    else:
        # Its own copy of the descriptor: whoever cuts the connection holds the plain one.
        sock = _context().wrap_socket(plain.dup(), server_hostname=host)
        connection = http.client.HTTPSConnection(host, port, context=_context())
    connection.sock = sock
    return connection


@cache
def _context() -> ssl.SSLContext:
    """Reading the list of authorities takes longer than a request."""
    return ssl.create_default_context()


def _cut(sock: socket.socket) -> None:
    """Wake the thread that waits for this connection."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
