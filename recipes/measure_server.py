"""Load, memory and overhead of `imc-lite serve`, and what it does over its queue.

    python recipes/measure_server.py --image tests/images/synpic28602.jpg -o recipes/results/server.json

Starts its own servers on free ports of 127.0.0.1 and stops them. 16 clients that ask one question after the other, and
200 requests at once: all about one picture, which is encoded once, and each about a picture of its own (the same one, a
pixel changed). The questions are three, so they are repaired once; what each costs where picture and question are new
is under `overhead`. 2,000 requests in all for the memory, most of them damaged questions that nobody asked before.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from imc_lite import IMC, load_image

QUESTIONS = ("What modality is this?", "What body part is shown?", "In what plane was this image taken?")
DAMAGED = ("Is teh heart enlargd?", "What modlity is this?", "Is there a pneumothorax?", "Whcih organ is shown?")
SINGLE = 12  # questions asked one after the other
CHAT, REPAIR = "/v1/chat/completions", "/v1/repair"


class Server:
    """`imc-lite serve` on a free port."""

    def __init__(self, *options: str) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - lives as long as the server
        command = [sys.executable, "-m", "imc_lite", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=self.log)
        found = None
        for _ in range(1200):
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", Path(self.log.name).read_text()):
                break
            time.sleep(0.05)
        assert found is not None, "the server did not start"
        self.port = int(found[1])

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


def post(connection: http.client.HTTPConnection, path: str, body: dict) -> tuple[int, dict, float]:
    """Status, reply and seconds."""
    began = time.perf_counter()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read()), time.perf_counter() - began


async def post_at_once(
    port: int, bodies: list[tuple[str, dict]], clients: int | None = None
) -> list[tuple[int, dict, dict, float]]:
    """All requests, at most `clients` of them at the same time, a connection each: status, headers, reply, seconds."""
    turns = asyncio.Semaphore(clients or len(bodies))

    async def one(path: str, body: dict) -> tuple[int, dict, dict, float]:
        async with turns:
            began = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
            data = json.dumps(body).encode()
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n"
            )
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + data)
            await writer.drain()
            raw = await reader.read()
            writer.close()
        top, _, rest = raw.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), headers, json.loads(rest), time.perf_counter() - began

    return await asyncio.gather(*(one(path, body) for path, body in bodies))


def chat(picture: str, question: str) -> dict:
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": picture}}]
    return {"model": "default", "messages": [{"role": "user", "content": parts}]}


def changed(pixels: np.ndarray, number: int) -> bytes:
    """The picture with one pixel changed, as a PNG file: one that nobody has encoded."""
    mine = pixels.copy()
    mine[number // 200, number % 200] ^= 1
    file = io.BytesIO()
    Image.fromarray(mine).save(file, "PNG", compress_level=1)
    return file.getvalue()


def overhead(server: Server, imc: IMC, pixels: np.ndarray, rounds: int) -> dict:
    """Server and Python API by turns, so that other load on the machine meets both alike, picture and question new to
    both; and what of a request's seconds its own report does not account for, which leaves the model's varying time out
    altogether."""
    connection = server.connect()
    direct, served, beside = [], [], []
    for i in range(rounds + 3):
        data, question = changed(pixels, i), f"Is this picture number {i}?"
        began = time.perf_counter()
        imc.answer(data, question)
        seconds = time.perf_counter() - began
        _, reply, whole = post(connection, CHAT, chat(data_uri(data), question))
        if i >= 3:
            direct.append(1000 * seconds)
            served.append(1000 * whole)
            beside.append(1000 * whole - reply["imc"]["timings_ms"]["total"])
    return {
        "rounds": rounds,
        "python_ms_median": round(statistics.median(direct), 1),
        "server_ms_median": round(statistics.median(served), 1),
        "difference_ms_median": round(statistics.median(s - d for s, d in zip(served, direct, strict=True)), 1),
        "outside_the_report_ms_median": round(statistics.median(beside), 1),
        "outside_the_report_ms_p95": round(percentile(beside, 95), 1),
    }


def load(server: Server, expected: dict[str, str], pictures: list[str], count: int, clients: int) -> dict:
    """`count` questions, `clients` of them at a time, about the pictures in turn; each answer is compared with the
    Python API's. A single one is asked about pictures that come last."""
    asked = [QUESTIONS[i % len(QUESTIONS)] for i in range(count)]
    shown = [pictures[i % len(pictures)] for i in range(count)]
    connection = server.connect()
    last = [(pictures[-i % len(pictures)], QUESTIONS[i % len(QUESTIONS)]) for i in range(1, SINGLE + 1)]
    single = [post(connection, CHAT, chat(picture, question))[2] for picture, question in last]
    began = time.perf_counter()
    bodies = [(CHAT, chat(picture, question)) for picture, question in zip(shown, asked, strict=True)]
    replies = asyncio.run(post_at_once(server.port, bodies, clients))
    seconds = time.perf_counter() - began
    right = [
        status == 200 and reply["choices"][0]["message"]["content"] == expected[question]
        for question, (status, _, reply, _) in zip(asked, replies, strict=True)
    ]
    times = [s for _, _, _, s in replies]
    return {
        "requests": count,
        "clients": clients,
        "statuses": dict(Counter(str(status) for status, _, _, _ in replies)),
        "lost": count - len(replies),
        "wrong": right.count(False),
        "seconds": round(seconds, 1),
        "requests_per_second": round(count / seconds, 2),
        "single_s_median": round(statistics.median(single), 3),
        "p50_s": round(percentile(times, 50), 2),
        "p95_s": round(percentile(times, 95), 2),
    }


def memory(server: Server, expected: dict[str, str], picture: str, count: int) -> dict:
    """Resident memory after the first 100 and after `count` requests, a tenth of them with a picture, the others with a
    question that was not asked before."""
    connection = server.connect()
    wrong, track = 0, []
    for i in range(count):
        if i % 10 == 0:
            question = QUESTIONS[i // 10 % len(QUESTIONS)]
            status, reply, _ = post(connection, CHAT, chat(picture, question))
            wrong += status != 200 or reply["choices"][0]["message"]["content"] != expected[question]
        else:
            question = DAMAGED[i % len(DAMAGED)]
            status, reply, _ = post(connection, REPAIR, {"question": f"{question} {i}"})
            wrong += status != 200 or reply["repaired"] != f"{expected[question]} {i}"
        if i + 1 == 100 or (i + 1) % 500 == 0:
            track.append({"requests": i + 1, "mib": round(server.memory(), 1)})
    growth = track[-1]["mib"] / track[0]["mib"] - 1
    return {"requests": count, "wrong": wrong, "track": track, "growth": round(growth, 4)}


def over_the_queue(expected: dict[str, str], picture: str, queue: int, count: int) -> dict:
    """More requests at once than a server lets wait."""
    server = Server("--queue", str(queue))
    try:
        body = chat(picture, QUESTIONS[0])
        replies = asyncio.run(post_at_once(server.port, [(CHAT, body)] * count))
        after, reply, _ = post(server.connect(), CHAT, body)
        answered = [r for status, _, r, _ in replies if status == 200]
        return {
            "queue": queue,
            "requests": count,
            "statuses": dict(Counter(str(status) for status, _, _, _ in replies)),
            "wrong": sum(r["choices"][0]["message"]["content"] != expected[QUESTIONS[0]] for r in answered),
            "all_429_say_when": all("retry-after" in h for status, h, _, _ in replies if status == 429),
            "answers_afterwards": after == 200 and reply["choices"][0]["message"]["content"] == expected[QUESTIONS[0]],
        }
    finally:
        server.stop()


def percentile(values: list[float], which: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(which / 100 * (len(ordered) - 1)))]


def data_uri(data: bytes) -> str:
    """A picture as it goes into a request."""
    return "data:;base64," + base64.b64encode(data).decode()


def machine() -> dict:
    """What times depend on; a load above the number of cores means that others used them too."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    processor = found[1] if found else platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrent", type=int, default=200)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    data = args.image.read_bytes()
    pixels, picture = load_image(args.image), data_uri(data)
    imc = IMC.from_pretrained()
    expected = {q: imc.answer(data, q).answer for q in QUESTIONS} | {q: imc.repair(q).repaired for q in DAMAGED}
    before = os.getloadavg()[0]
    one = Server()
    cost = overhead(one, imc, pixels, rounds=40)
    one.stop()
    many = Server("--workers", str(args.workers), "--queue", str(args.concurrent), "--timeout", "600")
    loads, used = {}, 1000
    for clients in (16, args.concurrent):
        loads[f"one picture, {clients} clients"] = load(many, expected, [picture], args.concurrent, clients)
        own = [data_uri(changed(pixels, used + i)) for i in range(args.concurrent + SINGLE)]
        loads[f"own pictures, {clients} clients"] = load(many, expected, own, args.concurrent, clients)
        used += len(own)
    many.stop()
    # Another one: what it holds after 200 pictures at once says more of these than of the models.
    many = Server("--workers", str(args.workers))
    held = memory(many, expected, picture, args.requests)
    many.stop()
    report = {
        "command": "python recipes/measure_server.py --image IMAGE -o recipes/results/server.json",
        "machine": machine() | {"load_average_before_and_after": [round(before, 1), round(os.getloadavg()[0], 1)]},
        "workers": args.workers,
        "overhead": cost,
        "loads": loads,
        "memory": held,
        "over_the_queue": over_the_queue(expected, picture, queue=8, count=50),
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
