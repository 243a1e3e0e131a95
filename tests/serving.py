"""A real `imc-lite serve` process on a free port of this machine."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Server:
    """Started when made; `stop` ends it and returns its exit code. Everything it says is in `log`."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self._log = folder / f"serve-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "imc_lite", "serve", "--port", "0", *options]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **(env or {})})
        until = time.monotonic() + 60
        while (found := re.search(r"serving on (http://\S+)", self.log)) is None:
            assert self.process.poll() is None and time.monotonic() < until, self.log
            time.sleep(0.05)
        self.url = found[1]

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, bytes]:
        """Status, headers and the bytes of the reply to exactly this request."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        finally:
            connection.close()

    def idle_after(self, seconds: float) -> float:
        """Seconds until no worker is busy and nobody waits; fails after `seconds`."""
        began = time.monotonic()
        while {"imc_running 0.0", "imc_waiting 0.0"} - set(self.send("/metrics")[2].splitlines()):
            assert time.monotonic() < began + seconds, "still busy"
            time.sleep(0.02)
        return time.monotonic() - began

    def wait_busy(self) -> None:
        """Until a worker has taken a request up."""
        until = time.monotonic() + 30
        while "imc_running 0.0" in self.send("/metrics")[2].splitlines():
            assert time.monotonic() < until, "nothing runs"
            time.sleep(0.02)

    def send(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, Any]:
        """Status, headers, and the reply, as JSON where it is JSON; `body` is sent as JSON unless it is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                status, found, raw = reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as error:
            status, found, raw = error.code, error.headers, error.read()
        return status, found, json.loads(raw) if found.get_content_type() == "application/json" else raw.decode()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def ask(url: str, question: str) -> list[dict[str, Any]]:
    """Messages of a chat that asks one question about one picture."""
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]
