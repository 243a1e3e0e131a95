"""Whether a sentence gives the expected answer, and a run of a model that writes sentences."""

import pytest

from imc_lite import IMC
from imc_lite.bench.benchmark import quick_cases, run_benchmark
from imc_lite.bench.judging import RIGHT, SAID, WRONG, mark, says, writes
from imc_lite.bench.plan import Options
from imc_lite.models.base import BaseMLLM, Generation

GIVES = [
    ("The image is a chest X-ray.", "x-ray"),
    ("This is an x ray of the chest", "X-Ray"),
    ("bacterial pneumonia", "pneumonia"),
    ("There is no pneumonia; the film is normal.", "normal"),
    ("No pneumonia can be seen.", "no pneumonia"),
    ("That is not shown in this image.", "not shown in this image"),
    ("Yes.", "yes"),
    ("Yes, there is no doubt about it.", "yes"),
    ("There is no fracture.", "no"),
    ("The heart isn't enlarged.", "no"),
    ("The heart is not enlarged.", "no"),
    ("Positive for pneumonia", "yes"),
    ("About 16 to 25 nuclei.", "16 to 25"),
    ("No, the mass is in the lung. It is a glioma", "glioma"),
]
DOES_NOT = [
    ("There is no pneumonia.", "pneumonia"),
    ("This does not look like a glioma.", "glioma"),
    ("The film is abnormal.", "normal"),
    ("The heart is enlarged.", "yes"),
    ("The heart is enlarged.", "no"),
    ("No, it is.", "yes"),
    ("lungs", "lung"),
    ("16 to 250", "16 to 25"),
    ("", "x-ray"),
    ("x-ray", ""),
    ("...", "no"),
]


@pytest.mark.parametrize(("said", "expected"), GIVES)
def test_sentences_that_give_the_answer(said, expected):
    assert says(said, expected)


@pytest.mark.parametrize(("said", "expected"), DOES_NOT)
def test_sentences_that_do_not(said, expected):
    assert not says(said, expected)


def test_what_says_nothing_else_is_marked_apart():
    found = [mark(said, "x-ray") for said in ("X-ray.", "It is an x-ray.", "It is a CT.")]
    assert found == [RIGHT, SAID, WRONG]


class Talker(BaseMLLM):
    """The default model, which packs every answer into a sentence."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    @property
    def identity(self):
        return self.model.identity

    def generate(self, prompt, tokens, max_new_tokens=32, on_text=None, deadline=None, top_logprobs=0):
        said = self.model.generate(prompt, tokens, max_new_tokens)
        return Generation(f"The answer is: {said.text}.", said.logprobs)


@pytest.mark.slow
def test_a_model_that_writes_sentences_is_judged_by_the_rule(default_bundle, tmp_path):
    imc = IMC.from_pretrained(default_bundle)
    options = Options(noises=("impulse",), severities=(4,), questions=2)
    cases = quick_cases()[::11]
    plain = run_benchmark(imc, cases, options, tmp_path / "plain")
    talker = Talker(imc.model)
    assert writes(talker) and not writes(imc.model)
    said = run_benchmark(IMC(talker, imc.prototypes), cases, options, tmp_path / "said")
    for one, other in zip(plain["conditions"], said["conditions"], strict=True):
        for arm in ("plain", "imc"):
            for scope, cell in one["arms"][arm].items():
                found = other["arms"][arm][scope]
                # A near tie may be judged otherwise in one pass over all questions.
                assert abs(found["accuracy"] - cell["accuracy"]) * cell["n"] <= 1.5 and found["exact"] == 0
                assert cell["exact"] == cell["accuracy"]
