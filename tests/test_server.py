"""The server as clients meet it: a real process, OpenAI's own client, and requests that mean no good."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image
from serving import Server, ask, data_uri

from imc_lite import IMC, load_image
from imc_lite.noise.image import apply_to_image

fastapi = pytest.importorskip("fastapi", reason="the server needs imc-lite[serve]")
openai = pytest.importorskip("openai", reason="the server is tested with OpenAI's client")
pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
QUESTION = "What modlity is this?"
KEY = "correct-horse"


class Host(BaseHTTPRequestHandler):
    """A host of pictures, and of traps."""

    picture = b""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/picture.jpg")
            self.end_headers()
            return
        self.send_response(200 if self.path in ("/picture.jpg", "/large", "/cut") else 404)
        if self.path == "/cut":
            self.send_header("Content-Length", str(len(self.picture) + 1))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.picture if self.path != "/large" else bytes(3 << 20))

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def host(chest):
    Host.picture = chest.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def server(default_bundle, tmp_path_factory, host):
    options = ["--max-body", "2", "--max-pixels", "3", "--max-tokens", "16"]
    for name in ("127.0.0.1", "localhost"):
        options += ["--allow-host", f"{name}:{host}"]
    server = Server(tmp_path_factory.mktemp("serve"), *options)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log and "unexpected" not in server.log


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def imc(default_model, default_bundle):
    return IMC.from_pretrained(default_bundle)


@pytest.fixture(scope="module")
def noisy(chest):
    buffer = io.BytesIO()
    Image.fromarray(apply_to_image(load_image(chest), "impulse", 4, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def same(row: dict, other: dict) -> bool:
    """Whether two reports agree on all but times and ids."""
    return all(row[k] == other[k] for k in ("answer", "image", "question", "model", "versions")) and np.isclose(
        row["confidence"], other["confidence"]
    )


def test_openais_client_gets_the_answer_of_the_python_api(client, imc, chest, picture):
    got = client.chat.completions.create(model="default", messages=ask(picture, QUESTION), max_tokens=1000, seed=1)
    expected = imc.answer(chest.read_bytes(), QUESTION).to_dict()
    assert got.choices[0].message.content == expected["answer"] and got.choices[0].finish_reason == "stop"
    assert same(got.imc, expected) and got.imc["id"] == got.id
    assert got.imc["timings_ms"]["total"] > got.imc["timings_ms"]["load"] > 0
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens > 2


def test_streaming_says_the_same(client, server, picture):
    options = {"model": "default", "messages": ask(picture, QUESTION)}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and len(chunks) >= 4
    assert chunks[-2].choices[0].finish_reason == "stop" and same(chunks[-2].imc, whole.imc)
    assert chunks[-1].usage == whole.usage and len({c.created for c in chunks}) == 1
    status, headers, raw = server.send("/v1/chat/completions", {**options, "stream": True})
    assert status == 200 and headers.get_content_type() == "text/event-stream"
    assert raw.endswith("\n\ndata: [DONE]\n\n") and all(e.startswith("data: ") for e in raw.split("\n\n") if e)


def test_the_next_request_about_a_picture_spares_its_encoder(client, picture):
    """And the same question its repair; not where a request wants it looked at otherwise."""

    def timings(**imc) -> dict:
        question = "Is teh hart enlarged in this one?"
        reply = client.chat.completions.create(
            model="default", messages=ask(picture, question), extra_body={"imc": imc}
        )
        return reply.imc["timings_ms"]

    first, second, plain = timings(), timings(), timings(pdc=False, sms=False)
    assert second["perceive"] == second["calibrate"] == 0 < plain["perceive"]
    # Looked up, not made again; how long either takes hangs on what else the machine does.
    assert max(second["repair"], plain["repair"]) < first["repair"] / 50


def test_log_probabilities_are_openais(client, imc, chest, picture):
    options = {"model": "default", "messages": ask(picture, QUESTION), "logprobs": True}
    whole = client.chat.completions.create(**options, top_logprobs=3).choices[0]
    rows = whole.logprobs.content
    assert "".join(row.token for row in rows) == whole.message.content
    assert b"".join(bytes(row.bytes) for row in rows).decode() == whole.message.content
    wanted = imc.answer(chest.read_bytes(), QUESTION, top_logprobs=3).top_logprobs
    assert [[(t.token, round(t.logprob, 4)) for t in row.top_logprobs] for row in rows] == [
        [(c.text, round(c.logprob, 4)) for c in likeliest] for likeliest in wanted
    ]
    assert all(row.logprob == row.top_logprobs[0].logprob > row.top_logprobs[1].logprob for row in rows)
    bare = client.chat.completions.create(**options).choices[0].logprobs.content
    assert [(row.token, row.top_logprobs) for row in bare] == [(row.token, []) for row in rows]
    last = [c for c in client.chat.completions.create(**options, stream=True) if c.choices]
    assert [c.choices[0].logprobs for c in last[:-1]] == [None] * (len(last) - 1)
    assert [row.token for row in last[-1].choices[0].logprobs.content] == [row.token for row in rows]


def test_our_options_and_an_answer_cut_short(client, picture):
    create = client.chat.completions.create
    plain = create(
        model="default", messages=ask(picture, QUESTION), max_completion_tokens=1,
        extra_body={"imc": {"pdc": False, "sms": False}},
    )  # fmt: skip
    assert plain.choices[0].finish_reason == "length" and plain.usage.completion_tokens == 1
    assert plain.imc["image"]["noise"] is None and plain.imc["question"]["edits"] == []


def test_the_picture_may_stand_in_an_earlier_turn(client, imc, chest, picture):
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}  # of others nothing is read
    turns = [*ask(picture, "What is this?"), {"role": "assistant", "content": "an x-ray"}, refusal]
    turns += [{"role": "user", "content": "What body part is shown?"}]
    got = client.chat.completions.create(model="default", messages=turns)
    assert got.choices[0].message.content == imc.answer(chest, "What body part is shown?").answer


def test_inspect_repair_and_restore_give_the_command_lines_objects(server, imc, chest, picture, noisy):
    from dataclasses import asdict

    for data in (chest.read_bytes(), noisy):
        status, _, got = server.send("/v1/inspect", {"image": data_uri(data)})
        assert status == 200 and got == json.loads(json.dumps(asdict(imc.inspect(data))))
    status, _, got = server.send("/v1/repair", {"question": "Is teh heart enlargd?"})
    assert status == 200 and got == imc.repair("Is teh heart enlargd?").to_dict()
    status, _, clean = server.send("/v1/restore", {"image": picture})
    assert status == 200 and clean["after"] is None
    status, _, got = server.send("/v1/restore", {"image": data_uri(noisy)})
    assert got["image"]["noise"]["kind"] == "impulse" and got["image"]["restored"]
    before, after, truth = (
        np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((200, 200)), float)
        for data in (*(base64.b64decode(got[k].partition(",")[2]) for k in ("before", "after")), chest.read_bytes())
    )
    assert np.abs(after - truth).mean() < np.abs(before - truth).mean() / 2


def test_noise_on_a_picture_and_pictures_to_try_it_on(server, chest, picture):
    from imc_lite.noise import apply_to_image

    status, _, got = server.send("/v1/noise", {"image": picture, "kind": "gaussian", "severity": 4, "seed": 7})
    assert status == 200 and list(got) == ["image"]
    assert server.send("/v1/noise", {"image": picture, "kind": "gaussian", "severity": 4, "seed": 7})[2] == got
    noisy = Image.open(io.BytesIO(base64.b64decode(got["image"].partition(",")[2]))).convert("RGB")
    small = Image.open(chest).convert("RGB")
    small.thumbnail((640, 640), Image.Resampling.BICUBIC, reducing_gap=2.0)
    np.testing.assert_array_equal(np.asarray(noisy), apply_to_image(np.asarray(small), "gaussian", 4, 7))
    assert server.send("/v1/inspect", {"image": got["image"]})[2]["noise"]["kind"] == "gaussian"
    for wrong in ({"kind": "fog"}, {"kind": "typo"}, {"severity": 0}, {"severity": 6}, {"severity": "3"}, {"seed": -1}):
        status, _, error = server.send("/v1/noise", {"image": picture, "kind": "gaussian", "severity": 3, **wrong})
        assert status == 400 and error["error"]["message"], wrong
    status, _, got = server.send("/v1/examples")
    assert status == 200 and len(got["examples"]) == 3
    for example in got["examples"]:
        assert server.send("/v1/inspect", {"image": example["image"]})[2]["noise"]["kind"] == "clean"
        assert example["name"] and example["question"].endswith("?")


def test_dicom_with_window_and_frame(server):
    pydicom = pytest.importorskip("pydicom")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    image = data_uri((folder / "CT_small.dcm").read_bytes(), "application/dicom")
    shown = [server.send("/v1/restore", {"image": image, "window": w})[2]["before"] for w in ("lung", "bone")]
    assert shown[0] != shown[1]
    status, _, got = server.send("/v1/inspect", {"image": image, "frame": 2})
    assert status == 400 and "no frame 2" in got["error"]["message"]


CHAT, INSPECT = "/v1/chat/completions", "/v1/inspect"
EMBEDDED, HOST = "EMBEDDED", "http://127.0.0.1:0000"  # put in when the test runs
HI = ask(EMBEDDED, "hi")
BASE = {"model": "default", "messages": HI}


def user(*parts: dict) -> dict:
    return {"messages": [{"role": "user", "content": [*parts]}]}


def wide() -> str:
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "PNG")
    return data_uri(buffer.getvalue())


BAD = {
    "no json": (CHAT, b"{", 400, "JSON"),
    "deep json": (CHAT, b"[" * 100_000, 400, "send UTF-8 JSON"),
    "not utf-8": (CHAT, b'{"model": "\xff"}', 400, "send UTF-8 JSON"),
    "long number": (CHAT, b'{"seed": ' + b"9" * 5000 + b"}", 400, "send UTF-8 JSON"),
    "empty": (CHAT, b"", 400, "no body"),
    "no messages": (CHAT, {"model": "default"}, 400, "messages"),
    "many messages": (CHAT, {"messages": [{"role": "user", "content": "hi"}] * 201}, 400, "messages"),
    "likeliest tokens alone": (CHAT, BASE | {"top_logprobs": 2}, 400, "logprobs: true"),
    "too many likeliest": (CHAT, BASE | {"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    "wrong type": (CHAT, BASE | {"stream": "yes"}, 400, "stream"),
    "other model": (CHAT, BASE | {"model": "gpt-4o"}, 404, "'default' only"),
    "no picture": (CHAT, {"messages": [{"role": "user", "content": "hi"}]}, 400, "no picture"),
    "two pictures": (CHAT, user(*HI[0]["content"], *HI[0]["content"]), 400, "one picture"),
    "assistant last": (CHAT, {"messages": [*HI, {"role": "assistant", "content": "x"}]}, 400, "last message"),
    "no question": (CHAT, {"messages": ask(EMBEDDED, " \n")}, 400, "question is empty"),
    "long question": (CHAT, {"messages": ask(EMBEDDED, "x" * 3000)}, 400, "3,000 characters"),
    "audio": (CHAT, user({"type": "input_audio"}), 400, "messages.0.content.0: the type must be one of"),
    "no address": (CHAT, user({"type": "image_url"}), 400, "messages.0.content.0.image_url"),
    "no text": (CHAT, user({"type": "text"}), 400, "messages.0.content.0.text"),
    "number for content": (CHAT, {"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content: Input"),
    "tools": (CHAT, BASE | {"tools": [{"type": "function"}]}, 400, "tools is not supported"),
    "two choices": (CHAT, BASE | {"n": 2}, 400, "n: "),
    "no tokens": (CHAT, BASE | {"max_tokens": 0}, 400, "max_tokens"),
    "unknown option": (CHAT, BASE | {"imc": {"pcd": True}}, 400, "imc.pcd"),
    "window on a jpeg": (CHAT, BASE | {"imc": {"window": "lung"}}, 400, "not DICOM"),
    "refused stream": (CHAT, {"messages": ask("data:;base64,QUJD", "hi"), "stream": True}, 400, "not a picture"),
    "not base64": (INSPECT, {"image": "data:image/png;base64,%%%"}, 400, "not base64"),
    "not encoded": (INSPECT, {"image": "data:image/png,abc"}, 400, "not base64"),
    "no picture inside": (INSPECT, {"image": data_uri(b"hello")}, 400, "not a picture"),
    "many pixels": (INSPECT, {"image": wide()}, 400, "3 million pixels"),
    "large body": (INSPECT, {"image": "x" * (3 << 20)}, 413, "2 MiB"),
    "file": (INSPECT, {"image": "file:///etc/passwd"}, 400, "data URI"),
    "other host": (INSPECT, {"image": "http://example.org/x.png"}, 400, "not fetched from that host"),
    "other port": (INSPECT, {"image": "http://127.0.0.1:9/x.png"}, 400, "not fetched from that host"),
    "user name": (INSPECT, {"image": f"{HOST}/picture.jpg".replace("//", "//a@")}, 400, "user name"),
    "private name": (INSPECT, {"image": f"{HOST}/picture.jpg".replace("127.0.0.1", "localhost")}, 400, "private"),
    "redirect": (INSPECT, {"image": f"{HOST}/moved"}, 400, "a redirect"),
    "gone": (INSPECT, {"image": f"{HOST}/gone"}, 400, "status 404"),
    "large file": (INSPECT, {"image": f"{HOST}/large"}, 400, "over 2 MiB"),
    "cut file": (INSPECT, {"image": f"{HOST}/cut"}, 400, "broke off"),
    "odd url": (INSPECT, {"image": "http://[::1/x"}, 400, "cannot be read"),
    "empty repair": ("/v1/repair", {"question": ""}, 400, "empty"),
    "wrong path": ("/v1/nothing", {}, 404, "Not Found"),
    "wrong method": ("/v1/models", {}, 405, "Not Allowed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_get_openais_error(name, server, picture, host):
    path, body, status, why = BAD[name]
    if not isinstance(body, bytes):
        body = json.dumps(body).replace(EMBEDDED, picture).replace(":0000/", f":{host}/").encode()
    got, _, reply = server.send(path, body)
    assert got == status, reply
    assert set(reply) == {"error"} and set(reply["error"]) == {"message", "type", "param", "code"}
    assert why in reply["error"]["message"] and "\n" not in reply["error"]["message"]


def test_base64_is_taken_as_clients_write_it(server, picture):
    head, _, data = picture.partition(",")
    plain = server.send(INSPECT, json.dumps({"image": picture}).encode())
    broken = "\n".join(data[i : i + 76] for i in range(0, len(data), 76)).rstrip("=")
    for other in (broken, data.replace("+", "-").replace("/", "_"), quote(data)):
        status, _, reply = server.send(INSPECT, json.dumps({"image": f"{head},{other}"}).encode())
        assert status == 200 and reply["noise"] == plain[2]["noise"]


def test_only_json_is_taken(server):
    """A form that another site sends needs no leave of the browser; JSON does."""
    status, _, _ = server.send("/v1/repair", {"question": "Is it?"}, {"Content-Type": "text/plain"})
    assert status == 400


def test_an_allowed_host_is_asked(server, host, picture):
    _, _, embedded = server.send("/v1/inspect", {"image": picture})
    assert server.send("/v1/inspect", {"image": f"http://127.0.0.1:{host}/picture.jpg"})[2] == embedded


def test_nothing_of_a_request_is_logged_or_counted(server, client, picture):
    client.chat.completions.create(model="default", messages=ask(picture, "Is the zyzzyva visible?"))
    server.send("/v1/secret-path?question=zyzzyva")
    _, _, metrics = server.send("/metrics")
    for text in (server.log, metrics):
        assert "zyzzyva" not in text and "secret" not in text and "base64" not in text
    assert 'imc_requests_total{route="/v1/chat/completions",status="200"}' in metrics
    for name in (
        "imc_waiting 0.0",
        "imc_workers 1.0",
        "process_resident_memory_bytes",
        'imc_noise_total{kind="clean"}',
    ):
        assert name in metrics


def test_health_models_and_description(server, client):
    assert server.send("/healthz")[2]["status"] == "ok"
    assert [m.id for m in client.models.list()] == ["default"]
    _, _, description = server.send("/openapi.json")
    assert {
        "/v1/chat/completions",
        "/v1/inspect",
        "/v1/repair",
        "/v1/restore",
        "/v1/noise",
        "/v1/examples",
        "/",
    } <= set(description["paths"])
    assert "422" not in json.dumps(description)


HARMLESS = {
    "nothing but the question": {},
    "no model": {"model": None},
    "an empty model": {"model": ""},
    "another case": {"model": "Default"},
    "everything null": dict.fromkeys(
        ("stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature", "top_p", "seed", "imc",
         "stop", "tools", "tool_choice", "response_format", "logprobs", "logit_bias", "user", "metadata", "store")
    ),
    "what clients send unasked": {
        "n": 1, "temperature": 0, "top_p": 1, "seed": 7, "response_format": {"type": "text"}, "user": "u",
        "metadata": {"a": "b"}, "store": False, "stream_options": {"include_usage": None}, "frequency_penalty": 0,
        "presence_penalty": 0.0, "logprobs": False, "tools": [], "tool_choice": "auto", "service_tier": "auto",
        "parallel_tool_calls": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_is_taken(name, server, picture):
    status, _, reply = server.send(CHAT, {"messages": ask(picture, QUESTION), **HARMLESS[name]})
    assert status == 200, reply
    assert reply["model"] == "default" and reply["choices"][0]["message"]["content"] == "x-ray"


def test_an_address_may_stand_without_its_object(server, picture):
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": picture}]
    status, _, reply = server.send(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert status == 200 and reply["choices"][0]["message"]["content"] == "x-ray"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"])
def test_ways_to_say_json(kind, server):
    status, _, raw = server.request("POST", "/v1/repair", b'{"question": "Is it?"}', {"Content-Type": kind})
    assert status == 200, raw


def test_the_model_by_its_name(server, client):
    assert client.models.retrieve("default").id == "default"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4o")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/default"])
def test_head_and_options_of_what_can_be_got(path, server):
    status, found, raw = server.request("GET", path)
    assert status == 200 and raw
    head, same, nothing = server.request("HEAD", path)
    assert head == 200 and nothing == b"" and same["Content-Type"] == found["Content-Type"]
    status, found, raw = server.request("OPTIONS", path)
    assert status == 204 and raw == b"" and found["Allow"] == "GET, HEAD, OPTIONS"


def test_methods_that_a_route_does_not_have(server):
    for method, path, allowed in (("HEAD", CHAT, "OPTIONS, POST"), ("GET", CHAT, "OPTIONS, POST"),
                                  ("DELETE", "/v1/models", "GET, HEAD, OPTIONS")):  # fmt: skip
        status, found, _ = server.request(method, path)
        assert status == 405 and found["Allow"] == allowed
    assert server.request("OPTIONS", "/v1/nothing")[0] == 404


def test_a_slash_at_the_end_changes_nothing(server):
    for path, body in (("/v1/models/", None), ("/healthz/", None), ("/v1/repair/", {"question": "Is it?"})):
        assert server.send(path, body)[0] == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/embeddings", "/chat/completions"])
def test_other_routes_of_openai_say_where_to_ask(path, server):
    status, _, reply = server.send(path, {"model": "default", "prompt": "hi"})
    assert status == 404 and CHAT in reply["error"]["message"] and reply["error"]["code"] == "not_found"


def test_schemathesis_finds_nothing(server, tmp_path):
    """Examples, edge cases and random data from the server's own description.

    One check is left out: that data which fit the schema are accepted. No schema can say that a text is a picture.
    """
    pytest.importorskip("schemathesis")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--seed", "0"]
    command += ["--max-examples", "8", "--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert server.send("/v1/repair", {"question": "Is it?"})[0] == 200


def test_examples_of_the_page(server):
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.url)
    code = re.search(r"```python\n(.*?)```", text, flags=re.S).group(1)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "x-ray modality\n"
    commands = re.findall(r"^\$ (.*)\n(.*)\n", text, flags=re.M)
    assert len(commands) == 2
    for command, output in commands:
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.rstrip("\n") == output


def test_a_client_that_leaves_frees_its_worker(server, picture):
    body = json.dumps({"model": "default", "messages": ask(picture, QUESTION), "stream": True}).encode()
    for _ in range(4):
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        connection.close()
    until = time.monotonic() + 20
    while "imc_running 0.0" not in server.send("/metrics")[2] or "imc_waiting 0.0" not in server.send("/metrics")[2]:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert server.send("/v1/repair", {"question": "Is it?"})[0] == 200


@pytest.fixture(scope="module")
def strict(default_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    (folder / "key").write_text(KEY + "\n")
    server = Server(folder, "--api-key-file", str(folder / "key"), "--queue", "2", "--timeout", "6")
    yield server
    server.stop()


def test_the_key(strict):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": "Bearer \xe9"}):
        status, found, reply = strict.send("/v1/models", None, headers)
        assert status == 401 and reply["error"]["code"] == "invalid_api_key" and found["WWW-Authenticate"] == "Bearer"
    client = openai.OpenAI(base_url=f"{strict.url}/v1", api_key=KEY)
    assert [m.id for m in client.models.list()] == ["default"]
    assert strict.send("/healthz")[0] == 200 and strict.send("/")[0] == 200
    assert strict.request("OPTIONS", "/v1/models")[0] == 204, "a browser's question beforehand carries no key"
    assert strict.request("HEAD", "/v1/models")[0] == 401
    assert KEY not in strict.log
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{strict.url}/v1", api_key="wrong").models.list()


def test_pages_of_other_names_are_turned_away(server, strict):
    """What a browser sends after DNS rebinding; with a key the key keeps strangers out."""
    port = urlsplit(server.url).port
    for name in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "192.168.0.7", "[2001:db8::1]:80"):
        for path, body in (("/", None), ("/v1/repair", {"question": "Is it?"})):
            status, _, reply = server.send(path, body, {"Host": name})
            assert status == 421 and reply["error"]["code"] == "wrong_host"
    for name in ("localhost", f"LOCALHOST:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert server.send("/healthz", None, {"Host": name})[0] == 200
    assert strict.send("/healthz", None, {"Host": "clinic.example"})[0] == 200


def test_a_target_may_name_the_server_too(server):
    """As clients of a proxy write it; what it names counts, and not the Host beside it."""
    address = urlsplit(server.url)
    for host, path, status in (
        (f"localhost:{address.port}", "/healthz", 200),
        ("localhost", "/v1/models/DEFAULT?x=1", 200),
        ("localhost", "", 200),
        ("evil.example", "/healthz", 421),
    ):
        with socket.create_connection((address.hostname, address.port), 20) as line:
            line.sendall(f"GET http://{host}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert line.recv(99).startswith(f"HTTP/1.1 {status} ".encode()), (host, path)


def test_over_the_queue_and_over_the_time(strict, picture):
    """One works, two wait, the others are told when to come again; whoever waits too long hears so."""
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "default", "messages": ask(picture, QUESTION)}
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda _: strict.send("/v1/chat/completions", body, headers), range(12)))
    statuses = [status for status, _, _ in replies]
    assert {200, 429} <= set(statuses) <= {200, 429, 504}
    for status, found, reply in replies:
        if status == 429:
            assert 1 <= int(found["Retry-After"]) <= 60 and reply["error"]["code"] == "queue_full"
        if status == 200:
            assert reply["choices"][0]["message"]["content"] == "x-ray"
    # Half a body and then nothing.
    address = urlsplit(strict.url)
    with socket.create_connection((address.hostname, address.port)) as slow:
        head = f"POST /v1/repair HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 50\r\n\r\n{{"
        slow.sendall(head.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert strict.send("/v1/repair", {"question": "Is it?"}, headers)[0] == 200


def test_a_connection_on_which_nothing_is_asked_is_closed(default_bundle, tmp_path):
    server = Server(tmp_path, "--timeout", "1", "--no-pdc", "--no-sms")
    address = (urlsplit(server.url).hostname, urlsplit(server.url).port)
    began = time.monotonic()
    silent, halting, kept = (socket.create_connection(address, 20) for _ in range(3))
    halting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x")
    kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answered = kept.recv(4096)
    kept.sendall(b"GET /hea")
    for connection in (silent, halting, kept):
        while connection.recv(4096):
            pass
        connection.close()
    assert answered.startswith(b"HTTP/1.1 200") and time.monotonic() - began < 10
    assert server.send("/healthz")[0] == 200 and server.stop() == 0
    assert "Traceback" not in server.log and "unexpected" not in server.log


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of descriptors to set")
def test_more_connections_than_there_are_descriptors_for(default_bundle, tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        server = Server(tmp_path, "--no-pdc", "--no-sms")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    address = (urlsplit(server.url).hostname, urlsplit(server.url).port)
    idle = [socket.create_connection(address, 20) for _ in range(200)]
    for connection in idle:
        connection.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError):  # the system may have taken more of them than the server has
            assert server.send("/healthz")[0] == 200
            break
        time.sleep(0.1)
    else:
        pytest.fail("nobody is answered any more")
    assert server.stop() == 0 and "Traceback" not in server.log and len(server.log) < 1000


def test_what_runs_is_finished_before_the_end(default_bundle, tmp_path, picture):
    server = Server(tmp_path, "--grace", "60", env={"IMC_LITE_API_KEY": KEY})
    body = {"model": "default", "messages": ask(picture, QUESTION)}
    headers = {"Authorization": f"Bearer {KEY}"}
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(server.send, "/v1/chat/completions", body, headers) for _ in range(3)]
        time.sleep(0.5)
        server.process.terminate()
        assert [r.result()[0] for r in running] == [200] * 3
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_an_answer_that_was_sent_is_not_lost_by_a_second_signal(imc):
    """What a route does once its client has the whole answer keeps no one waiting."""
    from imc_lite.server.guard import Guard
    from imc_lite.server.metrics import Metrics
    from imc_lite.server.pool import Pool
    from imc_lite.server.settings import Settings

    app = fastapi.FastAPI()
    settings = Settings()
    pool = Pool(lambda: imc, 1, 1)
    busy = []

    @app.get("/healthz")
    async def healthz(tasks: fastapi.BackgroundTasks) -> None:
        busy.append(guard.busy)
        tasks.add_task(lambda: busy.append(guard.busy))

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    async def send(message: dict) -> None:
        busy.append(guard.busy)

    guard = Guard(app, pool, Metrics(pool), settings, print)
    scope = {"type": "http", "method": "GET", "path": "/healthz", "query_string": b"", "headers": []}
    scope["headers"].append((b"host", b"127.0.0.1"))
    asyncio.run(guard(scope, receive, send))
    # In the route, at the beginning of the answer, at its end, and after it.
    assert busy == [True, True, True, False]


@pytest.mark.parametrize(
    ("options", "env", "why"),
    [
        (["--api-key-file", "no-such-file"], {}, "cannot read the key file"),
        ([], {"IMC_LITE_API_KEY": " "}, "no usable key"),
        (["--port", "PORT"], {}, "cannot listen"),
        (["--host", "no.such.host.invalid"], {}, "cannot listen"),
        (["--model", "nothing"], {}, "no model"),
        (["--prototypes", "nothing", "--port", "0"], {}, "no readable prototypes"),
        (["--confidence", "nothing", "--port", "0"], {}, "no readable confidence"),
        (["--max-risk", "0.2", "--upstream", "http://127.0.0.1:9/v1"], {}, "--max-risk"),
        (["--workers", "0"], {}, "--workers"),
        (["--grace", "-1"], {}, "--grace"),
        (["--device", "cpu", "--quant", "int8"], {}, "leave --quant out"),
        (["--model", "no/such-model", "--offline"], {}, "no/such-model"),
        (["--allow-host", "https://a.org/"], {}, "not a URL"),
    ],
)
def test_a_server_that_cannot_start_says_why(options, env, why, default_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [str(taken.getsockname()[1]) if o == "PORT" else o for o in options]
        command = [sys.executable, "-m", "imc_lite", "serve", *given]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and why in done.stderr


def test_the_command_line_stays_light():
    code = "import sys, imc_lite.cli.main; print({'fastapi', 'uvicorn', 'pydicom', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
