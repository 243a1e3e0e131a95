"""Whether an answer is the expected one, and by what that is judged."""

from __future__ import annotations

import re

from imc_lite.models.base import MLLM, BaseMLLM, same_answer

# Right; right in a sentence that says more; wrong; not asked.
RIGHT, SAID, WRONG, UNASKED = "1s0-"
WRITTEN = 48  # tokens that a model has for its sentence
NEGATIONS = frozenset(["no", "not", "without", "never", "none", "neither", "nor", "negative", "absent", "cannot"])
NEAR = 5  # words before the expected ones in which a negation counts, as in NegEx (Chapman et al. 2001)
POLAR = {"yes": "yes", "positive": "yes", "correct": "yes", "no": "no", "incorrect": "no"}
_CLAUSE = re.compile(r"[.,;:!?()\n]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def writes(model: MLLM) -> bool:
    """Whether a model's answers are judged by what it writes, and not by its first choices."""
    return getattr(type(model), "agrees", None) is BaseMLLM.agrees


def mark(said: str, expected: str) -> str:
    """The mark of a written answer."""
    return RIGHT if same_answer(said, expected) else SAID if says(said, expected) else WRONG


def says(said: str, expected: str) -> bool:
    """Whether a sentence gives the expected answer.

    Of "yes" and "no", the first word that affirms or denies decides; a sentence without one gives neither. Any other
    answer is given where its words stand in the sentence one after another, but for case, hyphens and punctuation, and
    none of the five words before them in that clause negates them.

    Args:
        said: what the model wrote.
        expected: the right answer.
    """
    wanted = _words(expected)
    if wanted in (["yes"], ["no"]):
        # "There is no fracture" denies, "not enlarged" as well.
        first = (_pole(word) for word in _words(said))
        return next((pole for pole in first if pole), None) == wanted[0]
    return any(_stands(wanted, _words(clause)) for clause in _CLAUSE.split(said))


def _stands(wanted: list[str], words: list[str]) -> bool:
    for at in range(len(words) - len(wanted) + 1):
        if words[at : at + len(wanted)] == wanted and not any(map(_negates, words[max(0, at - NEAR) : at])):
            return bool(wanted)
    return False


def _pole(word: str) -> str | None:
    return POLAR.get(word) or ("no" if _negates(word) else None)


def _negates(word: str) -> bool:
    return word in NEGATIONS or word.endswith(("n't", "n’t"))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
