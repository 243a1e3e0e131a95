"""How hands and scanners err, and what each slip costs.

Keys beside each other, letters swapped, lost or doubled, and shapes that look alike. Costs are natural-log
probabilities, negated.
"""

from __future__ import annotations

import math
from functools import cache

from imc_lite.noise.text_bank import OCR_PAIRS, ROWS

SWAP, LOST, NEAR_KEY, MISREAD, FAR_KEY = 1.0, 1.5, 1.5, 1.5, 4.0
VOWEL = 2.0  # one vowel for another: not a slip of the hand, but how people spell what they have only heard
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
_UNREAD = sorted(
    {(seen.lower(), meant.lower()) for meant, shapes in OCR_PAIRS.items() for seen in shapes}, key=lambda p: -len(p[0])
)
_GROUPS = [(seen, meant) for seen, meant in _UNREAD if len(seen) + len(meant) > 2]
_PLACE = {key: (row, column) for row, keys in enumerate(ROWS) for column, key in enumerate(keys)}


def slips(word: str, likely: bool = False) -> dict[str, tuple[float, str]]:
    """Every text that one slip turns into `word`, with the slip's cost and "typo" or "ocr".

    `likely` leaves out keys that do not touch.
    """
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
        if tail:
            put(head + tail[1:], _extra(head, tail), "typo")
        for letter in LETTERS:
            put(head + letter + tail, LOST, "typo")
            if tail and letter != tail[0]:
                near = beside(tail[0], letter)
                if near or not likely:
                    put(head + letter + tail[1:], NEAR_KEY if near else FAR_KEY, "typo")
    return forms


def reach(seen: str, meant: str, most: float = math.inf) -> float:
    """The least cost of all slips that turn `meant` into `seen`, vowels taken for each other among them.

    The alignment of Damerau (1964), https://doi.org/10.1145/363958.363994, weighted. More than `most` is infinite.
    """
    rows = [[LOST * j for j in range(len(meant) + 1)]]
    groups = [(read, was) for read, was in _GROUPS if read in seen and was in meant]
    for i in range(1, len(seen) + 1):
        above, extra = rows[-1], _extra(seen[: i - 1], seen[i - 1 :])
        row = [above[0] + extra]
        for j in range(1, len(meant) + 1):
            best = min(above[j] + extra, row[j - 1] + LOST, above[j - 1] + _instead(seen[i - 1], meant[j - 1]))
            if i > 1 and j > 1 and seen[i - 2] == meant[j - 1] and seen[i - 1] == meant[j - 2]:
                best = min(best, rows[i - 2][j - 2] + SWAP)
            for read, was in groups:
                if seen.endswith(read, 0, i) and meant.endswith(was, 0, j):
                    best = min(best, rows[i - len(read)][j - len(was)] + MISREAD)
            row.append(best)
        if min(row) > most and min(above) > most:
            return math.inf
        rows.append(row)
    return rows[-1][-1]


def beside(a: str, b: str) -> bool:
    """Whether two keys touch."""
    if a not in _PLACE or b not in _PLACE:
        return False
    (row, column), (other_row, other_column) = _PLACE[a], _PLACE[b]
    return a != b and abs(row - other_row) <= 1 and abs(column - other_column) <= 1


def _extra(head: str, tail: str) -> float:
    """What it costs that the first letter of `tail` is one too many."""
    double = tail[0] == head[-1:]
    return NEAR_KEY if double or any(beside(tail[0], c) for c in (head[-1:], tail[1:2]) if c) else FAR_KEY


@cache
def _instead(seen: str, meant: str) -> float:
    """What it costs to find one letter where another was meant."""
    if seen == meant:
        return 0.0
    if beside(seen, meant) or (seen, meant) in _UNREAD:
        return NEAR_KEY
    return VOWEL if seen in VOWELS and meant in VOWELS else FAR_KEY
