"""Candidates for one damaged word, each with what its damage costs.

The channel knows how hands and scanners err: keys beside each other, letters swapped, lost or doubled, shapes that
look alike, and the shorthand of charts. Costs are natural-log probabilities, negated.
"""

from __future__ import annotations

from dataclasses import dataclass

from imc_lite.noise.shorthand import SHORTHAND
from imc_lite.noise.text_bank import OCR_PAIRS, ROWS
from imc_lite.sms.lexicon import Lexicon

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST = 8  # candidates a word; the ninth was never right
LONG_FORM = {short: long for long, shorts in SHORTHAND.items() for short in shorts}
# What charts also mean by it. Never taken for certain, it only keeps the long form from being so: a lost side hurts.
SECOND = {"r": "right"}
_UNREAD = sorted(
    {(seen.lower(), meant.lower()) for meant, shapes in OCR_PAIRS.items() for seen in shapes}, key=lambda p: -len(p[0])
)
_PLACE = {key: (row, column) for row, keys in enumerate(ROWS) for column, key in enumerate(keys)}
SWAP, LOST, NEAR_KEY, MISREAD, FAR_KEY, SHORT, RARE = 1.0, 1.5, 1.5, 1.5, 4.0, 0.5, 1.5


@dataclass(frozen=True)
class Candidate:
    """A reading of a word, lower case; `reason` is "typo", "ocr" or "shorthand"."""

    text: str
    cost: float
    reason: str


def propose(word: str, lexicon: Lexicon) -> list[Candidate]:
    """Readings of a lower-case word without its punctuation, the cheapest first; never the word itself."""
    found: dict[str, Candidate] = {}

    def add(text: str, cost: float, reason: str) -> None:
        if text in lexicon and text != word:
            cost += 0 if text in lexicon.domain else RARE + lexicon.rank[text] / 15_000
            if text not in found or cost < found[text].cost:
                found[text] = Candidate(text, cost, reason)

    if word in LONG_FORM:
        for text in (LONG_FORM[word], SECOND.get(word)):
            if text is not None:
                found[text] = Candidate(text, SHORT, "shorthand")
        if len(word) <= 2:  # "pt" is the chart's far more often than "put" without its vowel
            return list(found.values())
    once = _slips(word)
    for text, (cost, reason) in once.items():
        add(text, cost, reason)
    if len(word) >= 6 and not found:
        # Two slips in one word are rare and dear to search: only where one does not explain it.
        for text, (cost, reason) in once.items():
            if cost < FAR_KEY:
                for further, (more, other) in _slips(text, likely=True).items():
                    add(further, cost + more, reason if reason == other else "typo")
    return sorted(found.values(), key=lambda c: (c.cost, c.text))[:MOST]


def _slips(word: str, likely: bool = False) -> dict[str, tuple[float, str]]:
    """Every text that one slip turns into `word`, with the slip's cost; `likely` leaves out far keys."""
    forms: dict[str, tuple[float, str]] = {}

    def put(text: str, cost: float, reason: str) -> None:
        if text not in forms or cost < forms[text][0]:
            forms[text] = (cost, reason)

    for i in range(len(word) + 1):
        head, tail = word[:i], word[i:]
        for seen, meant in _UNREAD:
            if tail.startswith(seen):
                put(head + meant + tail[len(seen) :], MISREAD, "ocr")
        if len(tail) > 1 and tail[0] != tail[1]:
            put(head + tail[1] + tail[0] + tail[2:], SWAP, "typo")
        if tail:  # a key too many
            beside = any(_near(tail[0], c) for c in (head[-1:], tail[1:2]) if c) or tail[0] == head[-1:]
            put(head + tail[1:], NEAR_KEY if beside else FAR_KEY, "typo")
        for letter in LETTERS:
            put(head + letter + tail, LOST, "typo")
            if tail and letter != tail[0]:
                near = _near(tail[0], letter)
                if near or not likely:
                    put(head + letter + tail[1:], NEAR_KEY if near else FAR_KEY, "typo")
    return forms


def _near(a: str, b: str) -> bool:
    """Whether two keys touch."""
    if a not in _PLACE or b not in _PLACE:
        return False
    (row, column), (other_row, other_column) = _PLACE[a], _PLACE[b]
    return a != b and abs(row - other_row) <= 1 and abs(column - other_column) <= 1
