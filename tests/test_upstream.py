"""The server in front of another one: what comes through as it was, what is mended, and what happens when it fails."""

import base64
import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import dicom_files
import numpy as np
import pytest
from PIL import Image
from serving import Server, ask, data_uri
from upstreams import COMPLETION, Handler, StandIn, chunk, complete

from imc_lite import IMC, ImcError, load_image
from imc_lite.noise.image import apply_to_image
from imc_lite.pdc.full_size import restore_full_size
from imc_lite.pdc.restorers import restore
from imc_lite.sms.question import check_question
from imc_lite.sms.spacing import keep_spacing
from imc_lite.upstream.client import Upstream

openai = pytest.importorskip("openai", reason="the server is tested with OpenAI's client")
pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")

CHAT = "/v1/chat/completions"
CLEAN, DAMAGED, REPAIRED = "What modality is this?", "What modlity is this?", "What modality is this?"
KEY, UPSTREAM_KEY = "correct-horse", "battery-staple"
slow = pytest.mark.slow


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return data_uri(buffer.getvalue())


def pixels_of(url: str) -> np.ndarray:
    assert url.startswith("data:image/png;base64,")
    return load_image(base64.b64decode(url.partition(",")[2]))


@pytest.fixture(scope="module")
def standin():
    found = StandIn()
    yield found
    found.stop()


@pytest.fixture
def upstream(standin):
    """It answers as a chat server does until the test says otherwise."""
    standin.sent.clear()
    standin.answer = complete
    yield standin
    standin.answer = complete


@pytest.fixture(scope="module")
def server(default_bundle, standin, tmp_path_factory):
    env = {"IMC_LITE_UPSTREAM_KEY": UPSTREAM_KEY, "IMC_LITE_API_KEY": KEY}
    # Nothing listens there: whoever used the proxy would reach nobody.
    env |= dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    server = Server(tmp_path_factory.mktemp("serve"), "--upstream", standin.url, env=env)
    yield server
    assert server.stop() == 0
    for text in (KEY, UPSTREAM_KEY, "zyzzyva", "base64", "Traceback", "unexpected"):
        assert text not in server.log


@pytest.fixture(scope="module")
def strict(default_bundle, standin, tmp_path_factory):
    options = ["--upstream", standin.url, "--upstream-model", "medgemma:4b", "--refuse-ungradable"]
    options += ["--allow-host", standin.url.split("/")[2]]
    server = Server(tmp_path_factory.mktemp("strict"), *options)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log and "unexpected" not in server.log


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def noisy(chest):
    return apply_to_image(load_image(chest), "impulse", 3, 0)


@pytest.fixture(scope="module")
def strange(chest):
    """Named, but so noisy that it stays ungradable."""
    return png(apply_to_image(load_image(chest), "gaussian", 5, 0))


def post(server: Server, body: object) -> tuple[int, object, bytes]:
    """The bytes that come back."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    return server.request("POST", CHAT, data, headers)


def conversation(picture: str, question: str) -> dict:
    """All that a request may hold, and what no server knows."""
    history = [
        {"role": "system", "content": "Antwrte  kurz.\n", "name": "boss"},
        *ask(png(np.zeros((9, 9, 3), np.uint8)), "Wht is teh matter?"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"a": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "teh result"},
    ]
    last = [
        {"type": "text", "text": "An earleir part, left alone."},
        {"type": "image_url", "image_url": {"url": png(np.full((8, 8, 3), 7, np.uint8))}},
        {"type": "image_url", "image_url": {"url": picture, "detail": "high"}, "cache": True},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
        {"type": "text", "text": question},
    ]
    return {
        "model": "llava:7b",
        "messages": [*history, {"role": "user", "content": last, "name": "me"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "temperature": 0.7,
        "top_p": 1e-7,
        "seed": 12345678901234567890,
        "max_tokens": 100000,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
        "stop": ["\n", "\ud800"],
        "options": {"num_ctx": 4096, "none": None},
    }


@slow
def test_a_clean_request_comes_through_byte_by_byte(server, upstream, picture):
    raw = json.dumps(conversation(picture, CLEAN), indent=3).replace("0.7", "7.0E-1").encode()
    status, headers, reply = post(server, raw)
    assert status == 200 and headers.get_content_type() == "application/json"
    (sent,) = upstream.sent
    assert (sent.method, sent.path, sent.body) == ("POST", CHAT, raw)
    assert sent.headers["authorization"] == f"Bearer {UPSTREAM_KEY}" and KEY not in str(sent.headers)
    said = json.loads(reply)
    row = said.pop("imc")
    assert said == COMPLETION
    assert row["image"]["noise"]["kind"] == "clean" and not row["image"]["restored"]
    assert row["question"]["repaired"] == CLEAN and row["question"]["edits"] == [] and row["question"]["checked"]


@slow
def test_only_the_last_picture_and_the_last_question_are_changed(server, upstream, noisy):
    question = "(1) One word, please.\n\n(2) What modlity  is this?\n"
    body = conversation(png(noisy), question)
    status, _, reply = post(server, body | {"imc": {"window": None}})
    assert status == 200
    sent = upstream.sent[0].json
    parts = sent["messages"][-1]["content"]
    restored = pixels_of(parts[2]["image_url"]["url"])
    assert restored.shape == noisy.shape and np.array_equal(restored, restore_full_size(noisy, "impulse", 3))
    assert parts[4]["text"] == question.replace("modlity", "modality")
    parts[2]["image_url"]["url"], parts[4]["text"] = png(noisy), question
    assert sent == body
    row = json.loads(reply)["imc"]
    told = {"kind": "impulse", "severity": 3, "probability": 1, "strength": pytest.approx(3, abs=0.5)}
    assert row["image"]["noise"] | {"probability": 1} == told
    assert row["image"]["restored"] and row["image"]["gradable"] and not row["image"]["calibrated"]
    assert [(e["from"], e["to"]) for e in row["question"]["edits"]] == [("modlity", "modality")]
    assert (row["answer"], row["confidence"], row["id"]) == ("x-ray – ja", None, "chatcmpl-7")
    assert row["model"] == {"id": "medgemma:4b", "version": "unknown"}
    assert row["timings_ms"]["total"] >= row["timings_ms"]["perceive"] > 0


@slow
def test_the_report_has_the_fields_of_today(server, upstream, picture, documented_fields):
    _, _, reply = post(server, {"messages": ask(picture, DAMAGED)})
    row, flat = json.loads(reply)["imc"], set()
    for name, value in row.items():
        flat |= {f"{name}.{key}" for key in value} if isinstance(value, dict) else {name}
    within = ("image.noise.", "versions.", "image_reliance.", "selective.", "rewording.")
    documented = {n for n in documented_fields["answer"] if not n.startswith(within)}
    assert documented | {"image.noise", "image_reliance", "selective", "rewording"} == {
        n for n in flat if not n.startswith("versions.")
    }


@slow
def test_openais_client_and_our_options(client, upstream, noisy):
    got = client.chat.completions.create(
        model="m", messages=ask(png(noisy), DAMAGED), extra_body={"imc": {"pdc": False, "sms": False}}
    )
    assert got.choices[0].message.content == "x-ray – ja" and got.system_fingerprint == "fp_1"
    assert got.imc["image"]["noise"] is None and got.imc["question"]["edits"] == []
    assert upstream.sent[0].json == {"model": "m", "messages": ask(png(noisy), DAMAGED)}
    got = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Is teh heart enlargd?"}])
    assert got.imc["image"]["noise"] is None and got.imc["question"]["repaired"] == "Is the heart enlarged?"
    assert upstream.sent[1].json["messages"][0]["content"] == "Is the heart enlarged?"
    with pytest.raises(openai.BadRequestError, match=r"imc\.pcd"):
        client.chat.completions.create(model="m", messages=ask(png(noisy), "hi"), extra_body={"imc": {"pcd": True}})
    with pytest.raises(openai.BadRequestError, match="not a picture"):
        client.chat.completions.create(model="m", messages=ask(data_uri(b"hello"), "hi"))
    assert len(upstream.sent) == 2


ODD = [
    {},
    {"messages": None},
    {"messages": "hi"},
    {"messages": [5, None, {"role": "user"}]},
    {
        "messages": [
            {"role": "user", "content": [5, {"type": "text", "text": 5}, {"type": "image_url", "image_url": 1}]}
        ]
    },
    {"messages": [{"role": "assistant", "content": "x"}], "n": "two", "stream": "yes"},
    {"messages": [{"role": "user", "content": "\n \t"}]},
    {"messages": [{"role": "user", "content": "x" * 3000}]},
    {"messages": ask("http://127.0.0.1:9/x.png", "What modality is this?")},
]


@slow
@pytest.mark.parametrize("number", range(len(ODD)))
def test_what_is_not_understood_is_the_upstreams_business(number, server, upstream):
    raw = json.dumps(ODD[number]).encode()
    status, _, reply = post(server, raw)
    assert status == 200 and upstream.sent[0].body == raw
    row = json.loads(reply)["imc"]
    assert row["image"]["noise"] is None and row["question"]["edits"] == []
    assert row["question"]["checked"] == (number == 8) and (row["image"]["reason"] is not None) == (number == 8)


ODD_REPLIES = [
    {},
    {"choices": 5, "usage": 5, "id": 5},
    {"choices": [5, {"index": [], "message": 5, "finish_reason": {}}], "usage": {"completion_tokens": -1}, "imc": 1},
    {"choices": [{"message": {"content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"}]},
]


@slow
@pytest.mark.parametrize("number", range(len(ODD_REPLIES)))
def test_a_reply_of_any_shape_gets_the_report(number, server, upstream):
    body = ODD_REPLIES[number]
    upstream.answer = lambda handler: handler.whole(200, json.dumps(body).encode())
    status, _, raw = post(server, {"messages": [{"role": "user", "content": CLEAN}], "imc": {"sms": False}})
    said = json.loads(raw)
    assert status == 200 and said.pop("imc")["answer"] is None
    assert said == {name: value for name, value in body.items() if name != "imc"}


@slow
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(raw, server, upstream):
    status, _, reply = post(server, raw)
    assert status == 400 and "\n" not in json.loads(reply)["error"]["message"] and not upstream.sent


@slow
def test_a_dicom_file_is_sent_as_it_is_shown(server, upstream):
    pydicom = pytest.importorskip("pydicom")
    file = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    body = {"messages": ask(data_uri(file.read_bytes()), CLEAN), "imc": {"window": "lung", "pdc": False}}
    assert post(server, body)[0] == 200
    shown = pixels_of(upstream.sent[0].json["messages"][0]["content"][1]["image_url"]["url"])
    assert np.array_equal(shown, load_image(file, window="lung"))


FIRST, LAST = chunk({"role": "assistant", "content": "x-"}), chunk({"content": "ray"}, "stop", service_tier="a")
USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"


def events_of(raw: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in raw.split(b"\n\n") if event]


def stream(server: Server, upstream: StandIn, *pieces: bytes, **more: object) -> list[bytes]:
    """The events that a client gets of what the upstream sends piece by piece."""

    def answer(handler: Handler) -> None:
        handler.begin("text/event-stream; charset=utf-8")
        for piece in (*pieces, b""):
            handler.piece(piece)

    upstream.answer = answer
    body = {"messages": [{"role": "user", "content": CLEAN}], "stream": True, **more}
    status, headers, raw = post(server, body)
    assert status == 200 and headers["Content-Type"] == "text/event-stream; charset=utf-8"
    return events_of(raw.replace(b"\r\n", b"\n"))


@slow
def test_a_stream_is_passed_on_as_it_comes(client, upstream, picture):
    came, over = threading.Event(), []

    def answer(handler: Handler) -> None:
        handler.begin()
        handler.piece(FIRST)
        over.append(came.wait(20))
        for piece in (LAST, DONE, b""):
            handler.piece(piece)

    upstream.answer = answer
    seen = []
    with client.chat.completions.create(model="m", messages=ask(picture, DAMAGED), stream=True) as stream:
        for part in stream:
            seen.append(part)
            came.set()
    assert over == [True], "the first chunk came after the upstream had sent its last"
    assert [c.choices[0].delta.content for c in seen] == ["x-", "ray"]
    assert not hasattr(seen[0], "imc") and seen[1].imc["answer"] == "x-ray" and seen[1].service_tier == "a"
    assert seen[1].imc["question"]["repaired"] == REPAIRED and seen[1].imc["image"]["noise"]["kind"] == "clean"


def without_report(event: bytes) -> object:
    said = json.loads(event.removeprefix(b"data: "))
    assert said.pop("imc")["answer"] == "x-ray"
    return said


@slow
def test_every_chunk_but_the_one_with_the_report_comes_as_it_was(server, upstream):
    comment = b": still here\n\n"
    raw = comment + FIRST + LAST + USAGE + DONE
    got = stream(server, upstream, raw[:20], raw[20:21], raw[21:-3], raw[-3:])
    assert [got[i] for i in (0, 1, 3, 4)] == [comment, FIRST, USAGE, DONE]
    assert without_report(got[2]) == json.loads(LAST.removeprefix(b"data: "))
    crlf = stream(server, upstream, *(e.replace(b"\n", b"\r\n") for e in (FIRST, LAST, DONE)))
    assert crlf[0] == FIRST and without_report(crlf[1])["choices"][0]["finish_reason"] == "stop"
    mixed = b"".join(e.replace(b"\n\n", b"\n\r\n") for e in (FIRST, LAST, DONE))
    for pieces in ([mixed], [mixed[i : i + 1] for i in range(len(mixed))]):
        first, last, done = stream(server, upstream, *pieces)
        assert (first, done) == (FIRST, DONE) and without_report(last)["choices"][0]["finish_reason"] == "stop"
    two = stream(server, upstream, FIRST, LAST, chunk({"content": "CT"}, "stop", 1), DONE, n=2)
    assert two[:2] == [FIRST, LAST] and without_report(two[2])["choices"][0]["index"] == 1
    unsaid = stream(server, upstream, FIRST, chunk({"content": "ray"}), DONE)
    assert without_report(unsaid[2])["choices"] == [] and unsaid[3] == DONE and len(unsaid) == 4


@slow
def test_a_stream_that_breaks_off_says_so(server, upstream):
    def answer(handler: Handler) -> None:
        handler.begin()
        handler.piece(FIRST)
        handler.connection.shutdown(socket.SHUT_RDWR)

    got = stream(server, upstream, FIRST)
    assert got[0] == FIRST and json.loads(got[1][6:])["error"]["code"] == "upstream_failed"
    upstream.answer = answer
    status, _, raw = post(server, {"messages": [{"role": "user", "content": CLEAN}], "stream": True})
    first, last = events_of(raw)
    assert status == 200 and first == FIRST and json.loads(last[6:])["error"]["code"] == "upstream_failed"
    # In the midst of an event: what is left of it is thrown away, so that the error can be read.
    first, last = stream(server, upstream, FIRST, b'data: {"id":')
    assert first == FIRST and json.loads(last[6:])["error"]["code"] == "upstream_failed"
    assert stream(server, upstream, FIRST, LAST, DONE.rstrip())[-1] == DONE
    said = b'data: {"error": {"message": "out of memory"}}\n\n'
    assert stream(server, upstream, FIRST, said) == [FIRST, said]


@slow
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error": "images are not supported" }', "application/json"),
        (401, b'{"error":{"message":"no"}}', "application/json; charset=utf-8"),
        (404, b"404 page not found\n", "text/plain"),
        (429, b"", "application/json"),
        (500, b"<html>\xff</html>", "text/html"),
        (503, b'{"error": {"message": "Loading model", "code": 503}}', "application/json"),
    ],
)
def test_the_upstreams_errors_come_as_they_are(status, body, kind, server, upstream):
    upstream.answer = lambda handler: handler.whole(status, body, kind, Retry_After="7")
    got, headers, raw = post(server, {"messages": [{"role": "user", "content": CLEAN}]})
    assert (got, raw, headers["Content-Type"], headers["Retry-After"]) == (status, body, kind, "7")
    assert len(upstream.sent) == 1


def raw(status_line: bytes, *headers: bytes) -> Callable[[Handler], object]:
    """An upstream that sends just that."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(b"\r\n".join([b"HTTP/1.1 " + status_line, *headers, b"Content-Length: 2", b"", b"{}"]))

    return answer


UNUSUAL = {
    "a status of nobody's": raw(b"600 Odd"),
    "another": raw(b"999 Odd"),
    "early hints": raw(b"103 Early Hints"),
    "a compressed reply": raw(b"200 OK", b"Content-Type: application/json", b"Content-Encoding: gzip"),
    "an error as a success": lambda handler: handler.whole(200, b'{"error": {"message": "no memory"}}'),
    "a number that is none": lambda handler: handler.whole(200, b'{"choices": [], "big": 1e400}'),
}


@slow
@pytest.mark.parametrize("name", UNUSUAL)
def test_what_cannot_be_handed_on_is_said_in_a_line(name, server, upstream):
    upstream.answer = UNUSUAL[name]
    status, _, data = post(server, {"messages": [{"role": "user", "content": CLEAN}], "imc": {"sms": False}})
    error = json.loads(data)["error"]
    assert status == 502 and error["code"] == "upstream_failed" and "\n" not in error["message"]


@slow
def test_a_header_that_cannot_be_sent_is_left_out_and_an_odd_count_counts_nothing(server, upstream):
    odd = COMPLETION | {"usage": {"completion_tokens": 10**400}}
    body = json.dumps(odd).encode()

    def answer(handler: Handler) -> None:
        lines = [b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"X-Request-Id: a\r\n b"]
        handler.wfile.write(b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body]))

    upstream.answer = answer
    status, headers, _ = post(server, {"messages": [{"role": "user", "content": CLEAN}], "imc": {"sms": False}})
    assert status == 200 and "x-request-id" not in headers


@slow
def test_the_upstreams_key_stays_here(server, upstream):
    refused = {"error": {"message": f"{UPSTREAM_KEY} is wrong"}}
    upstream.answer = lambda handler: handler.whole(401, json.dumps(refused).encode())
    body = {"messages": [{"role": "user", "content": CLEAN}], "imc": {"sms": False}}
    status, headers, data = post(server, body)
    assert status == 401 and "is wrong" in data.decode() and UPSTREAM_KEY not in data.decode()
    assert "www-authenticate" not in headers, "by which the page tells it from a refusal of our own"
    status, _, data = server.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert status == 401 and UPSTREAM_KEY not in data.decode()
    (event,) = stream(server, upstream, b"data: " + json.dumps(refused).encode() + b"\n\n")
    assert b"is wrong" in event and UPSTREAM_KEY.encode() not in event


@slow
def test_a_connection_that_fails_before_the_reply_is_tried_again(server, upstream):
    def after_two(handler: Handler) -> None:
        if len(upstream.sent) > 2:
            complete(handler)

    upstream.answer = after_two
    body = {"messages": [{"role": "user", "content": CLEAN}]}
    status, _, _ = post(server, body)
    assert status == 200 and len(upstream.sent) == 3 and len({sent.body for sent in upstream.sent}) == 1
    for answer, tries in (
        (lambda handler: None, 4),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), 1),
        (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"), 1),
        (lambda handler: handler.whole(200, b"<html>", "text/html"), 1),
        (lambda handler: handler.whole(302, b"", Location="http://127.0.0.1:9/"), 1),
    ):
        upstream.sent.clear()
        upstream.answer = answer
        status, _, raw = post(server, body)
        error = json.loads(raw)["error"]
        assert status == 502 and error["code"] == "upstream_failed" and "\n" not in error["message"]
        assert len(upstream.sent) == tries


@slow
def test_no_upstream_is_said_in_one_line(default_bundle, tmp_path, picture):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = Server(tmp_path, "--upstream", f"http://127.0.0.1:{port}")
    try:
        assert f"http://127.0.0.1:{port}/v1 answers" in server.log
        for got in (server.send(CHAT, {"messages": ask(picture, CLEAN)}), server.send("/v1/models")):
            assert got[0] == 502 and got[2]["error"]["message"].startswith("the upstream cannot be reached (")
        # It may come later: what runs here does not depend on it.
        assert server.send("/healthz")[0] == 200
        assert server.send("/v1/inspect", {"image": picture})[2]["noise"]["kind"] == "clean"
    finally:
        server.stop()


@slow
def test_every_picture_must_be_gradable_where_that_is_asked_for(strict, upstream, strange, picture):
    turns = [*ask(picture, "What is this?"), {"role": "assistant", "content": [{"type": "text", "text": "an x-ray"}]}]
    asked = {"role": "user", "content": "And which body part?"}
    assert strict.send(CHAT, {"messages": [*turns, asked]})[0] == 200
    both = {"role": "user", "content": [*ask(strange, "hi")[0]["content"], *ask(picture, CLEAN)[0]["content"]]}
    elsewhere = ask("http://127.0.0.1:9/x.png", "What is this?")
    file = {"role": "user", "content": [{"type": "file", "file": {"file_data": picture}}]}
    upstream.sent.clear()
    url = {"type": "image_url", "image_url": {"url": strange}}
    # What some readers take for a picture.
    odd = [
        {"role": "user", "content": content}
        for content in (url, [strange], [{**url, "type": "text", "text": "hi"}], [{**url, "image_url": [strange]}])
    ]
    odd += [{**asked, "Content": [url]}, {"role": "user", "content": [{"type": "image_url", "Image_URL": strange}]}]
    for messages in (
        [*ask(strange, "hi"), asked],
        [both],
        [*elsewhere, asked],
        [file, asked],
        *([one, asked] for one in odd),
    ):
        status, _, reply = strict.send(CHAT, {"messages": messages})
        assert status == 422 and reply["error"]["code"] == "not_gradable" and "\n" not in reply["error"]["message"]
    assert strict.send(CHAT, {"messages": [asked], "Messages": ask(strange, "hi")})[0] == 422
    assert not upstream.sent
    # Of two values of one name, the one that was looked at is sent.
    seen, unseen = json.dumps([asked]), json.dumps(ask(strange, "hi"))
    assert post(strict, f'{{"messages": {unseen}, "messages": {seen}}}'.encode())[0] == 200
    assert [sent.json["messages"] for sent in upstream.sent] == [[asked]] and strange not in str(upstream.sent[0])


@slow
def test_pictures_that_cannot_be_graded(server, strict, upstream, strange, picture):
    status, _, raw = post(server, {"messages": ask(strange, CLEAN)})
    image = json.loads(raw)["imc"]["image"]
    assert status == 200 and image["gradable"] is False and image["restored"]
    assert upstream.sent[0].json["messages"] != ask(strange, CLEAN)
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 200)
    unknown = png(stripes)
    status, _, raw = post(server, {"messages": ask(unknown, CLEAN)})
    assert status == 200 and json.loads(raw)["imc"]["image"]["gradable"] is None
    assert upstream.sent[1].json["messages"] == ask(unknown, CLEAN)
    upstream.sent.clear()
    off = {"imc": {"pdc": False}}
    for body in ({"messages": ask(url, CLEAN)} for url in (strange, unknown, "http://127.0.0.1:9/x.png")):
        status, _, reply = strict.send(CHAT, body)
        assert status == 422 and reply["error"]["code"] == "not_gradable" and "\n" not in reply["error"]["message"]
    assert strict.send(CHAT, {"messages": ask(picture, CLEAN), **off})[0] == 422
    assert not upstream.sent
    assert strict.send(CHAT, {"messages": ask(picture, CLEAN)})[0] == 200
    assert strict.send(CHAT, {"messages": [{"role": "user", "content": CLEAN}]})[0] == 200


@slow
def test_a_picture_that_was_fetched_goes_on_as_the_file_that_was_judged(strict, upstream, chest):
    upstream.answer = lambda handler: (
        handler.whole(200, chest.read_bytes(), "image/jpeg") if handler.command == "GET" else complete(handler)
    )
    url = upstream.url.replace("/v1", "/chest.jpg")
    status, _, data = post(strict, {"messages": ask(url, "What modality is this?")})
    assert status == 200 and json.loads(data)["imc"]["image"]["noise"]["kind"] == "clean"
    sent = upstream.sent[-1].json["messages"][-1]["content"]
    assert [p["image_url"]["url"] for p in sent if p["type"] == "image_url"] == [
        data_uri(chest.read_bytes(), "image/jpeg")
    ]


@slow
def test_pictures_of_other_messages_go_on_as_the_files_that_were_judged(strict, upstream, chest):
    """Who answers would fetch an address anew, and could be given another picture."""
    asked = []

    def answer(handler: Handler) -> None:
        if handler.command == "GET":
            asked.append(handler.path)
            handler.whole(200, chest.read_bytes(), "image/jpeg")
        else:
            complete(handler)

    upstream.answer = answer
    url = upstream.url.replace("/v1", "/latest.jpg")
    earlier = [*ask(url, "What is this?"), {"role": "assistant", "content": "an x-ray"}]
    status, _, _ = post(strict, {"messages": [*earlier, {"role": "user", "content": CLEAN}]})
    assert status == 200 and asked == ["/latest.jpg"]
    sent = upstream.sent[-1].json["messages"][0]["content"]
    assert [p["image_url"]["url"] for p in sent if p["type"] == "image_url"] == [
        data_uri(chest.read_bytes(), "image/jpeg")
    ]


@slow
@pytest.mark.parametrize("embedded", [True, False])
def test_dicom_files_of_other_messages_go_on_as_they_were_shown(strict, upstream, chest, embedded):
    """Servers that answer read none. No restored picture takes the place of one that another turn is about."""
    dicom = dicom_files.written(dicom_files.make(load_image(chest)[..., 0], Modality="CR"))
    upstream.answer = lambda handler: (
        handler.whole(200, dicom, "application/dicom") if handler.command == "GET" else complete(handler)
    )
    url = data_uri(dicom, "application/dicom") if embedded else upstream.url.replace("/v1", "/chest")
    earlier = [*ask(url, "What is this?"), {"role": "assistant", "content": "an x-ray"}]
    status, _, raw = post(strict, {"messages": [*earlier, {"role": "user", "content": CLEAN}]})
    assert status == 200, raw
    sent = upstream.sent[-1].json["messages"][0]["content"]
    (shown,) = [p["image_url"]["url"] for p in sent if p["type"] == "image_url"]
    assert shown.startswith("data:image/png;base64,")
    assert np.array_equal(load_image(base64.b64decode(shown.partition(",")[2])), load_image(dicom))


@slow
def test_a_picture_is_encoded_once_in_a_conversation(server, upstream, picture):
    times = []
    for question in (CLEAN, "What body part is shown?"):
        _, _, raw = post(server, {"messages": ask(picture, question)})
        times.append(json.loads(raw)["imc"]["timings_ms"]["perceive"])
    assert times[1] == 0


@slow
def test_a_call_of_a_tool_has_no_answer_and_tokens_are_counted(server, upstream):
    def count() -> float:
        text = server.request("GET", "/metrics", None, {"Authorization": f"Bearer {KEY}"})[2].decode()
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("imc_answer_tokens_total "))

    before = count()
    call = chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}, "tool_calls")
    got = stream(server, upstream, chunk({"role": "assistant", "content": ""}), call, USAGE, DONE)
    assert json.loads(got[1][6:])["imc"]["answer"] is None
    assert count() - before == json.loads(USAGE[6:])["usage"]["completion_tokens"] > 0


@slow
def test_models(server, strict, upstream):
    listed = b'{"object":"list", "data":[{"id":"a/b:7b","object":"model","created":1,"owned_by":"library"}]}'
    upstream.answer = lambda handler: handler.whole(200, listed)
    headers = {"Authorization": f"Bearer {KEY}"}
    assert server.request("GET", "/v1/models", headers=headers)[2] == listed
    assert server.send("/v1/models/a/b:7b", None, headers)[2]["owned_by"] == "library"
    status, _, reply = server.send("/v1/models/default", None, headers)
    assert status == 404 and reply["error"]["code"] == "model_not_found"
    assert [(s.method, s.path) for s in upstream.sent] == [("GET", "/v1/models")] * 3
    assert [card["id"] for card in strict.send("/v1/models")[2]["data"]] == ["medgemma:4b"]
    assert strict.send("/v1/models/medgemma:4b")[0] == 200 and len(upstream.sent) == 3
    upstream.answer = complete
    strict.send(CHAT, {"model": "llava", "messages": [{"role": "user", "content": CLEAN}], "top_k": 5})
    sent = upstream.sent[-1]
    assert sent.json == {"model": "medgemma:4b", "messages": [{"role": "user", "content": CLEAN}], "top_k": 5}
    assert "authorization" not in sent.headers, "no key is set for it"


def gone(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side closes the connection within so many seconds."""
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


@slow
def test_the_time_is_bounded_and_nothing_goes_on_after_it(server, upstream, tmp_path):
    hasty = Server(tmp_path, "--upstream", upstream.url, "--timeout", "4")
    left: list[bool] = []

    def silent(handler: Handler) -> None:
        left.append(gone(handler.connection, 20))

    def halting(handler: Handler) -> None:
        handler.begin()
        handler.piece(FIRST)
        left.append(gone(handler.connection, 20))

    body = {"messages": [{"role": "user", "content": CLEAN}], "imc": {"sms": False}}
    upstream.answer = silent
    status, _, reply = hasty.send(CHAT, body)
    assert status == 504 and reply["error"]["code"] == "timeout"
    upstream.answer = halting
    status, _, raw = hasty.send(CHAT, body | {"stream": True})
    assert status == 200 and json.loads(events_of(raw.encode())[-1][6:])["error"]["code"] == "timeout"
    assert hasty.stop() == 0
    # Clients that leave.
    upstream.answer = silent
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    time.sleep(0.3)
    connection.close()
    upstream.answer = halting
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    connection.request("POST", CHAT, json.dumps(body | {"stream": True}).encode(), headers)
    assert connection.getresponse().read(10) == FIRST[:10]
    connection.close()
    until = time.monotonic() + 10
    while len(left) < 4:
        assert time.monotonic() < until, "the upstream still works for nobody"
        time.sleep(0.05)
    assert left == [True] * 4


@slow
def test_nothing_of_a_request_is_logged_or_counted(server, upstream, picture):
    assert post(server, {"messages": ask(picture, "Is the zyzzyva visible?")})[0] == 200
    metrics = server.send("/metrics")[2]
    assert "zyzzyva" not in server.log + metrics and "base64" not in server.log + metrics
    assert UPSTREAM_KEY not in server.log + metrics and "POST /v1/chat/completions 200" in server.log
    assert 'imc_noise_total{kind="clean"}' in metrics and "imc_answer_tokens_total 0.0" not in metrics


@slow
def test_its_own_description_and_page(strict):
    _, _, description = strict.send("/openapi.json")
    replies = description["paths"][CHAT]["post"]["responses"]
    assert {"200", "422", "502"} <= set(replies) and "HTTPValidationError" not in json.dumps(description)
    page = strict.send("/")[2]
    assert "<title>" in page and 'id="wording-field" hidden' in page


@slow
def test_in_front_of_our_own_server(default_bundle, tmp_path, noisy, chest):
    behind = Server(tmp_path)
    before = Server(tmp_path, "--upstream", f"{behind.url}/v1/", "--upstream-model", "default")
    try:
        client = openai.OpenAI(base_url=f"{before.url}/v1", api_key="none", max_retries=0)
        got = client.chat.completions.create(model="gpt", messages=ask(png(noisy), DAMAGED))
        restored = restore_full_size(noisy, "impulse", 3)
        expected = IMC.from_pretrained(default_bundle).answer(restored, REPAIRED)
        assert got.choices[0].message.content == expected.answer == got.imc["answer"]
        assert got.imc["image"]["noise"]["kind"] == "impulse" and got.imc["image"]["restored"]
        assert [edit["to"] for edit in got.imc["question"]["edits"]] == ["modality"]
        chunks = list(client.chat.completions.create(model="gpt", messages=ask(png(noisy), DAMAGED), stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected.answer
        assert chunks[-1].imc["image"]["restored"] and chunks[-1].imc["answer"] == expected.answer
        with pytest.raises(openai.BadRequestError, match="tools is not supported"):
            client.chat.completions.create(model="gpt", messages=ask(png(noisy), "hi"), tools=[{"type": "function"}])
    finally:
        assert before.stop() == 0 and behind.stop() == 0


@slow
@pytest.mark.parametrize(
    ("options", "env", "why"),
    [
        (["--upstream", "ftp://a.org/v1"], {}, "no http or https URL"),
        (["--upstream", "localhost:11434"], {}, "no http or https URL"),
        (["--upstream", "http://"], {}, "no http or https URL"),
        (["--upstream", "http://a.org:x/v1"], {}, "cannot be read"),
        (["--upstream", "http://me:secret@a.org/v1"], {}, "holds a user name"),
        (["--upstream", "http://a.org/v1?key=secret"], {}, "after ?"),
        (["--upstream", "http://a.org", "--upstream-model", ""], {}, "empty name"),
        (["--upstream", "http://a.org"], {"IMC_LITE_UPSTREAM_KEY": "secr\u00e9t"}, "IMC_LITE_UPSTREAM_KEY"),
        (["--upstream-model", "m"], {}, "go with --upstream"),
        (["--refuse-ungradable"], {}, "go with --upstream"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(options, env, why):
    command = [sys.executable, "-m", "imc_lite", "serve", "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and why in done.stderr
    assert "secr" not in done.stderr


def test_addresses_as_they_are_meant():
    for given, url in (
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("http://127.0.0.1:11434/", "http://127.0.0.1:11434/v1"),
        ("https://a.org/openai/v1/", "https://a.org/openai/v1"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
    ):
        assert Upstream(given).url == url
    with pytest.raises(ImcError):
        Upstream("http://a.org/a b")
    for given in ({"url": 3}, {"url": "http://a.org", "model": 3}, {"url": "http://a.org", "timeout": "5"}):
        with pytest.raises(ImcError, match=r"must be text|timeout is"):
            Upstream(**given)


@pytest.mark.parametrize(
    ("text", "repaired", "woven"),
    [
        (" Is teh  heart\nbig?\n\n(a)\n(b) ", "Is the heart big? (a) (b)", " Is the  heart\nbig?\n\n(a)\n(b) "),
        ("pneumo thorax?\tsay", "pneumothorax? say", "pneumothorax?\tsay"),
        ("Isthere\na mass", "Is there a mass", "Is there\na mass"),
        ("What this\r\n", "What is this", "What is this\r\n"),
        ("What is", "What is this", "What is this"),
        (" x", "y", " y"),
        ("Cafe\u0301\x00teh\n", "Caf\u00e9 the", "Cafe\u0301\x00the\n"),
    ],
)  # fmt: skip
def test_a_repair_leaves_line_breaks_and_spaces(text, repaired, woven):
    assert keep_spacing(text, repaired) == woven and check_question(woven) == repaired
    assert keep_spacing(text, check_question(text)) == text


@pytest.mark.parametrize("kind", ["gaussian", "speckle", "impulse", "low_contrast", "pixelation"])
@pytest.mark.parametrize("severity", [1, 3])
def test_restored_at_its_own_size(kind, severity):
    """Nearer to the clean picture than the noisy one is, and where it is small, what the encoder would be shown."""
    for name, grey in (("synpic28602.jpg", True), ("synpic22286.jpg", False)):
        clean = load_image(Path(__file__).parent / "images" / name)
        if not grey:
            clean = np.stack([clean[..., 0], clean[..., 1] // 2, 255 - clean[..., 2]], 2)
        noisy = apply_to_image(clean, kind, severity, 0)
        restored = restore_full_size(noisy, kind, severity)
        assert restored.shape == clean.shape and restored.dtype == np.uint8
        errors = [((p.astype(float) - clean) ** 2).mean() for p in (restored, noisy)]
        assert errors[0] < (0.9 if kind == "pixelation" else 0.45) * errors[1]
        small = noisy[:200, :300]
        assert np.array_equal(restore_full_size(small, kind, severity), restore(small, kind, severity))
