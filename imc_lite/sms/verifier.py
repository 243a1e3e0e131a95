"""How likely the model finds each reading of a question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imc_lite.sms.metered import Metered
from imc_lite.sms.text import Word, join

REPAIR = "Repair this question: {}"
PLAIN = "Ask a question about a medical image."


LEFT, RIGHT = 16, 16  # words on either side of a doubted one that the model is shown
TELLING = 3  # words behind it that tell readings apart


def weigh_places(
    model: Metered, words: list[Word], at: int, readings: list[str], count: int = 1, likeliest: Sequence[str] = ()
) -> list[float]:
    """Log-likelihood of a question as it stands, and with each reading in place of `count` words from `at` on.

    Args:
        model: weighs.
        words: the question.
        at: the first word that would be replaced.
        readings: without what stands behind the last of these words.
        count: how many words are replaced.
        likeliest: what every word is taken for around them, where it is not as it stands.
    """
    taken = [Word(core, w.tail) for core, w in zip(likeliest or [w.core for w in words], words, strict=True)]
    first, behind = max(0, at - LEFT), at + count
    stop = min(behind + TELLING, len(words))
    begin, end = join(taken[first:at]), words[behind - 1].tail + join(taken[behind:stop])
    kept = join(words[at : behind - 1]) + words[behind - 1].core
    asked = join(words[first : behind + RIGHT]).strip(" ")
    rows = [(begin + reading + end).rstrip(" ") for reading in (kept, *readings)]
    return weigh(model, asked, rows, whole=stop == len(words))


def weigh(model: Metered, question: str, readings: list[str], whole: bool = True) -> list[float]:
    """Log-likelihood of each reading of a question, half as its repair and half as a question on its own.

    As a repair alone, a model that has learnt to repair copies too much ("shitf" keeps its first four letters); on
    its own alone, it forgets what was written.
    """
    return [0.5 * (a + b) for a, b in zip(*likelihoods(model, question, readings, whole), strict=True)]


def likelihoods(model: Metered, question: str, readings: list[str], whole: bool = True) -> list[list[float]]:
    """Log-likelihood of each reading, as the question's repair and as a question on its own.

    Readings that are not `whole` may go on behind their last word.
    """
    end = None if whole else -1
    found = model.score(REPAIR.format(question), readings), model.score(PLAIN, readings, fixed=True)
    return [[sum(row[:end]) for row in rows] for rows in found]


def posterior(values: list[float]) -> list[float]:
    """Softmax."""
    weights = np.exp(np.array(values) - max(values))
    return [float(v) for v in weights / weights.sum()]
