"""The server with another model than its own: a Hugging Face checkpoint by its name, from the hub's cache."""

import http.client
import json
import signal
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from serving import Server, ask

from imc_lite import IMC

pytest.importorskip("torch", reason="Hugging Face models need torch")
pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")
sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny

NAME, QUESTION, CHAT = "tiny/llava", "What is this?", "/v1/chat/completions"
pytestmark = pytest.mark.slow

TOKENS = 400  # its context holds little more; no end token comes before


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """The hub's cache as transformers leaves it."""
    home = tmp_path_factory.mktemp("hub")
    revision = "0123456789abcdef0123456789abcdef01234567"
    model = home / "hub" / "models--tiny--llava"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(revision)
    for part in tiny("llava"):
        part.save_pretrained(model / "snapshots" / revision)
    return home


@pytest.fixture(scope="module")
def options():
    return ["--model", NAME, "--offline", "--device", "cpu", "--quant", "none", "--max-tokens", str(TOKENS)]


@pytest.fixture(scope="module")
def server(hub, options, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("serve"), *options, env={"HF_HOME": str(hub)})
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log and "unexpected" not in server.log


def chat(picture, tokens, **more):
    return {"messages": ask(picture, QUESTION), "max_tokens": tokens, "imc": {"sms": False}, **more}


def test_it_answers_as_the_python_api(server, hub, picture, chest):
    folder = next((hub / "hub" / "models--tiny--llava" / "snapshots").iterdir())
    expected = IMC.from_pretrained(folder, device="cpu").answer(chest, QUESTION, max_new_tokens=8)
    for model in (NAME, NAME.upper(), "default", "", None):
        status, _, reply = server.send(CHAT, chat(picture, 8, model=model))
        assert status == 200 and reply["model"] == NAME
        assert reply["choices"][0]["message"]["content"] == expected.answer
        assert reply["imc"]["image"]["noise"]["kind"] == expected.image.noise.kind == "clean"


def test_its_name_may_have_a_slash(server):
    assert [m["id"] for m in server.send("/v1/models")[2]["data"]] == [NAME]
    for path in (NAME, quote(NAME, safe=""), "default"):
        status, _, card = server.send(f"/v1/models/{path}")
        assert status == 200 and card["object"] == "model" and card["id"] in (NAME, "default")
    assert server.send("/v1/models/tiny/other")[0] == 404


def test_without_prototypes_noise_is_named_and_pixels_are_restored(server, picture):
    status, _, reply = server.send("/v1/inspect", {"image": picture})
    assert status == 200 and reply["noise"]["kind"] == "clean" and reply["gradable"]
    noisy = server.send("/v1/noise", {"image": picture, "kind": "gaussian", "severity": 4})[2]["image"]
    status, _, shown = server.send("/v1/restore", {"image": noisy})
    assert status == 200 and shown["image"]["noise"]["kind"] == "gaussian" and shown["image"]["restored"]
    assert shown["image"]["gradable"] is None and shown["before"] and shown["after"]


def opened(server, body) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream that has begun."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200 and reply.read(200).startswith(b'data: {"id": "chatcmpl-')
    return connection, reply


def test_a_client_that_leaves_a_stream_frees_the_worker(server, picture):
    connection, reply = opened(server, chat(picture, TOKENS, stream=True))
    assert "imc_running 1.0" in server.send("/metrics")[2]
    reply.close()
    connection.close()
    assert server.idle_after(10) < 1


def last(raw: bytes) -> dict:
    """What the last event of a stream says."""
    return json.loads(raw.decode().strip().rpartition("\n\n")[2].removeprefix("data: "))


def test_a_stream_that_takes_too_long_says_so(hub, options, tmp_path, picture):
    server = Server(tmp_path, *options, "--timeout", "1", env={"HF_HOME": str(hub)})
    try:
        _, reply = opened(server, chat(picture, TOKENS, stream=True))
        # However fast the machine is, the answer is not done by then.
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        server.process.send_signal(signal.SIGCONT)
        assert last(reply.read())["error"]["code"] == "timeout"
        assert server.idle_after(10) < 1
    finally:
        server.stop()


def test_a_stream_that_the_servers_end_cuts_says_so(hub, options, tmp_path, picture):
    server = Server(tmp_path, *options, "--grace", "0", env={"HF_HOME": str(hub)})
    _, reply = opened(server, chat(picture, TOKENS, stream=True))
    began = time.monotonic()
    server.process.terminate()
    assert last(reply.read())["error"]["code"] == "shutting_down" and time.monotonic() - began < 2
    assert server.process.wait(30) == 0
