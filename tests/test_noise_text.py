"""The text noise bank."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imc_lite import ImcError
from imc_lite.noise.shorthand import SHORTHAND
from imc_lite.noise.text import TEXT_KINDS, TEXT_NOISE, apply_to_text, damage_text
from imc_lite.noise.text_bank import PROTECTED

QUESTION = "Is there evidence of a right pneumothorax with 2 fractures in this chest x-ray of the patient?"
WORDS = [*QUESTION.split(), "not", "left", "without", "3.5", "mm", "what", "enlarged", "no", "lobe,", "T2-weighted"]
questions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
seeds = st.integers(0, 2**31 - 1)


@pytest.mark.slow
@given(questions, st.sampled_from(TEXT_NOISE.names()), st.integers(1, 5), seeds)
@settings(max_examples=1500, deadline=None)
def test_the_record_of_edits_is_the_damage(text, kind, severity, seed):
    done = damage_text(text, kind, severity, seed)
    assert done == damage_text(text, kind, severity, seed) and done.text == apply_to_text(text, kind, severity, seed)
    words, out, at = text.split(), [], 0
    for edit in done.edits:
        assert " ".join(words[edit.start : edit.stop]) == edit.clean != edit.damaged
        out += [*words[at : edit.start], *([edit.damaged] if edit.damaged else [])]
        at = edit.stop
    assert " ".join(out + words[at:]) == done.text


@pytest.mark.slow
@given(questions, st.integers(1, 5), seeds)
@settings(max_examples=1000, deadline=None)
def test_dropping_never_turns_a_question_round(text, severity, seed):
    done = damage_text(text, "drop", severity, seed)
    assert done.text.split(), "something is left"
    assert not [e for e in done.edits if PROTECTED.match(e.clean)]


@pytest.mark.slow
@given(st.text(max_size=60), st.sampled_from(TEXT_NOISE.names()), st.integers(1, 5), seeds)
@settings(max_examples=800, deadline=None)
def test_any_text_is_survived(text, kind, severity, seed):
    assert isinstance(apply_to_text(text, kind, severity, seed), str)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_severity_grows(kind):
    counts = [sum(len(damage_text(QUESTION, kind, s, seed).edits) for seed in range(20)) for s in range(1, 6)]
    assert counts == sorted(counts) and counts[0] >= 15 and counts[4] > counts[0]


@pytest.mark.parametrize("kind", TEXT_NOISE.names())
def test_something_happens_and_the_seed_matters(kind):
    text = "Are the nodes to the right of the heart here?"
    texts = {apply_to_text(text, kind, 3, seed) for seed in range(30)}
    assert len(texts) > 1 and len(texts - {text}) >= len(texts) - 1


def test_shorthand_reads_backwards():
    forms = [f for short in SHORTHAND.values() for f in short]
    assert len(forms) == len(set(forms)), "a short form stands for one long form"
    assert not set(forms) & set(SHORTHAND), "a short form is no long form"
    assert all(re.fullmatch(r"\S+", f) for f in forms) and len(SHORTHAND) >= 80


def test_bad_arguments_are_named():
    with pytest.raises(ImcError, match="unknown text noise"):
        apply_to_text("x", "mumble", 1, 0)
    with pytest.raises(ImcError, match="severity 0"):
        apply_to_text("x", "typo", 0, 0)
    for text, severity, seed, why in (
        ("x", 2.0, 0, "severity 2.0"),
        ("x", 1, -1, "seed -1"),
        (None, 1, 0, "must be text"),
    ):
        with pytest.raises(ImcError, match=why):
            apply_to_text(text, "typo", severity, seed)
    assert apply_to_text("\udc80", "typo", 1, 0) == "\udc80"
