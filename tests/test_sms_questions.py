"""Lists of questions, clean ones and damaged ones, through the whole of a repair."""

from pathlib import Path

import pytest

from imc_lite.sms.abbreviations import READINGS
from imc_lite.sms.agents import repair
from imc_lite.sms.assessor import is_name, strange
from imc_lite.sms.lexicon import default_lexicon
from imc_lite.sms.question import is_english
from imc_lite.sms.text import split

FOLDER = Path(__file__).parent / "questions"
LEXICON = default_lexicon()


def listed(name):
    return [q for q in (FOLDER / name).read_text(encoding="utf-8").splitlines() if not q.startswith("#")]


CLEAN, DAMAGED = listed("clean.txt"), [line.split("\t") for line in listed("damaged.tsv")]
ABBREVIATED = listed("abbreviations.txt")
# What short forms become where they are written out; every other clean question stays as it is.
WRITTEN_OUT = {
    "L hip fx?": "L hip fracture?",
    "Hx of CA, mets?": "History of CA, metastases?",
    "Dx?": "Diagnosis?",
    "Any fx?": "Any fracture?",
    "Any mets to bone?": "Any metastases to bone?",
    "w/ or w/o contrast": "with or without contrast",
    "Nl heart size?": "Normal heart size?",
    "Abnl cardiac silhouette?": "Abnormal cardiac silhouette?",
}
# Damaged words that could be either of two opposites, or whose repair would change what is asked: left and named.
NAMED = {
    "hypxdense", "hyprtension", "hyptension", "hypthyroidism", "hypechoic", "hypintense", "aduction", "ilum", "illium",
    "ileam", "nilateral", "uilateral", "ight", "on", "nno", "uretr", "urethr", "peroeal", "medal", "prostrate",
    "humorous", "tibula", "prednislone", "diapysis", "iliary", "arotid", "fcal", "stome", "hypoxmia", "polp",
}  # fmt: skip


def test_no_word_of_a_clean_question_is_doubted():
    for question in CLEAN:
        words, starts = split(question)
        doubted = {words[i].core for i in strange(words, starts, LEXICON) if not is_name(words, i)}
        assert {w for w in doubted if w.lower() not in READINGS} <= {"en"}, question
        assert is_english(question, LEXICON), question


@pytest.mark.slow
def test_abbreviations_of_clinics_are_not_taken_for_damaged_words(default_model):
    assert {q: r.repaired for q in ABBREVIATED if (r := repair(default_model, q)).repaired != q} == {}


@pytest.mark.slow
def test_clean_questions_come_back_as_they_are(default_model):
    changed = {q: r.repaired for q in CLEAN if (r := repair(default_model, q)).repaired != q}
    assert changed == WRITTEN_OUT


@pytest.mark.slow
def test_most_damaged_questions_are_restored_and_none_is_changed_otherwise(default_model):
    restored = 0
    for damaged, clean in DAMAGED:
        report = repair(default_model, damaged)
        restored += report.repaired == clean
        # What is not restored still has its damaged word.
        assert report.repaired in (clean, damaged) or report.unsure, damaged
    assert restored >= 67


@pytest.mark.slow
def test_words_between_opposites_are_left_and_named(default_model):
    named = set()
    for question in listed("ambiguous.txt"):
        report = repair(default_model, question)
        words = {w.core for w in split(question)[0]} & NAMED
        words -= set() if "there on" in question else {"on"}  # right in its place elsewhere
        assert words <= set(report.unsure), question
        assert not words & {e.source for e in report.edits}
        named |= words
    assert named == NAMED
