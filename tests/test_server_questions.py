"""Several questions about one picture in one request: each has the answer that it gets alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from serving import Server, ask

openai = pytest.importorskip("openai", reason="the server is tested with OpenAI's client")
pytest.importorskip("uvicorn", reason="the server needs imc-lite[serve]")

from imc_lite.server.asked import Asked  # noqa: E402
from imc_lite.server.errors import ApiError  # noqa: E402

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
QUESTIONS = ["What modlity is this?", "What body part is shown?"]
ENDLESS = "\u2603" * 2000  # more tokens than the model holds
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(default_bundle, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("serve"))
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log and "unexpected" not in server.log


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def several(picture: str, *questions: object, **more) -> dict:
    """The arguments of OpenAI's client."""
    messages = [{"role": "user", "content": ask(picture, "")[0]["content"][1:]}]
    return {"model": "default", "messages": messages, "extra_body": {"imc": {"questions": [*questions]}}, **more}


@pytest.fixture(scope="module")
def whole(client, picture):
    return client.chat.completions.create(**several(picture, *QUESTIONS, logprobs=True))


def test_each_question_has_its_choice_and_its_answer(client, picture, whole, documented_fields):
    answers = whole.imc["answers"]
    assert [choice.index for choice in whole.choices] == [0, 1] and len(answers) == 2
    used = 0
    for question, choice, entry in zip(QUESTIONS, whole.choices, answers, strict=True):
        alone = client.chat.completions.create(model="default", messages=ask(picture, question), logprobs=True)
        assert choice.message == alone.choices[0].message and choice.finish_reason == "stop"
        assert [t.token for t in choice.logprobs.content] == [t.token for t in alone.choices[0].logprobs.content]
        assert entry["answer"] == choice.message.content and entry["question"] == alone.imc["question"]
        # Read apart from the question, the picture's numbers are rounded otherwise.
        assert np.isclose(entry["confidence"], alone.imc["confidence"], atol=0.02)
        assert all(whole.imc[name] == alone.imc[name] for name in ("image", "model", "versions"))
        used += alone.usage.total_tokens
    assert whole.usage.total_tokens == used and whole.imc["id"] == whole.id
    assert set(whole.imc) == {"id", "image", "answers", "timings_ms", "model", "versions"}
    fields = {f"answers[].{name}" for name in answers[0]} | {f"timings_ms.{name}" for name in whole.imc["timings_ms"]}
    fields |= {f"answers[].timings_ms.{name}" for name in answers[0]["timings_ms"]} | {"answers", "answers[].error"}
    assert fields - {"answers[].timings_ms"} == documented_fields["Rows of several questions"]


def test_the_picture_is_encoded_once(whole):
    first, second = (entry["timings_ms"] for entry in whole.imc["answers"])
    assert first["perceive"] > 0 and first["calibrate"] > 0
    assert second["perceive"] == 0 and second["calibrate"] == 0


def test_a_stream_says_the_same(client, picture, whole):
    options = several(picture, *QUESTIONS, stream=True, logprobs=True, stream_options={"include_usage": True})
    *chunks, usage = client.chat.completions.create(**options)
    choices = [chunk.choices[0] for chunk in chunks]
    indices = [choice.index for choice in choices]
    assert indices == sorted(indices) and set(indices) == {0, 1}
    for wanted in whole.choices:
        own = [choice for choice in choices if choice.index == wanted.index]
        assert "".join(choice.delta.content or "" for choice in own) == wanted.message.content
        assert own[0].delta.role == "assistant"
        assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["stop"]
        assert own[-1].logprobs.model_dump() == wanted.logprobs.model_dump()
    assert usage.usage == whole.usage and usage.choices == []
    assert [chunk for chunk in chunks if hasattr(chunk, "imc")] == chunks[-1:]
    assert [entry["answer"] for entry in chunks[-1].imc["answers"]] == [c.message.content for c in whole.choices]


def test_a_list_of_one_has_one_choice(client, picture):
    got = client.chat.completions.create(**several(picture, QUESTIONS[1], max_tokens=1))
    assert len(got.choices) == len(got.imc["answers"]) == 1 and got.choices[0].finish_reason == "length"


def test_one_that_cannot_be_answered_ends_the_request(client, picture):
    with pytest.raises(openai.BadRequestError, match=r"question 2: .*shorten the question"):
        client.chat.completions.create(**several(picture, "Is it?", ENDLESS, max_tokens=1))
    stream = client.chat.completions.create(**several(picture, "Is it?", ENDLESS, max_tokens=1, stream=True))
    found = []
    with pytest.raises(openai.APIError, match=r"question 2: .*shorten the question"):
        found.extend(chunk.choices[0].finish_reason for chunk in stream)
    assert found[-1] == "length"


BAD = {
    "none": ([], "imc.questions: "),
    "too many": (["Is it?"] * 101, "imc.questions: .*100"),
    "no list": ("Is it?", "imc.questions: "),
    "no text": (["Is it?", 7], r"imc\.questions\.1: "),
    "an empty one": (["Is it?", " \n"], "question 2: the question is empty"),
    "a long one": (["Is it?", "x" * 2001], "question 2: .*2,001 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_questions_are_refused_before_anything_is_answered(name, server, picture):
    asked, why = BAD[name]
    body = {"messages": several(picture)["messages"], "imc": {"questions": asked}}
    status, _, reply = server.send(CHAT, body)
    assert status == 400 and re.match(why, reply["error"]["message"]) and "\n" not in reply["error"]["message"]


def test_text_besides_them_is_refused(server, picture):
    body = {"messages": ask(picture, "Is it?"), "imc": {"questions": QUESTIONS}}
    status, _, reply = server.send(CHAT, body)
    assert status == 400 and "leave one of the two out" in reply["error"]["message"]
    assert reply["error"]["param"] == "imc.questions"
    assert server.send(CHAT, {**body, "messages": several(picture)["messages"], "n": 2})[0] == 400


def test_in_front_of_another_server_they_are_refused():
    with pytest.raises(ApiError, match="a request for each question") as refused:
        Asked(json.dumps({"messages": [], "imc": {"questions": QUESTIONS}}).encode(), None)
    assert refused.value.status == 400 and refused.value.param == "imc.questions"


@pytest.mark.parametrize(("name", "value"), [("max_risk", 0.2), ("check_wording", True)])
def test_in_front_of_another_server_a_limit_is_refused(name, value):
    """Passed over, it would look like a promise."""
    with pytest.raises(ApiError, match="nobody has calibrated") as refused:
        Asked(json.dumps({"messages": [], "imc": {name: value}}).encode(), None)
    assert refused.value.status == 400 and refused.value.param == f"imc.{name}"


def test_the_example_of_the_page(server, monkeypatch, capsys):
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.url)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    first, second = (block for block in blocks if "client.chat" in block)
    monkeypatch.chdir(ROOT)
    exec(first + second, {})
    printed = re.search(r"prints\n\n```text\n(.*?)```", text, flags=re.S).group(1)
    assert capsys.readouterr().out == f"x-ray modality\n{printed}"


def test_an_answer_that_is_too_risky_is_refused(client, picture):
    """OpenAI's own field for it; in a stream as well, where nothing of the answer has been told by then."""
    request = {"model": "default", "messages": ask(picture, QUESTIONS[1])}
    given = client.chat.completions.create(**request, extra_body={"imc": {"max_risk": 0.9}})
    free = client.chat.completions.create(**request)
    assert given.choices[0].message == free.choices[0].message and given.usage == free.usage
    assert given.imc["selective"] == {**free.imc["selective"], "answered": True}
    held = client.chat.completions.create(**request, extra_body={"imc": {"max_risk": 0.0}})
    message = held.choices[0].message
    assert message.content is None and message.refusal.startswith("the answer would be wrong with a probability of ")
    assert held.imc["answer"] is None and held.imc["confidence"] == free.imc["confidence"]
    chunks = [*client.chat.completions.create(**request, stream=True, extra_body={"imc": {"max_risk": 0.0}})]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert not "".join(delta.content or "" for delta in deltas)
    assert [delta.refusal for delta in deltas if delta.refusal] == [message.refusal]
    told = [*client.chat.completions.create(**request, stream=True, extra_body={"imc": {"max_risk": 0.9}})]
    assert "".join(c.delta.content or "" for chunk in told for c in chunk.choices) == free.choices[0].message.content
    for risk in (-0.1, 1.5, "0.2"):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**request, extra_body={"imc": {"max_risk": risk}})


def test_other_wordings_are_asked_where_they_are_wanted(client, picture, documented_fields):
    request = {"model": "default", "messages": ask(picture, QUESTIONS[1])}
    plain = client.chat.completions.create(**request)
    told = client.chat.completions.create(**request, extra_body={"imc": {"check_wording": True}})
    assert told.choices[0].message == plain.choices[0].message and plain.imc["rewording"] is None
    found = told.imc["rewording"]
    assert found["asked"][0] == "Looking at this picture, what body part is shown?" and len(found["same"]) == 2
    assert {"rewording.asked", "rewording.same"} <= documented_fields["answer"]


def test_no_request_is_allowed_more_than_the_server(default_bundle, picture, tmp_path):
    strict = Server(tmp_path, "--max-risk", "0.0001")
    body = {"model": "default", "messages": ask(picture, QUESTIONS[1])}
    for options in ({}, {"imc": {"max_risk": 0.9}}):
        status, _, reply = strict.send(CHAT, {**body, **options})
        assert status == 200 and reply["choices"][0]["message"]["content"] is None
        assert reply["imc"]["selective"]["answered"] is False
    assert strict.stop() == 0
