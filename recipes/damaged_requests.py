"""Requests as nobody should send them, drawn from a seed, for recipes/fuzz_http.py."""

from __future__ import annotations

import copy
import io
import json
import random
from typing import Any

from measure_server import DAMAGED, QUESTIONS, chat, data_uri
from PIL import Image

ROUTES = ("/v1/chat/completions", "/v1/inspect", "/v1/restore", "/v1/repair")
SHARES = {"json": 40, "bytes": 20, "picture": 5, "header": 15, "path": 12, "http": 8}
LONG = "A" * 3000
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " "),
    *("0", "null", "\x00", "\ud800", "é", "\u202e", "💥" * 50, LONG, [], {}, [[]], [None], {"": {}}, ["a"] * 300),
    *("data:", "data:,", "data:;base64,", "data:image/png;base64,!!!!", "http://127.0.0.1/", "file:///etc/passwd"),
    *({"type": "text", "text": "x"}, {"type": LONG}, {"type": "image_url", "image_url": 5}, {"url": None}),
)
HEADERS = (
    *(
        ("Content-Type", v)
        for v in ("", "text/plain", "application/json; charset=latin-1", "multipart/form-data", LONG)
    ),
    *(("Host", v) for v in ("", "evil.example", "localhost:99999", "[::1", "127.0.0.1, evil", LONG)),
    *(("Authorization", v) for v in ("", "Bearer", "Bearer x", "Basic eA==", "Bearer " + LONG)),
    *(
        ("Accept", "text/html"),
        ("Accept-Encoding", "gzip, br"),
        ("Content-Encoding", "gzip"),
        ("Expect", "100-continue"),
    ),
    *(
        ("Connection", "close"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Origin", "null"),
        ("Range", "bytes=0-1"),
    ),
    *(("X-Forwarded-For", LONG), ("Cookie", "a=b; " * 100), ("X-Odd", "\x7f\x01"), ("Forwarded", "for=_x")),
)
BROKEN = (
    b"Content-Length: -1\r\n", b"Content-Length: 9999999999999\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"Content-Length: x\r\n",
    b"Transfer-Encoding: gzip\r\n", b"No colon\r\n", b": empty\r\n", b"Folded: a\r\n b\r\n", b"N\x00ul: x\r\n",
)  # fmt: skip


class DamagedRequests:
    """Bytes of requests of every kind of SHARES, and of good ones; the same seed draws the same."""

    def __init__(self, image: bytes, seed: int) -> None:
        self.draw = random.Random(seed)
        self.small = _small(image)
        self.uri = data_uri(self.small)

    def any_kind(self) -> str:
        """One of the kinds, as often as SHARES says."""
        return self.draw.choices([*SHARES], [*SHARES.values()])[0]

    def make(self, kind: str) -> bytes:
        """The next request of a kind of SHARES, or of "model": a good one."""
        made: bytes = getattr(self, f"_{kind}")()
        return made

    def _body(self, route: str) -> dict[str, Any]:
        """A good one. The question is empty, so that what comes through unchanged is refused before it costs much."""
        if route == ROUTES[0]:
            return chat(self.uri, "") | {"stream": self.draw.random() < 0.3, "max_tokens": 4, "imc": {"pdc": True}}
        return {"question": ""} if route == ROUTES[3] else {"image": "data:;base64,QUJD", "window": None, "frame": None}

    def _json(self) -> bytes:
        # Of odd questions many are questions all the same, and take the model's time.
        route = self.draw.choices(ROUTES, (6, 6, 6, 1))[0]
        body: Any = self._body(route)
        for _ in range(self.draw.randint(1, 3)):
            body = self._changed(copy.deepcopy(body))
        return _request(route, json.dumps(body, ensure_ascii=self.draw.random() < 0.8).encode("utf-8", "surrogatepass"))

    def _changed(self, body: Any) -> Any:
        places = [place for place in _places(body) if place]
        if not places:
            return self.draw.choice(ODD)
        *way, last = self.draw.choice(places)
        parent = body
        for step in way:
            parent = parent[step]
        change = self.draw.random()
        if change < 0.15:
            del parent[last]
        elif change < 0.3 and isinstance(parent, dict):
            parent[self.draw.choice((LONG, "", "extra", "__class__", "n", "stop", "tools"))] = self.draw.choice(ODD)
        elif change < 0.4:
            parent[last] = [parent[last]]
        else:
            parent[last] = self.draw.choice(ODD)
        return body

    def _bytes(self) -> bytes:
        route = self.draw.choice(ROUTES)
        return _request(route, self._spoilt(json.dumps(self._body(route)).encode(), 5))

    def _spoilt(self, data: bytes, most: int) -> bytes:
        found = bytearray(data)
        for _ in range(self.draw.randint(1, most)):
            at = self.draw.randrange(len(found)) if found else 0
            change = self.draw.randrange(4)
            if change == 0 and found:
                found[at] = self.draw.randrange(256)
            elif change == 1:
                found[at:at] = self.draw.randbytes(self.draw.randint(1, 8))
            elif change == 2:
                del found[at : at + self.draw.randint(1, 8)]
            elif self.draw.random() < 0.2:
                del found[at:]
        return bytes(found)

    def _picture(self) -> bytes:
        image = data_uri(self._spoilt(self.small, 12))
        return _request(self.draw.choice(ROUTES[1:3]), json.dumps({"image": image}).encode())

    def _header(self) -> bytes:
        route = self.draw.choice(ROUTES)
        extra = self.draw.sample(HEADERS, self.draw.randint(1, 3))
        return _request(route, json.dumps(self._body(route)).encode(), extra=extra)

    def _path(self) -> bytes:
        parts = (
            "v1",
            "models",
            "default",
            "..",
            ".",
            "",
            "%2e%2e",
            "%00",
            "%ff",
            "chat",
            "completions",
            "é",
            LONG,
            "x?y=z#w",
        )
        path = "/" + "/".join(self.draw.choices(parts, k=self.draw.randint(0, 5)))
        path = self.draw.choice((path, path, f"http://127.0.0.1{path}", *ROUTES, "/", "/metrics", "/healthz"))
        method = self.draw.choice(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get"))
        return _request(path, b"{}", method=method, version=self.draw.choice(("1.1", "1.1", "1.0")))

    def _http(self) -> bytes:
        route = self.draw.choice(ROUTES)
        whole = _request(route, json.dumps(self._body(route)).encode())
        change = self.draw.randrange(4)
        if change == 0:
            head, _, body = whole.partition(b"\r\n\r\n")
            return head + b"\r\n" + self.draw.choice(BROKEN) + b"\r\n" + body
        if change == 1:
            return whole[: self.draw.randrange(len(whole))]
        if change == 2:
            head, _, body = whole.partition(b"\r\n\r\n")
            return self._spoilt(head, 4) + b"\r\n\r\n" + body
        return self.draw.randbytes(self.draw.randint(1, 400))

    def _model(self) -> bytes:
        if self.draw.random() < 0.5:
            return _request(ROUTES[3], json.dumps({"question": self.draw.choice(DAMAGED)}).encode())
        body = chat(self.uri, self.draw.choice(QUESTIONS)) | {"max_tokens": 4, "stream": self.draw.random() < 0.3}
        return _request(ROUTES[0], json.dumps(body).encode())


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [way]
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += _places(inner, (*way, step))
    return found


def _request(
    path: str,
    body: bytes,
    *,
    method: str = "POST",
    version: str = "1.1",
    extra: list[tuple[str, str]] | tuple[tuple[str, str], ...] = (),
) -> bytes:
    """Bytes of a request whose framing is right; an extra header takes the place of one of the same name."""
    headers = (
        {"Host": "127.0.0.1", "Content-Type": "application/json"} | dict(extra) | {"Content-Length": str(len(body))}
    )
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body


def _small(image: bytes) -> bytes:
    with Image.open(io.BytesIO(image)) as picture:
        buffer = io.BytesIO()
        picture.convert("L").resize((32, 32)).save(buffer, "PNG")
    return buffer.getvalue()
