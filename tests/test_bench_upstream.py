"""A benchmark whose answers another server gives."""

import json

import pytest
from serving import Server
from upstreams import COMPLETION, Handler, StandIn

from imc_lite import IMC
from imc_lite.bench.benchmark import quick_cases, run_benchmark
from imc_lite.bench.plan import Options
from imc_lite.bench.tables import load_results
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.upstream.client import Upstream
from imc_lite.upstream.errors import UpstreamError

OPTIONS = Options(noises=("impulse", "typo"), severities=(4,), questions=2)


@pytest.fixture(scope="module")
def prototypes(default_model):
    return load_prototypes(default_model.prototypes_file(), default_model.identity)


@pytest.fixture
def standin():
    server = StandIn()
    yield server
    server.stop()


def saying(text: str):
    """An upstream that always says so."""
    body = json.loads(json.dumps(COMPLETION))
    body["choices"][0]["message"]["content"] = text

    def answer(handler: Handler) -> None:
        handler.whole(200, json.dumps(body).encode())

    return answer


def test_every_arm_is_what_was_sent(default_model, prototypes, standin, tmp_path):
    """Always the same sentence: right where it holds the answer, and nothing is gained; restored pictures are sent."""
    standin.answer = saying("The picture is an x-ray, yes.")
    imc = IMC(default_model, prototypes, upstream=Upstream(standin.url, "medgemma"))
    results = run_benchmark(imc, quick_cases()[::11], OPTIONS, tmp_path)
    assert results["model"] == {"id": "medgemma:4b", "version": "unknown"}
    rows = {c["noise"]: c["arms"] for c in results["conditions"]}
    assert set(rows["impulse"]) == {"plain", "pdc", "sms", "imc"}
    for arms in rows.values():
        for arm in ("pdc", "sms", "imc"):
            for scope, cell in arms[arm].items():
                assert cell["gain"] == 0 and cell["accuracy"] == arms["plain"][scope]["accuracy"] and not cell["exact"]
    assert any(cell["accuracy"] > 0 for cell in rows["clean"]["plain"].values())
    assert "text_only" not in next(iter(results["groups"].values()))
    assert results["confusion"]["impulse"] == {"impulse": 3}
    assert "estimates" in results["sureness"]["groups"]["clean"]["arms"]["imc"]
    sent = [(json.loads(s.body)["messages"][0]["content"]) for s in standin.sent]
    asked = {(text["text"], picture["image_url"]["url"]) for text, picture in sent}
    assert any(url.startswith("data:image/jpeg") for _, url in asked), "a clean picture is its own file"
    again = run_benchmark(imc, quick_cases()[::11], OPTIONS, tmp_path)
    assert again == results and len(standin.sent) == len(sent), "a finished run asks nothing"


def test_the_plain_upstream_is_shown_pictures_and_questions_as_they_are(default_model, standin, tmp_path):
    standin.answer = saying("no")
    imc = IMC(default_model, None, sms=False, upstream=Upstream(standin.url))
    plain = Options(noises=("typo",), severities=(4,), questions=2, plain=True)
    results = run_benchmark(imc, quick_cases()[::11], plain, tmp_path)
    assert [set(c["arms"]) for c in results["conditions"]] == [{"plain"}] * 2
    assert load_results(tmp_path)["options"]["arms"] == "plain"


def test_an_upstream_that_fails_ends_the_run_and_the_same_command_goes_on(default_model, prototypes, standin, tmp_path):
    imc = IMC(default_model, prototypes, upstream=Upstream(standin.url))
    calls = []

    def twenty(handler: Handler) -> None:
        calls.append(1)
        if len(calls) > 20:
            handler.whole(503, b'{"error": {"message": "busy"}}')
        else:
            saying("yes")(handler)

    standin.answer = twenty
    with pytest.raises(UpstreamError, match="busy"):
        run_benchmark(imc, quick_cases()[::11], OPTIONS, tmp_path)
    assert not (tmp_path / "results.json").exists()
    standin.answer = saying("yes")
    assert run_benchmark(imc, quick_cases()[::11], OPTIONS, tmp_path)["model"]["id"] == "medgemma:4b"


def test_what_an_upstream_does_not_answer_is_wrong_and_counted(default_model, prototypes, standin, tmp_path):
    """One that cannot answer a question can answer the next; one that answers none is no model to measure."""
    imc = IMC(default_model, prototypes, upstream=Upstream(standin.url))
    options, refused = Options(noises=("typo",), severities=(4,), questions=2), []

    def third(handler: Handler) -> None:
        refused.append(len(refused) % 3 == 2)
        if refused[-1]:
            handler.whole(500, b'{"error": {"message": "out of memory"}}')
        else:
            saying("The picture is an x-ray, yes.")(handler)

    standin.answer = third
    results = run_benchmark(imc, quick_cases()[::11], options, tmp_path / "some")
    counted = {c["noise"]: c["unanswered"] for c in results["conditions"]}
    assert set(counted) == {"clean", "typo"} and 0 < sum(counted.values()) <= sum(refused)
    standin.answer = saying("The picture is an x-ray, yes.")
    whole = run_benchmark(imc, quick_cases()[::11], options, tmp_path / "all")
    assert all("unanswered" not in c for c in whole["conditions"])
    cells = [r["conditions"][0]["arms"]["plain"].values() for r in (results, whole)]
    right = [sum(cell["accuracy"] for cell in some) for some in cells]
    assert 0 < right[0] < right[1]
    standin.answer = lambda handler: handler.whole(500, b'{"error": {"message": "no pictures"}}')
    with pytest.raises(UpstreamError, match="no pictures"):
        run_benchmark(imc, quick_cases()[::11], options, tmp_path / "none")


@pytest.mark.slow
def test_our_own_server_without_imc_answers_as_the_plain_model_does(default_bundle, tmp_path):
    imc = IMC.from_pretrained(default_bundle)
    server = Server(tmp_path, "--no-pdc", "--no-sms")
    cases = quick_cases()[::11]
    try:
        outside = IMC(imc.model, imc.prototypes, upstream=Upstream(f"{server.url}/v1"))
        through = run_benchmark(outside, cases, OPTIONS, tmp_path / "through")
    finally:
        assert server.stop() == 0
    here = run_benchmark(imc, cases, OPTIONS, tmp_path / "here")
    for one, other in zip(here["conditions"], through["conditions"], strict=True):
        for scope, cell in one["arms"]["plain"].items():
            found = other["arms"]["plain"][scope]
            # Near ties are judged otherwise beside other questions, and a sentence may hold the answer.
            assert abs(found["accuracy"] - cell["accuracy"]) * cell["n"] <= 1.5, (one["noise"], scope)
