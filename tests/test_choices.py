"""Prompts that list their possible answers."""

import numpy as np
import pytest

from imc_lite import IMC, ImcError, load_image
from imc_lite.integrations.choices import answer_prompt

CHEST = "What modality is this?\n\nA. ct\nB. x-ray\nC. mri\nD. photograph\n\nAnswer with the option letter directly."


@pytest.fixture(scope="module")
def imc(default_model) -> IMC:
    return IMC(default_model, sms=True)


@pytest.fixture(scope="module")
def tokens(imc, chest) -> np.ndarray:
    return imc.see(load_image(chest)).tokens


def test_the_likeliest_option_is_chosen_whatever_its_letter(imc, tokens):
    assert answer_prompt(imc, CHEST, tokens) == "B"
    assert answer_prompt(imc, "What modality is this?\n(A) mri\n(B) photograph\n(C) x-ray", tokens) == "C"
    assert answer_prompt(imc, "Which body part is shown?\nA: chest\nB: foot", tokens) == "A"
    assert answer_prompt(imc, "Which body part is shown?\nA: foot\nB: chest", tokens) == "B"


def test_a_damaged_question_is_repaired_and_its_options_are_not(imc, tokens, monkeypatch):
    asked = []
    score = imc.model.score
    monkeypatch.setattr(imc.model, "score", lambda *a, **k: asked.append(a[:2]) or score(*a, **k))
    found = answer_prompt(imc, "What modlity is this?\nA. x-rya\nB. mri", tokens)
    assert asked[-1] == ("What modality is this?", ["x-rya", "mri"]) and found in "AB"
    assert answer_prompt(IMC(imc.model, sms=False), CHEST, tokens) == "B"


def test_without_options_the_answer_is_written(imc, tokens):
    assert answer_prompt(imc, "What modality is this?", tokens) == "x-ray"
    assert answer_prompt(imc, "Is there a mass?\nA. yes", tokens) not in "AB", "one option is no choice"
    with pytest.raises(ImcError, match="empty"):
        answer_prompt(imc, "A. yes\nB. no", tokens)
