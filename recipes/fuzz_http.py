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

A request without an answer in time is sent again when all the others are done, and is a fault only if it then takes
longer than five seconds: four threads at once wait for one worker.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from damaged_requests import SHARES, DamagedRequests
from measure_server import Server, machine

HANG_SECONDS = 5.0  # where no others use the processor; else as many times longer
WAIT_SECONDS = 0.2  # for an answer to broken framing; the server may rightly wait for the rest


class Fuzzer:
    """One thread's requests, drawn from a seed of its own."""

    def __init__(self, port: int, image: bytes, seed: int) -> None:
        self.port, self.requests = port, DamagedRequests(image, seed)
        self.patience = HANG_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        self.connection: socket.socket | None = None
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in (*SHARES, "model")}
        self.faults: list[str] = []
        self.longest = 0.0
        self.late: list[tuple[str, bytes]] = []

    def run(self, count: int) -> None:
        """`count` mutated requests."""
        for _ in range(count):
            self._one(self.requests.any_kind())

    def ask(self, count: int) -> None:
        """`count` good ones."""
        for _ in range(count):
            self._one("model")

    def _one(self, kind: str) -> None:
        request = self.requests.make(kind)
        began = time.monotonic()
        outcome = self._send(request, framed=kind != "http", patient=kind == "model")
        took = time.monotonic() - began
        self.counts[kind][outcome] += 1
        if kind != "model":
            self.longest = max(self.longest, took)
        if outcome == "hang":
            self.late.append((kind, request))
        elif outcome in ("500", "lost", "shape", "repeats") or (kind == "model" and outcome != "200"):
            self.faults.append(f"{kind} {outcome}: {request[:300]!r}")

    def again(self) -> None:
        """Those that had no answer in time, one by one while nothing else is asked: now they are late, or hang."""
        for kind, request in self.late:
            began = time.monotonic()
            outcome = self._send(request, framed=True, patient=True)
            self.counts[kind]["hang"] -= 1
            self.counts[kind]["late"] += 1
            if time.monotonic() - began > HANG_SECONDS or not outcome.isdigit() or outcome == "500":
                self.faults.append(f"{kind} {outcome} again: {request[:300]!r}")

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


def _judge(reply: http.client.HTTPResponse, body: bytes) -> str:
    """The status; or "shape" for an error that OpenAI's clients could not read, "repeats" for one with much input."""
    if reply.status >= 400 and (reply.getheader("Content-Type") or "").startswith("application/json") and body:
        error = json.loads(body).get("error", {})
        if set(error) != {"message", "type", "param", "code"}:
            return "shape"
        if "A" * 81 in error["message"] or len(error["message"]) > 400:
            return "repeats"
    return str(reply.status)


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
        for fuzzer in fuzzers:
            fuzzer.again()
        fuzzers[0].ask(model)
        counts = {kind: sum((f.counts[kind] for f in fuzzers), Counter()) for kind in fuzzers[0].counts}
        alive = server.process.poll() is None
        log = Path(server.log.name).read_text(encoding="utf-8", errors="replace")
        report(
            {
                "requests": sum(sum(found.values()) for found in counts.values()),
                "seconds": round(time.monotonic() - began, 1),
                "outcomes": {kind: dict(sorted((+found).items())) for kind, found in counts.items()},
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
