"""One model, several threads: every call gets what it would have got alone."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from imc_lite import IMC, Deadline, DeadlineError, load_image
from imc_lite.models.deadline import NEVER
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.noise.image import apply_to_image
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.server.budget import Budget
from imc_lite.server.pool import Pool, beside

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
QUESTIONS = ("What modality is this?", "Is teh heart enlargd?", "What body prat is shown?", "In what plane is it?")


@pytest.mark.slow
def test_the_same_imc_from_three_threads(default_bundle):
    model = OrtMLLM(default_bundle)  # of its own: sessions too are made by whichever thread comes first
    prototypes = load_prototypes(model.prototypes_file(), model.identity)
    shared = IMC(model, prototypes)
    jobs = [(path, question) for path in IMAGES[:3] for question in QUESTIONS]

    def ask(job, imc=shared):
        image = load_image(job[0])
        noisy = imc.answer(apply_to_image(image, "impulse", 4, 0), job[1], max_new_tokens=8)
        return noisy.answer, noisy.confidence, noisy.question.repaired, imc.inspect(image).noise

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(ask, jobs))
    assert together == [ask(job, IMC(model, prototypes)) for job in jobs], "one that has encoded no picture yet"


def test_workers_share_the_weights_and_answer_as_one_alone(default_bundle):
    """A server's second worker holds a cache of its own, and nothing else twice."""
    model = OrtMLLM(default_bundle)
    prototypes = load_prototypes(model.prototypes_file(), model.identity)
    opened = []
    pool = Pool(lambda: opened.append(1) or IMC(model, prototypes), workers=3, queue=0)
    pool.start()
    try:
        assert opened == [1] and pool.ready
        together = asyncio.run(at_once(pool, [partial(told, path=path) for path in IMAGES[:3] for _ in range(2)]))
    finally:
        assert pool.close(10)
    assert len({worker for worker, _ in together}) > 1, "they worked side by side"
    alone = [told(IMC(OrtMLLM(default_bundle), prototypes), NEVER, path)[1] for path in IMAGES[:3] for _ in range(2)]
    assert [found for _, found in together] == alone
    other = beside(IMC(model, prototypes))
    assert other.model.sessions is model.sessions and other.model.decoder is not model.decoder
    assert beside(IMC(Alone())) is None, "another kind of model is opened once for each worker"


async def at_once(pool: Pool, jobs: list) -> list:
    """What each job gives."""
    return await asyncio.gather(*(pool.run(job, Budget(60)) for job in jobs))


class Alone:
    """A model that says nothing of other threads."""


def told(imc: IMC, deadline: Deadline, path: Path) -> tuple[int, list]:
    """Which thread answers, and what."""
    found = [imc.answer(path, question, max_new_tokens=4, deadline=deadline) for question in QUESTIONS[:2]]
    return threading.get_ident(), [replace(result, timings_ms={}) for result in found]


@pytest.mark.slow
def test_scores_and_answers_do_not_mix(default_model):
    pairs = [(f"Is this number {i}?", "yes") for i in range(6)]
    alone = [default_model.score(q, ["yes", "no"]) for q, _ in pairs]
    text = default_model.generate("What is shown?", None, 12)
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(default_model.generate, "What is shown?", None, 12) for _ in range(4)]
        judging = [pool.submit(default_model.agrees, pairs, None) for _ in range(2)]
        scores = list(pool.map(lambda p: default_model.score(p[0], ["yes", "no"]), pairs))
    assert all(job.result() == text for job in writing)
    assert judging[0].result() == judging[1].result() == default_model.agrees(pairs, None)
    for mine, theirs in zip(scores, alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_an_answer_that_is_no_longer_wanted_is_given_up(default_model, chest):
    imc = IMC(default_model)
    late = Deadline(seconds=-1)
    for call in (
        lambda: imc.answer(chest, "What modality is this?", deadline=late),
        lambda: default_model.generate("What is this?", None, deadline=late),
        lambda: default_model.score("What is this?", ["yes"], deadline=late),
    ):
        try:
            call()
        except DeadlineError as error:
            assert "over" in str(error)
        else:
            raise AssertionError("it answered all the same")
    assert imc.answer(chest, "What modality is this?").answer
