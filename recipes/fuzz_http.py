"""Mutated requests against a server of one's own: nothing may crash it, hang it, or be answered with 500.

    python recipes/fuzz_http.py --image tests/images/synpic28602.jpg -o recipes/results/fuzz_http.json

Starts a server on a free port of 127.0.0.1 and stops it. The same seed sends the same requests. What is sent:

json      a good body with one to three places changed to something else
bytes     a good body with bytes changed, put in, left out, or cut off
picture   a small picture with bytes changed, as a data URI
header    good bodies under odd headers
path      odd paths, methods and versions
http      requests whose framing is broken: the server may also wait for the rest, or close
model     good requests, which reach the language model, at the end
"""

from __future__ import annotations

import argparse
import base64
import copy
import http.client
import io
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure_server import DAMAGED, QUESTIONS, Server, chat, machine
from PIL import Image

HANG_SECONDS = 5.0  # where no others use the processor; else as many times longer
WAIT_SECONDS = 0.2  # for an answer to broken framing; the server may rightly wait for the rest
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


class Fuzzer:
    """One thread's requests, drawn from a seed of its own."""

    def __init__(self, port: int, image: bytes, seed: int) -> None:
        self.port, self.draw = port, random.Random(seed)
        self.patience = HANG_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        self.picture = _uri(_small(image))
        self.small = _small(image)
        self.connection: socket.socket | None = None
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in (*SHARES, "model")}
        self.faults: list[str] = []
        self.longest = 0.0

    def run(self, count: int) -> None:
        """`count` mutated requests."""
        for _ in range(count):
            self._one(self.draw.choices([*SHARES], [*SHARES.values()])[0])

    def ask(self, count: int) -> None:
        """`count` good ones."""
        for _ in range(count):
            self._one("model")

    def _one(self, kind: str) -> None:
        request = getattr(self, f"_{kind}")()
        began = time.monotonic()
        outcome = self._send(request, framed=kind != "http", patient=kind == "model")
        took = time.monotonic() - began
        self.counts[kind][outcome] += 1
        if kind != "model":
            self.longest = max(self.longest, took)
        if outcome in ("500", "hang", "lost", "shape", "repeats") or (kind == "model" and outcome != "200"):
            self.faults.append(f"{kind} {outcome}: {request[:300]!r}")

    def _send(self, request: bytes, framed: bool, patient: bool) -> str:
        """The reply's status, or what was there instead of one."""
        fresh = self.connection is None
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=HANG_SECONDS)
        sock = self.connection
        sock.settimeout(120 if patient else self.patience if framed else WAIT_SECONDS)
        method = request.split(b" ", 1)[0].decode("latin-1")
        reply = http.client.HTTPResponse(sock, method=method)
        try:
            sock.sendall(request)
            reply.begin()
            body = reply.read()
        except TimeoutError:
            self._close()
            return "hang" if framed else "waits"
        except (OSError, http.client.HTTPException, ValueError):
            self._close()
            # A connection that was kept may have been closed meanwhile; that is no answer to this request.
            return self._send(request, framed, patient) if framed and not fresh else "lost" if framed else "closed"
        if reply.will_close or not framed:
            self._close()
        return _judge(reply, body)

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def _body(self, route: str) -> dict[str, Any]:
        """A good one. The question is empty, so that what comes through unchanged is refused before it costs much."""
        if route == ROUTES[0]:
            return chat(self.picture, "") | {"stream": self.draw.random() < 0.3, "max_tokens": 4, "imc": {"pdc": True}}
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
        image = _uri(self._spoilt(self.small, 12))
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
        body = chat(self.picture, self.draw.choice(QUESTIONS)) | {"max_tokens": 4, "stream": self.draw.random() < 0.3}
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


def _judge(reply: http.client.HTTPResponse, body: bytes) -> str:
    """The status; or "shape" for an error that OpenAI's clients could not read, "repeats" for one with much input."""
    if reply.status >= 400 and (reply.getheader("Content-Type") or "").startswith("application/json") and body:
        error = json.loads(body).get("error", {})
        if set(error) != {"message", "type", "param", "code"}:
            return "shape"
        if "A" * 81 in error["message"] or len(error["message"]) > 400:
            return "repeats"
    return str(reply.status)


def _small(image: bytes) -> bytes:
    with Image.open(io.BytesIO(image)) as picture:
        buffer = io.BytesIO()
        picture.convert("L").resize((32, 32)).save(buffer, "PNG")
    return buffer.getvalue()


def _uri(data: bytes) -> str:
    return "data:;base64," + base64.b64encode(data).decode()


def fuzz(
    image: bytes, count: int, model: int, threads: int, seed: int, report: Callable[[dict[str, Any]], None]
) -> None:
    server = Server("--max-tokens", "8", "--max-body", "1")
    try:
        before, began = server.memory(), time.monotonic()
        fuzzers = [Fuzzer(server.port, image, seed + i) for i in range(threads)]
        running = [threading.Thread(target=f.run, args=(count // threads,)) for f in fuzzers]
        track = [round(before, 1)]
        for thread in running:
            thread.start()
        while any(thread.is_alive() for thread in running):
            time.sleep(5)
            track.append(round(server.memory(), 1))
        fuzzers[0].ask(model)
        counts = {kind: sum((f.counts[kind] for f in fuzzers), Counter()) for kind in fuzzers[0].counts}
        alive = server.process.poll() is None
        log = Path(server.log.name).read_text(encoding="utf-8", errors="replace")
        report(
            {
                "requests": sum(sum(found.values()) for found in counts.values()),
                "seconds": round(time.monotonic() - began, 1),
                "outcomes": {kind: dict(sorted(found.items())) for kind, found in counts.items()},
                "faults": sum(len(f.faults) for f in fuzzers),
                "first_faults": [fault for f in fuzzers for fault in f.faults][:20],
                "longest_s": round(max(f.longest for f in fuzzers), 2),
                "hang_s": round(fuzzers[0].patience, 1),
                "alive_afterwards": alive,
                "faults_in_the_log": log.count("unexpected") + log.count("Traceback"),
                "memory_mib": {"before": track[0], "after": track[-1], "most": max(track)},
            }
        )
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=64_000, help="mutated ones")
    parser.add_argument("--model-requests", type=int, default=300, help="good ones, at the end")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()

    def report(found: dict[str, Any]) -> None:
        command = "python recipes/fuzz_http.py --image IMAGE -o recipes/results/fuzz_http.json"
        whole = {"command": command, "machine": machine(), "seed": args.seed, **found}
        args.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(whole, indent=1))

    fuzz(args.image.read_bytes(), args.requests, args.model_requests, args.threads, args.seed, report)


if __name__ == "__main__":
    main()
