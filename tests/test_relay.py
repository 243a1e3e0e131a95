"""What other servers send, read without one of ours: streams by the chunk, refusals before a body was read, hosts with
several addresses."""

import asyncio
import json
import socket
import threading
from dataclasses import fields
from types import SimpleNamespace

import pytest
from upstreams import chunk

pytest.importorskip("fastapi", reason="the server needs imc-lite[serve]")
from imc_lite import results
from imc_lite.errors import ImcError
from imc_lite.models.deadline import Deadline
from imc_lite.server import pictures, reports
from imc_lite.server.pool import Pool
from imc_lite.server.relay import events
from imc_lite.upstream.client import Upstream

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id":"c","choices":[],"usage":{"completion_tokens":7}}\n\n'


def relayed(*pieces: bytes) -> tuple[list[dict], list[int]]:
    """The objects that a client gets of these, and the tokens that are counted."""
    counted: list[int] = []

    async def body():
        for piece in pieces:
            yield piece

    async def run() -> list[bytes]:
        upstream = Upstream("http://127.0.0.1:1")
        passed = events(body(), upstream, 1, lambda told: {"answer": told.text}, lambda t: counted.append(t.tokens))
        return [event async for event in passed]

    return [json.loads(event[6:]) for event in asyncio.run(run()) if event != DONE], counted


def test_an_empty_finish_reason_is_no_end():
    """Some servers write "" until there is one."""
    pieces = [chunk({"content": part}, "") for part in ("", "x-", "ray")]
    got, _ = relayed(*pieces, chunk({}, "stop"), DONE)
    assert ["imc" in said for said in got] == [False, False, False, True] and got[-1]["imc"]["answer"] == "x-ray"
    got, _ = relayed(*pieces)
    assert got[-1]["error"]["code"] == "upstream_failed"


def test_an_error_that_is_null_is_none():
    pieces = [chunk({"content": "x-"}, error=None), chunk({"content": "ray"}, error=None)]
    assert relayed(*pieces)[0][-1]["error"]["code"] == "upstream_failed"
    assert relayed(*pieces, chunk({}, "stop", error=None), DONE)[0][-1]["imc"]["answer"] == "x-ray"


def test_tokens_that_are_told_behind_the_report_are_counted():
    assert relayed(chunk({"content": "x-ray"}, "stop"), USAGE, DONE)[1] == [7]
    assert relayed(chunk({"content": "x-"}))[1] == [0]


@pytest.mark.parametrize("size", [10, 1 << 23])
def test_a_refusal_before_the_body_was_read_is_the_reply(size):
    """A wrong key is refused by the head; the picture behind it is sent once."""
    heads: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heads.append(connection.recv(100))
                connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                connection.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        upstream = Upstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with upstream.send("POST", "/chat/completions", b" " * size) as reply:
            assert reply.status == 401
    assert len(heads) == 1


def test_another_address_of_a_host_is_tried_where_one_does_not_answer(monkeypatch):
    """A name may have addresses of both kinds, on a machine that has one kind."""
    tried = []

    def get(parts, host, port, address, limit, deadline):
        tried.append(address)
        if ":" in address:
            raise OSError("no route")
        return b"picture"

    def found(*addresses: str):
        return lambda *_, **__: [(0, 0, 0, "", (address, 443)) for address in addresses]

    monkeypatch.setattr(pictures, "_get", get)
    monkeypatch.setattr(socket, "getaddrinfo", found("2600:1fa0:80b4::1", "52.216.10.10", "52.216.10.10"))
    given = ("https://pictures.example/a.png", ("pictures.example",), 1000, Deadline())
    assert pictures.fetch(*given) == b"picture" and tried == ["2600:1fa0:80b4::1", "52.216.10.10"]
    monkeypatch.setattr(socket, "getaddrinfo", found("2600:1fa0:80b4::1"))
    with pytest.raises(ImcError, match=r"could not be fetched \(OSError\)"):
        pictures.fetch(*given)
    # All are looked at before one is asked.
    tried.clear()
    monkeypatch.setattr(socket, "getaddrinfo", found("52.216.10.10", "10.0.0.1"))
    with pytest.raises(ImcError, match="private address"):
        pictures.fetch(*given)
    assert not tried


def test_whoever_is_turned_away_is_told_how_long_places_are_held():
    """Jobs here may take milliseconds while another server answers for minutes."""
    pool = Pool(lambda: SimpleNamespace(), workers=1, queue=3)
    for _ in range(60):
        assert pool.admit()
        pool.leave(20.0)
    assert 5 <= pool.retry_after() <= 10
    for _ in range(60):
        assert pool.admit()
        pool.leave(0.01)
    assert pool.retry_after() == 1


@pytest.mark.parametrize("name", ["Noise", "ImageReport", "ImageReliance", "Selective", "Rewording"])
def test_the_description_has_what_reports_have(name):
    """Clients that are made from it drop what it does not name."""
    assert set(getattr(reports, name).model_fields) == {field.name for field in fields(getattr(results, name))}
