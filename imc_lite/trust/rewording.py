"""A question in other words that ask the same: an answer that hangs on the wording is not to be relied on."""

from __future__ import annotations

import re

import numpy as np

from imc_lite.models.base import MLLM, Generation
from imc_lite.results import Rewording
from imc_lite.sms import guard
from imc_lite.sms.lexicon import default_lexicon
from imc_lite.sms.question import ENGLISH, is_english
from imc_lite.sms.text import split

WORDINGS = 2
SYNONYMS = {"image": "picture", "images": "pictures", "picture": "image", "pictures": "images"}
_THERE = re.compile(r"(?i)^(?:is|are) there (?!no\b|not\b)")
_PICTURE = re.compile(r"(?i)\b(?:" + "|".join(SYNONYMS) + r")\b")


def reword(question: str) -> tuple[str, ...]:
    """A question, as from `imc_lite.sms.question.check_question`, in up to two further wordings.

    By rules alone: "is there" as "can you see", a picture as an image, and two openings. Only what the meaning guard
    lets pass is given; a question that is not English has none.
    """
    if not is_english(question, default_lexicon()):
        return ()
    asked = _lowered(question)
    ways = (
        _THERE.sub("Can you see ", question),
        _PICTURE.sub(_synonym, question),
        f"Looking at this picture, {asked}",
        f"Please tell me: {asked}",
    )
    found = [way for way in dict.fromkeys(ways) if way != question and guard.same_words(question, way)]
    return tuple(found[:WORDINGS])


def check_wording(model: MLLM, question: str, said: Generation, tokens: np.ndarray) -> Rewording | None:
    """Whether a model gives the same answer to other wordings; None where a question has none or the answer was cut
    off.

    Args:
        model: that answered.
        question: as it was given it.
        said: its answer.
        tokens: float32 [N, D], of the picture as it was shown it.
    """
    asked = reword(question)
    cut = said.cut or len(model.encode(said.text)) >= len(said.logprobs)  # there is no end among them
    if cut or not asked:
        return None
    return Rewording(asked, tuple(model.agrees([(way, said.text) for way in asked], tokens)))


def _lowered(question: str) -> str:
    """With a small letter at the beginning, but for abbreviations and names."""
    first = split(question)[0][0].core
    return question[:1].lower() + question[1:] if first.lower() in ENGLISH and first.istitle() else question


def _synonym(match: re.Match[str]) -> str:
    word = match[0]
    other = SYNONYMS[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
