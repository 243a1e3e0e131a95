"""Requests that mean no good, or whose clients do not wait: what each tries, and what has to come of it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from serving import Server, ask, data_uri

pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
# A token each: the model reads them in one pass of many seconds.
LONG = "7" * 1900
SPOILT = " ".join(["hwhat", "isz", "teh", "modlity", "oof", "thsi", "pictuer"] * 40)  # a repair of many passes
# Seconds until a worker is free again; where others use the processor too, everything takes as many times longer.
FREE = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def chat(picture: str, question: str, **more) -> dict:
    """Without repair, so that it is the language model's own pass that takes long."""
    return {"messages": ask(picture, question), "max_tokens": 16, "imc": {"sms": False}, **more}


@pytest.fixture(scope="module")
def hurried(default_bundle, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("hurried"), "--timeout", "1")
    yield server
    assert server.stop() == 0
    assert "unexpected" not in server.log and "Traceback" not in server.log


JOBS = {
    "long question": lambda picture: (CHAT, chat(picture, LONG)),
    "long question, streamed": lambda picture: (CHAT, chat(picture, LONG, stream=True)),
    "spoilt question": lambda picture: (CHAT, chat(picture, SPOILT, imc={"sms": True})),
    "repair": lambda picture: ("/v1/repair", {"question": SPOILT}),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_worker_is_free_after_a_time_out(name, hurried, picture):
    """One question after another that nobody has the time for would hold the only worker for minutes."""
    path, body = JOBS[name](picture)
    # A fast machine repairs within the second that there is, but not one question after another.
    bodies = [{"question": f"{SPOILT} {i}"} for i in range(4)] if name == "repair" else [body]
    with ThreadPoolExecutor(len(bodies)) as threads:
        replies = [*threads.map(lambda some: hurried.send(path, some), bodies)]
    late = [(status, reply) for status, _, reply in replies if status != 200]
    assert late and (name == "repair" or len(late) == len(bodies))
    assert all(status == 504 and reply["error"]["code"] == "timeout" for status, reply in late)
    assert hurried.idle_after(10) < FREE


@pytest.mark.parametrize("name", JOBS)
def test_a_worker_is_free_when_its_client_has_left(name, default_bundle, tmp_path, picture):
    server = Server(tmp_path)
    try:
        path, body = JOBS[name](picture)
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        server.wait_busy()
        connection.close()
        assert server.idle_after(10) < FREE
    finally:
        server.stop()


def test_what_has_no_time_left_leaves_the_line(hurried, picture):
    """Pictures of requests that are over are not kept until the worker comes to them."""
    with ThreadPoolExecutor(20) as threads:
        statuses = [*threads.map(lambda _: hurried.send(CHAT, chat(picture, LONG))[0], range(20))]
    assert statuses == [504] * 20
    assert hurried.idle_after(10) < FREE


@pytest.fixture
def running(default_bundle, tmp_path, picture):
    """Starts a server and, in a thread, a question that takes it many seconds; gives the server and the reply."""
    started = []

    def start(*options: str, **more):
        server = Server(tmp_path, *options)
        threads = ThreadPoolExecutor(1)
        started.append((server, threads))
        reply = threads.submit(server.send, CHAT, chat(picture, LONG, **more))
        server.wait_busy()
        return server, reply

    yield start
    for server, threads in started:
        server.stop()
        threads.shutdown()


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_sigterm_ends_a_running_answer(running, more):
    server, reply = running("--grace", "0", **more)
    began = time.monotonic()
    server.process.terminate()
    assert server.process.wait(30) == 0 and time.monotonic() - began < 3
    status, _, error = reply.result()
    assert status == 503 and error["error"]["code"] == "shutting_down"
    assert "Traceback" not in server.log


def test_sigterm_gives_a_running_answer_a_while(running):
    server, reply = running("--grace", "1.5")
    began = time.monotonic()
    server.process.terminate()
    assert server.process.wait(30) == 0 and 1 < time.monotonic() - began < 4
    assert reply.result()[0] == 503


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(running, second):
    server, reply = running("--grace", "600")
    server.process.terminate()
    time.sleep(0.5)
    assert server.process.poll() is None
    began = time.monotonic()
    server.process.send_signal(second)
    assert server.process.wait(10) == 128 + second and time.monotonic() - began < 1
    with pytest.raises((urllib.error.URLError, http.client.HTTPException, OSError)):
        reply.result()


def test_who_neither_sends_nor_reads_does_not_keep_the_server(default_bundle, tmp_path, picture):
    """Half a request, and a large reply that nobody takes; both at the end of the server."""
    server = Server(tmp_path, "--grace", "0")
    address = (urlsplit(server.url).hostname, urlsplit(server.url).port)
    body = json.dumps({"image": picture}).encode()
    head = (
        "POST /v1/restore HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    )
    with contextlib.ExitStack() as open_ones:
        half = open_ones.enter_context(socket.create_connection(address))
        half.sendall(head.format(len(body)).encode() + body[:100])
        deaf = open_ones.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(address)
        deaf.sendall((head.format(len(body)).encode() + body) * 40)
        time.sleep(2)
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(30) == 0 and time.monotonic() - began < 6


def test_a_host_of_pictures_that_never_ends(default_bundle, tmp_path):
    """It drips; the request's time counts, and nothing waits for the rest."""
    drips = socket.create_server(("127.0.0.1", 0))
    port = drips.getsockname()[1]
    closed = threading.Event()

    def drip() -> None:
        taken, _ = drips.accept()
        taken.recv(4096)
        taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(OSError):
            while not closed.wait(0.2):
                taken.sendall(b"x")
        closed.set()

    threading.Thread(target=drip, daemon=True).start()
    server = Server(tmp_path, "--timeout", "1", "--allow-host", f"127.0.0.1:{port}")
    try:
        status, _, reply = server.send("/v1/inspect", {"image": f"http://127.0.0.1:{port}/x.png"})
        assert status == 504 and reply["error"]["code"] == "timeout"
        assert closed.wait(2), "the connection was kept"
        began = time.monotonic()
        assert server.stop() == 0 and time.monotonic() - began < 2
    finally:
        closed.set()
        drips.close()


SECRET = "data:image/png;base64," + "c2VjcmV0" * 100
REPEATED = {
    "kind of part": (CHAT, {"messages": [{"role": "user", "content": [{"type": SECRET}]}]}),
    "option": (CHAT, {"messages": ask(SECRET, "hi"), "imc": {SECRET: 1}}),
    "field": ("/v1/inspect", {SECRET: 1}),
    "window": ("/v1/inspect", {"image": SECRET, "window": SECRET}),
    "model": (CHAT, {"messages": ask(SECRET, "hi"), "model": SECRET}),
    "role": (CHAT, {"messages": [{"role": SECRET, "content": "hi"}]}),
    "choices": (CHAT, {"messages": ask(SECRET, "hi"), "n": SECRET}),
    "question": ("/v1/repair", {"question": SECRET * 10}),
    "broken address": ("/v1/inspect", {"image": SECRET.replace("data:", "http:")}),
    "address": ("/v1/inspect", {"image": "http://example.org/" + SECRET}),
    "not a picture": ("/v1/inspect", {"image": SECRET}),
    "scheme": ("/v1/inspect", {"image": "x" + SECRET}),
}


@pytest.mark.parametrize("name", REPEATED)
def test_errors_do_not_repeat_the_input(name, hurried):
    path, body = REPEATED[name]
    status, _, reply = hurried.send(path, body)
    assert status in (400, 404)
    error = reply["error"]
    for text in (error["message"], error["param"] or ""):
        assert len(text) < 400 and "c2VjcmV0" * 9 not in text
    if name in ("not a picture", "address", "scheme", "question", "model"):
        assert "c2VjcmV0" not in error["message"]
    assert "c2VjcmV0" not in hurried.log


HUGE = "9" * 5000
NUMBERS = {
    "0": 400,
    "-1": 400,
    "true": 400,
    '"5"': 400,
    "1.5": 400,
    "1e400": 400,
    "NaN": 400,
    HUGE: 400,
    "1000000": 200,
    "null": 200,
}


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: n[:8])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_odd_limits_of_an_answer(number, field, default_bundle, plain, picture):
    body = json.dumps(chat(picture, "What modality is this?") | {"max_tokens": None}, separators=(",", ":"))
    body = body.replace('"max_tokens":null', f'"{field}":{number}')
    status, _, reply = plain.send(CHAT, body.encode())
    assert status == NUMBERS[number], reply
    if status == 400:
        assert set(reply["error"]) == {"message", "type", "param", "code"}
        assert number != "0" or reply["error"]["param"] == field


@pytest.fixture(scope="module")
def plain(default_bundle, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("plain"))
    yield server
    assert server.stop() == 0
    assert "unexpected" not in server.log and "Traceback" not in server.log


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
def test_another_sites_page_cannot_have_the_server_work(kind, plain):
    """A browser sends these types without asking first; JSON it sends only where it was allowed to, and it never is."""
    headers = {"Content-Type": kind} if kind else {}
    status, found, raw = plain.request("POST", "/v1/repair", b'{"question": "Is it?"}', headers)
    assert status == 400 and b"Content-Type: application/json" in raw
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    status, found, raw = plain.request("OPTIONS", "/v1/repair", headers=asked)
    assert status == 204 and raw == b"" and found["Allow"] == "OPTIONS, POST"
    assert not [name for name in found if name.lower().startswith("access-control")]


def test_the_log_names_no_invented_method(plain):
    status, _, _ = plain.request("SECRET", "/v1/repair", b"{}")
    assert status == 405 and "SECRET" not in plain.log


def test_streams_that_were_closed_before_the_start(default_bundle, chest):
    """The server's first sockets would otherwise be its standard streams, which a decoder's output is kept from."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "imc_lite", "serve", "--port", str(port)]
    shell = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *command]
    process = subprocess.Popen(shell, env=os.environ)
    try:
        until = time.monotonic() + 60
        url = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url + "/healthz", timeout=60) as reply:
                assert reply.status == 200
                break
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        for data, expected in ((chest.read_bytes(), 200), (chest.read_bytes()[:5000], 400)) * 3:
            body = json.dumps({"image": data_uri(data)}).encode()
            request = urllib.request.Request(url + "/v1/inspect", body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    status = reply.status
            except urllib.error.HTTPError as error:
                status = error.code
            assert status == expected
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def slow_bitmap() -> bytes:
    """Run-length encoded, a pixel a run: Pillow's reader takes a microsecond a pixel and cannot be interrupted."""
    side = 2500
    rows = (b"\1\7" * side + b"\0\0") * side + b"\0\1"
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    head = struct.pack("<2sIHHI", b"BM", 1078 + len(rows), 0, 0, 1078)
    return head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 256, 256) + palette + rows


def test_a_picture_whose_reader_does_not_let_go(hurried):
    body = {"image": data_uri(slow_bitmap())}
    assert hurried.send("/v1/inspect", body)[0] == 504
    assert hurried.idle_after(10) < FREE
    assert hurried.send("/healthz")[0] == 200
