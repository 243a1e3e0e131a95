"""`answer` and batches whose answers come from another server: what is sent, what comes back, what is refused."""

import base64
import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from serving import Server, data_uri
from upstreams import COMPLETION, Handler, StandIn, complete

from imc_lite import IMC, Deadline, DeadlineError, ImcError, Result, load_image
from imc_lite.cli.main import cli
from imc_lite.images.data_uri import picture_uri
from imc_lite.images.load import load_shown
from imc_lite.noise.image import apply_to_image
from imc_lite.pdc.full_size import restore_full_size
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.upstream.client import Upstream
from imc_lite.upstream.errors import UpstreamError, UpstreamUnavailable

CLEAN, DAMAGED = "What modality is this?", "What modlity is this?"
KEY = "battery-staple"


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
def prototypes(default_model):
    return load_prototypes(default_model.prototypes_file(), default_model.identity)


@pytest.fixture
def imc(default_model, prototypes, upstream):
    return IMC(default_model, prototypes, sms=False, upstream=Upstream(upstream.url, "gemma3:4b"))


@pytest.fixture(scope="module")
def noisy(chest):
    return apply_to_image(load_image(chest), "impulse", 3, 0)


def saying(status: int, body: object) -> object:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda handler: handler.whole(status, raw)


def said(content: object, **more: object) -> dict:
    """A completion with this text, and what else its only choice has."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, **more}]}


def shown(sent) -> str:
    return sent.json["messages"][0]["content"][1]["image_url"]["url"]


def test_a_clean_picture_and_question_are_passed_on_as_they_are(
    default_model, prototypes, upstream, chest, monkeypatch
):
    monkeypatch.setenv("IMC_LITE_UPSTREAM_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    imc = IMC(default_model, prototypes, upstream=Upstream(upstream.url, "gemma3:4b"))
    asked = "What modality  is this?\n(A) CT\n(B) x-ray\n"
    so_far = []
    result = imc.answer(chest, asked, id="7", max_new_tokens=9, on_text=so_far.append)
    (sent,) = upstream.sent
    assert (sent.method, sent.path, sent.headers["authorization"]) == ("POST", "/v1/chat/completions", f"Bearer {KEY}")
    parts = [
        {"type": "text", "text": asked},
        {"type": "image_url", "image_url": {"url": data_uri(chest.read_bytes(), "image/jpeg")}},
    ]
    assert sent.json == {
        "model": "gemma3:4b", "messages": [{"role": "user", "content": parts}],
        "temperature": 0, "seed": 0, "max_tokens": 9, "logprobs": True,
    }  # fmt: skip
    assert isinstance(result, Result) and so_far == [result.answer] == ["x-ray – ja"] and result.id == "7"
    assert result.confidence is None and "confidence=None" in repr(result)
    assert result.model == {"id": "medgemma:4b", "version": "unknown"} and result.versions["imc_lite"]
    assert result.image.path == str(chest) and result.image.noise.kind == "clean" and result.image.gradable
    assert result.question.edits == () and result.question.checked
    assert KEY not in repr(result) + json.dumps(result.to_dict(), default=float)


def test_noise_is_restored_and_damage_repaired_before_it_is_asked(default_model, prototypes, upstream, noisy):
    imc = IMC(default_model, prototypes, upstream=Upstream(upstream.url))
    first, second = (imc.answer(noisy, question) for question in (f"{DAMAGED}\n(A) CT", CLEAN))
    assert first.image.noise.kind == "impulse" and first.image.restored and not first.image.calibrated
    assert [(edit.source, edit.target) for edit in first.question.edits] == [("modlity", "modality")]
    one, two = upstream.sent
    assert "model" not in one.json and "authorization" not in one.headers
    assert one.json["messages"][0]["content"][0]["text"] == f"{CLEAN}\n(A) CT"
    pixels = load_image(base64.b64decode(shown(one).removeprefix("data:image/png;base64,")))
    assert np.array_equal(pixels, restore_full_size(noisy, "impulse", 3)) and shown(two) == shown(one)
    # The picture is looked at once.
    assert first.timings_ms["perceive"] > 0 == second.timings_ms["perceive"]
    assert second.image == first.image


def test_what_servers_would_read_otherwise_goes_as_the_pixels_that_were_judged(chest):
    picture = Image.open(chest).resize((90, 120))

    def saved(image: Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    clear = picture.convert("RGBA")
    clear.putalpha(128)
    deep = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    for data, kind in (
        (saved(picture, "JPEG"), "jpeg"),
        (saved(picture.convert("L"), "PNG"), "png"),
        (saved(picture.convert("P"), "PNG"), "png"),
        (saved(picture, "WEBP", quality=50), "webp"),
    ):
        assert picture_uri(load_shown(data)) == data_uri(data, f"image/{kind}")
    for data in (
        saved(picture, "JPEG", exif=turned), saved(clear, "PNG"), saved(deep, "PNG"), saved(picture, "TIFF"),
        saved(picture, "BMP"),
    ):  # fmt: skip
        loaded = load_shown(data)
        sent = base64.b64decode(picture_uri(loaded).removeprefix("data:image/png;base64,"))
        assert sent != data and np.array_equal(np.asarray(Image.open(io.BytesIO(sent)).convert("RGB")), loaded.pixels)


def tokens(*logprobs: object, near: int = 0) -> dict:
    """`logprobs` of a choice, each token with some that came near."""
    others = [{"token": f"o{n}", "logprob": -9.0 - n} for n in range(near)]
    each = [{"token": f"t{n}", "logprob": p} for n, p in enumerate(logprobs)]
    return {"content": [{**t, "bytes": None, "top_logprobs": [t, *others] if near else []} for t in each]}


def test_confidence_is_the_upstreams_where_it_says_so(imc, upstream, chest):
    for given, confidence in (
        (tokens(-0.1, -0.3), math.exp(-0.2)),
        (tokens(0.0001, 0), 1.0),  # rounded somewhere
        (tokens(), None),
        (tokens(-0.1, None), None),
        (tokens(-0.1, float("nan")), None),
        ({"content": 5}, None),
        ([], None),
    ):
        upstream.answer = saying(200, said("x", logprobs=given))
        result = imc.answer(chest, CLEAN)
        assert result.token_probability == pytest.approx(confidence) and result.model["id"] == "gemma3:4b"
    thought = said("x", logprobs=tokens(-0.1, -0.3))
    thought["choices"][0]["message"]["reasoning_content"] = "they are of these words too"
    upstream.answer = saying(200, thought)
    assert imc.answer(chest, CLEAN).token_probability is None


def test_an_upstream_that_refuses_logprobs_is_asked_without(imc, upstream, chest):
    def refuse(handler: Handler) -> None:
        if "logprobs" in upstream.sent[-1].json:
            saying(400, {"error": {"message": "logprobs are not supported"}})(handler)
        else:
            complete(handler)

    upstream.answer = refuse
    assert [imc.answer(chest, CLEAN).token_probability for _ in range(2)] == [None, None]
    assert ["logprobs" in sent.json for sent in upstream.sent] == [True, False, False], "it is remembered"
    with pytest.raises(UpstreamError, match="status 400: logprobs are not supported"):
        imc.answer(chest, CLEAN, top_logprobs=2)


def test_the_likeliest_tokens(imc, upstream, chest):
    upstream.answer = saying(200, said("x", logprobs=tokens(-0.1, -0.3, near=3)))
    top = imc.answer(chest, CLEAN, top_logprobs=2).top_logprobs
    assert upstream.sent[0].json["top_logprobs"] == 2
    assert [[(token.text, token.logprob) for token in each] for each in top] == [
        [("t0", -0.1), ("o0", -9.0)],
        [("t1", -0.3), ("o0", -9.0)],
    ]
    for given in (tokens(-0.1, -0.3), None):
        upstream.answer = saying(200, said("x", logprobs=given))
        with pytest.raises(ImcError, match="no probabilities of single tokens"):
            imc.answer(chest, CLEAN, top_logprobs=2)


LONG = "the model 'x' is not here, " * 9


@pytest.mark.parametrize(
    ("status", "body", "why", "again"),
    [
        (404, {"error": {"message": "model 'x' not found", "code": None}}, "404: model 'x' not found; check", True),
        (401, {"error": f"wrong key {KEY}."}, "401: wrong key …; check the key in IMC_LITE_UPSTREAM_KEY", True),
        (503, {"error": {"message": "Loading model", "code": 503}}, "503: Loading model; ask again later", True),
        (429, b"", "status 429; ask again later", True),
        (400, {"error": {"message": LONG}}, "status 400: the model 'x' is not", False),
        (422, {"detail": "no images\nhere"}, "422: no images\N{REPLACEMENT CHARACTER}here; mend that", False),
        (500, b"<html>\xff", "status 500; mend that", False),
        (200, b"<html>", "no chat completion; check its URL", True),
        (200, {"object": "list", "data": []}, "no chat completion; check its URL", True),
        (200, {"choices": [5]}, "no chat completion; check its URL", True),
        (200, {"error": "Unexpected endpoint or method."}, "200: Unexpected endpoint or method; ", False),
        (302, b"", "redirect; give the URL", True),
        (200, said(None, finish_reason="tool_calls"), "of at most 64 tokens has no text", False),
        (200, said(" \n", finish_reason="length"), "of at most 64 tokens has no text", False),
    ],
)
def test_its_errors_are_one_line(status, body, why, again, default_model, upstream, chest, monkeypatch):
    monkeypatch.setenv("IMC_LITE_UPSTREAM_KEY", KEY)
    imc = IMC(default_model, sms=False, upstream=Upstream(upstream.url, "x"))
    upstream.answer = saying(status, body)
    with pytest.raises(UpstreamError) as error:
        imc.answer(chest, CLEAN)
    line = str(error.value)
    assert why in line and "\n" not in line and len(line) < 200 and KEY not in line
    assert isinstance(error.value, UpstreamUnavailable) == again


def test_nobody_there_and_no_end(default_model, upstream, chest):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UpstreamUnavailable, match=r"cannot be reached \(Connection refused\)"):
        IMC(default_model, sms=False, upstream=Upstream(url)).answer(chest, CLEAN)
    slow = IMC(default_model, sms=False, upstream=Upstream(upstream.url, timeout=1))
    upstream.answer = lambda handler: time.sleep(3)
    with pytest.raises(UpstreamUnavailable, match="has not answered within 1 seconds; give it more time"):
        slow.answer(chest, CLEAN)
    with pytest.raises(DeadlineError):
        slow.answer(chest, CLEAN, deadline=Deadline(0.6))
    upstream.answer = lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
    with pytest.raises(UpstreamError, match="broke its reply off"):
        slow.answer(chest, CLEAN)


def test_what_cannot_work_is_refused(upstream):
    with pytest.raises(ImcError, match="go with an upstream; give its URL"):
        IMC.from_pretrained(upstream_model="x")
    with pytest.raises(ImcError, match="timeout is 0; give 1 to 3600 seconds"):
        IMC.from_pretrained(upstream=upstream.url, upstream_timeout=0)
    for url in ("http://192.0.2.1:11434/v1", "https://localhost.a.org"):
        with pytest.raises(ImcError, match="not this machine"):
            IMC.from_pretrained(upstream=url, offline=True)
    with pytest.raises(ImcError, match="a confidence is for models that answer here"):
        IMC.from_pretrained(upstream=upstream.url, confidence=Path("sure.safetensors"))
    assert not upstream.sent
    for args, why in (
        (["x.png", "Modality?", "--upstream-model", "m"], "--upstream-model and --timeout go with --upstream"),
        (["x.png", "Modality?", "--timeout", "9"], "--upstream-model and --timeout go with --upstream"),
        (["--batch", "x.jsonl", "--upstream", upstream.url, "--ray"], "--ray asks models of this package"),
    ):
        done = CliRunner().invoke(cli, ["answer", *args])
        assert done.exit_code == 2 and why in done.stderr
    for command in (["serve", "--offline", "--upstream", "http://192.0.2.1"], ["bench", "--upstream", upstream.url]):
        run = subprocess.run([sys.executable, "-m", "imc_lite", *command], capture_output=True, text=True, check=False)
        assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr


@pytest.mark.slow
def test_the_command(default_bundle, upstream, chest, tmp_path, documented_fields):
    """One process each: a key and a proxy in the environment, two questions, then an upstream that is gone."""
    upstream.answer = saying(200, COMPLETION | said("x-ray", logprobs=tokens(-0.5)))
    env = {**os.environ, "IMC_LITE_UPSTREAM_KEY": KEY, "HTTP_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "imc_lite", "answer", str(chest), DAMAGED, CLEAN, "--json", "--offline"]
    command += ["--upstream", upstream.url.removesuffix("/v1"), "--upstream-model", "m"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["answer"] for row in rows] == ["x-ray", "x-ray"] and rows[0]["question"]["repaired"] == CLEAN
    assert rows[0]["token_probability"] == pytest.approx(math.exp(-0.5)) and rows[0]["model"]["id"] == "medgemma:4b"
    flat = {f"{a}.{b}" for a, value in rows[0].items() if isinstance(value, dict) for b in value}
    documented = {name for name in documented_fields["answer"] if name.count(".") == 1}
    assert rows[0]["image_reliance"] is None and rows[0]["selective"] is None
    null = ("image_reliance.", "selective.", "rewording.")
    assert {n for n in documented if not n.startswith(null)} == flat - {"image.noise"}
    assert [sent.headers["authorization"] for sent in upstream.sent] == [f"Bearer {KEY}"] * 2
    assert shown(upstream.sent[0]) == shown(upstream.sent[1]) == data_uri(chest.read_bytes(), "image/jpeg")
    upstream.answer = saying(401, {"error": {"message": f"{KEY} is no key"}})
    done = subprocess.run([*command, "--no-pdc", "--no-sms"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2 and done.stdout == "" and KEY not in done.stderr
    line = "imc-lite: the upstream answers with status 401: … is no key; check the key in IMC_LITE_UPSTREAM_KEY\n"
    assert done.stderr == line


@pytest.mark.slow
def test_a_batch_stops_where_the_upstream_is_gone_and_goes_on(default_bundle, upstream, chest, tmp_path):
    shutil.copy(chest, tmp_path / "chest.jpg")
    cases = [{"id": "a", "image": "chest.jpg", "question": CLEAN}, {"id": "b", "image": "gone.jpg", "question": CLEAN}]
    cases += [{"id": "c", "image": "chest.jpg", "questions": [CLEAN, "Which plane?"]}]
    cases += [{"id": "d", "image": "chest.jpg", "question": CLEAN}]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))

    def run(out: str, *more: str):
        command = ["answer", "--batch", str(tmp_path / "cases.jsonl"), "-o", str(tmp_path / out), "--no-sms"]
        return CliRunner().invoke(cli, [*command, "--no-timings", "--upstream", upstream.url, *more])

    def by_question(handler: Handler, status: int) -> None:
        """Text and status of an answer depend on what is asked."""
        question = upstream.sent[-1].json["messages"][0]["content"][0]["text"]
        if question == "Which plane?" and status != 200:
            saying(status, {"error": "out of memory"})(handler)
        else:
            saying(200, said(question.upper(), logprobs=tokens(-0.5)))(handler)

    upstream.answer = lambda handler: by_question(handler, 503)
    done = run("out.jsonl")
    assert isinstance(done.exception, UpstreamUnavailable) and "out of memory" in str(done.exception)
    assert (tmp_path / "out.jsonl").read_text().count("\n") == 2, "neither lost nor written as an error"
    other = run("out.jsonl", "--upstream-model", "m")
    assert isinstance(other.exception, ImcError) and "was written with options" in str(other.exception)
    upstream.sent.clear()
    upstream.answer = lambda handler: by_question(handler, 200)
    assert run("out.jsonl").exit_code == 0 and len(upstream.sent) == 3
    assert run("whole.jsonl").exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"] and "does not exist" in rows[1]["error"]
    assert [entry["answer"] for entry in rows[2]["answers"]] == [CLEAN.upper(), "WHICH PLANE?"]
    assert rows[2]["answers"][1]["token_probability"] == pytest.approx(math.exp(-0.5))
    assert rows[0]["run"]["options"] == f"pdc upstream={upstream.url}"
    # What concerns one question alone is an error of that one.
    upstream.answer = lambda handler: by_question(handler, 400)
    assert run("third.jsonl").exit_code == 0
    third = [json.loads(line) for line in (tmp_path / "third.jsonl").read_text().splitlines()]
    assert "out of memory" in third[2]["answers"][1]["error"] and third[3] == rows[3]


@pytest.mark.slow
def test_before_our_own_server(default_bundle, default_model, prototypes, tmp_path, noisy):
    behind = Server(tmp_path)
    try:
        imc = IMC(default_model, prototypes, upstream=Upstream(behind.url, "default"))
        result = imc.answer(noisy, DAMAGED)
        expected = IMC(default_model, prototypes).answer(restore_full_size(noisy, "impulse", 3), CLEAN)
        assert result.answer == expected.answer == "x-ray" and result.model["id"] == "default"
        # It has the token that ends the answer too, which OpenAI's API leaves out.
        assert 0.9 * expected.token_probability < result.token_probability <= 1
        likeliest = imc.answer(noisy, CLEAN, top_logprobs=3).top_logprobs
        assert "".join(each[0].text for each in likeliest) == "x-ray" and {len(each) for each in likeliest} == {3}
        with pytest.raises(UpstreamUnavailable, match="status 404"):
            IMC(default_model, sms=False, upstream=Upstream(behind.url, "gemma")).answer(noisy, CLEAN)
    finally:
        assert behind.stop() == 0
    assert "Traceback" not in behind.log


def test_a_dicom_file_is_sent_as_it_is_shown(default_model, upstream):
    pydicom = pytest.importorskip("pydicom")
    file = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    imc = IMC(default_model, sms=False, upstream=Upstream(upstream.url))
    assert imc.answer(file, CLEAN, window="lung").image.noise is None
    sent = load_image(base64.b64decode(shown(upstream.sent[0]).removeprefix("data:image/png;base64,")))
    assert np.array_equal(sent, load_image(file, window="lung"))
