"""Requests that mean no good, or whose clients do not wait: what each tries, and what has to come of it."""

import contextlib
import http.client
import json
import os
import signal
import socket
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

CHAT = "/v1/chat/completions"
# A token each: the model reads them in one pass of many seconds.
LONG = "7" * 1900
SPOILT = " ".join(["hwhat", "isz", "teh", "modlity", "oof", "thsi", "pictuer"] * 40)  # a repair of many passes
FREE = 1.0  # seconds until a worker is free again


@pytest.fixture(scope="module")
def picture(chest):
    return data_uri(chest.read_bytes(), "image/jpeg")


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
    status, _, reply = hurried.send(path, body)
    assert status == 504 and reply["error"]["code"] == "timeout"
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
