"""Hours of mixed traffic against a server of one's own: nothing lost, nothing wrong, no memory that stays.

    python recipes/soak_server.py --image tests/images/synpic28602.jpg --minutes 120 -o recipes/results/soak_server.json

Starts a server on a free port of 127.0.0.1 and stops it. Good requests are compared with what the Python API gave
beforehand, bad ones with the status they deserve; some clients leave without their answer. The result is written anew
every half minute, so that a run that is cut off has left what it saw.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure_server import CHAT, DAMAGED, QUESTIONS, REPAIR, Server, chat, data_uri, machine
from PIL import Image

from imc_lite import IMC, load_image
from imc_lite.files import write_atomically
from imc_lite.noise.image import apply_to_image

INSPECT, RESTORE = "/v1/inspect", "/v1/restore"
WRITE_SECONDS = 30.0
PART = 0.1  # of the time: the second such part is compared with the last, once caches and pools have grown
MOST_GROWTH = 0.03
Expected = Callable[[int, dict[str, Any]], bool]


class Traffic:
    """What is sent, and what has to come back."""

    def __init__(self, image: bytes, imc: IMC) -> None:
        buffer = io.BytesIO()
        Image.fromarray(apply_to_image(load_image(image), "impulse", 4, 0)).save(buffer, "PNG")
        self.good: list[tuple[str, dict[str, Any], Expected]] = []
        for data in (image, buffer.getvalue()):
            picture = data_uri(data)
            for question in QUESTIONS:
                answer = imc.answer(data, question).answer
                for stream in (False, True):
                    self.good.append((CHAT, chat(picture, question) | {"stream": stream}, _answers(answer)))
            noise = imc.inspect(data).noise
            assert noise is not None
            self.good.append((INSPECT, {"image": picture}, _has("noise", "kind", noise.kind)))
            self.good.append((RESTORE, {"image": picture}, _has("image", "noise", "kind", noise.kind)))
        for question in DAMAGED:
            self.good.append((REPAIR, {"question": question}, _has("repaired", imc.repair(question).repaired)))
        whole = chat(data_uri(image), QUESTIONS[0])
        cut = data_uri(image[: len(image) // 2])
        self.bad: list[tuple[str, dict[str, Any], Expected]] = [
            (CHAT, whole | {"model": "gpt-4o"}, _status(404)),
            (CHAT, whole | {"max_tokens": 0}, _status(400)),
            (CHAT, whole | {"n": 2}, _status(400)),
            (CHAT, whole | {"imc": {"window": "lung"}}, _status(400)),
            (CHAT, chat("data:;base64,QUJD", QUESTIONS[0]) | {"stream": True}, _status(400)),
            (CHAT, {"messages": []}, _status(400)),
            (INSPECT, {"image": cut}, _status(400)),
            (INSPECT, {"image": "http://example.org/x.png"}, _status(400)),
            (INSPECT, {"image": "A" * (5 << 20)}, _status(413)),
            (REPAIR, {"question": ""}, _status(400)),
            (REPAIR, {"question": "x" * 2001}, _status(400)),
            ("/v1/nothing", {}, _status(404)),
        ]
        self.left = [(CHAT, whole | {"stream": True}), (REPAIR, {"question": DAMAGED[0]}), (INSPECT, {"image": cut})]


def _answers(text: str) -> Expected:
    return lambda status, reply: status == 200 and reply["choices"][0]["message"]["content"] == text


def _status(expected: int) -> Expected:
    return lambda status, reply: status == expected and set(reply["error"]) == {"message", "type", "param", "code"}


def _has(*path: str) -> Expected:
    """The last part is the value at the place that the others name."""

    def check(status: int, reply: dict[str, Any]) -> bool:
        found: Any = reply
        for step in path[:-1]:
            found = found[step]
        return status == 200 and found == path[-1]

    return check


class Client(threading.Thread):
    """Sends one request after another until it is told to stop."""

    def __init__(self, port: int, traffic: Traffic, seed: int, rest: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.traffic, self.draw, self.rest, self.stop = port, traffic, random.Random(seed), rest, stop
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self.stop.wait(self.rest * 2 * self.draw.random()):
            share = self.draw.random()
            if share < 0.1:
                self._leave(*self.draw.choice(self.traffic.left))
                self.counts["left"] += 1
                continue
            kind = "good" if share < 0.6 else "bad"
            path, body, right = self.draw.choice(self.traffic.good if kind == "good" else self.traffic.bad)
            began = time.monotonic()
            try:
                status, reply = self._post(path, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._count("lost", f"{kind} {path}: {type(error).__name__}")
                continue
            if kind == "good":
                self.seconds.append(time.monotonic() - began)
            if right(status, reply):
                self.counts[kind] += 1
            else:
                self._count("wrong", f"{kind} {path}: {status} {json.dumps(reply)[:200]}")

    def _count(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.faults.append(what)

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            raw = reply.read()
        finally:
            connection.close()
        if reply.getheader("Content-Type", "").startswith("text/event-stream"):
            return reply.status, _joined(raw)
        return reply.status, json.loads(raw)

    def _leave(self, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            whole = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
            sock.sendall(whole[: len(whole) if self.draw.random() < 0.7 else self.draw.randrange(len(whole))])
            time.sleep(self.draw.random())


def _joined(raw: bytes) -> dict[str, Any]:
    """A stream as the reply that it stands for."""
    events = [part.removeprefix("data: ") for part in raw.decode().split("\n\n") if part]
    if events[-1] != "[DONE]":
        return {"choices": [{"message": {"content": None}}], "error": events[-1]}
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    return {"choices": [{"message": {"content": "".join(delta.get("content") or "" for delta in deltas)}}]}


def family_memory(pid: int) -> float:
    """Resident memory in MiB of a process and those it has started."""
    found, total = [pid], 0.0
    while found:
        folder = Path(f"/proc/{found.pop()}")
        try:
            total += int((folder / "statm").read_text().split()[1]) * 4096 / 2**20
            found += [
                int(child) for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()
            ]
        except (OSError, ValueError):
            continue
    return total


def growth(track: list[dict[str, float]], minutes: float) -> float:
    """From the second tenth of the time to the last, of the medians: what runs just then takes 30 MiB more or less."""
    ends = ((PART, 2 * PART), (1 - PART, 9))
    parts = [[row["mib"] for row in track if a <= row["minutes"] / minutes < b] for a, b in ends]
    early, late = (statistics.median(part or [1.0]) for part in parts)
    return round(late / early - 1, 4) if all(parts) else 0.0


def soak(image: bytes, minutes: float, clients: int, rest: float, workers: int, seed: int, out: Path) -> bool:
    """Whether all went well."""
    traffic = Traffic(image, IMC.from_pretrained())
    before = machine()
    server = Server("--workers", str(workers), "--max-body", "4", "--timeout", "300")
    stop = threading.Event()
    running = [Client(server.port, traffic, seed + i, rest, stop) for i in range(clients)]
    began = time.monotonic()
    track: list[dict[str, float]] = []

    def write(finished: bool) -> dict[str, Any]:
        counts = sum((client.counts for client in running), Counter[str]())
        seconds = sorted(s for client in running for s in [*client.seconds]) or [0.0]
        log = Path(server.log.name).read_text(encoding="utf-8", errors="replace")
        found = {
            "command": "python recipes/soak_server.py --image IMAGE --minutes N -o recipes/results/soak_server.json",
            "machine": before,
            "seed": seed,
            "workers": workers,
            "clients": clients,
            "rest_s": rest,
            "finished": finished,
            "minutes": track[-1]["minutes"],
            "requests": sum(counts.values()),
            "right": {"good": counts["good"], "bad": counts["bad"]},
            "left_without_answer": counts["left"],
            "lost": counts["lost"],
            "wrong": counts["wrong"],
            "first_faults": [fault for client in running for fault in client.faults][:20],
            "seconds_p50_p95": [round(seconds[int(q * (len(seconds) - 1))], 2) for q in (0.5, 0.95)],
            "alive": server.process.poll() is None,
            "faults_in_the_log": log.count("unexpected") + log.count("Traceback"),
            "growth": growth(track, minutes),
            "memory": track,
        }
        write_atomically(out, lambda file: file.write((json.dumps(found, indent=1) + "\n").encode()))
        return found

    try:
        for client in running:
            client.start()
        while (spent := time.monotonic() - began) < 60 * minutes and server.process.poll() is None:
            row = {"minutes": round(spent / 60, 2), "mib": round(family_memory(server.process.pid), 1)}
            track.append(row)
            write(finished=False)
            stop.wait(min(WRITE_SECONDS, 60 * minutes - spent))
        stop.set()
        for client in running:
            client.join(330)
        track.append(
            {"minutes": round((time.monotonic() - began) / 60, 2), "mib": round(family_memory(server.process.pid), 1)}
        )
        found = write(finished=True)
    finally:
        stop.set()
        server.stop()
    print(json.dumps(found, indent=1))
    well = not (found["lost"] or found["wrong"] or found["faults_in_the_log"]) and found["alive"]
    return bool(well and found["growth"] <= MOST_GROWTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rest", type=float, default=0, help="mean seconds that a client waits between requests")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    well = soak(args.image.read_bytes(), args.minutes, args.clients, args.rest, args.workers, args.seed, args.out)
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
