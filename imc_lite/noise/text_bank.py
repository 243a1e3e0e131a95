"""The text noises that questions are repaired from: keyboard typos, OCR confusions, dropped words, shorthand."""

from __future__ import annotations

import re

import numpy as np

from imc_lite.noise.edits import SHARE, SHARE_MEASURE, TEXT_NOISE, Edit, pick
from imc_lite.noise.shorthand import SHORTHAND

HEAVY = 0.45  # share of damaged words from which long words are hit twice and content words are lost too
AGAIN = 0.3  # probability that a long word is then hit twice
INSIDE = 0.93  # the first letter of a word is mistyped far less often than the rest
MISTYPED = (0.35, 0.2, 0.2, 0.25)  # a neighbouring key instead, a neighbouring key before, a letter lost, two swapped
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
OCR_PAIRS = {
    "l": ("1", "I"), "i": ("l", "1"), "o": ("0",), "O": ("0",), "I": ("l", "1"), "S": ("5",), "s": ("5",),
    "B": ("8",), "b": ("6", "h"), "e": ("c",), "c": ("e",), "h": ("b",), "g": ("9", "q"), "t": ("f",),
    "u": ("v",), "n": ("ri",), "m": ("rn",), "w": ("vv",), "d": ("cl",), "rn": ("m",), "cl": ("d",),
    "ri": ("n",), "li": ("h",), "a": ("o",), "Z": ("2",), "z": ("2",),
}  # fmt: skip
FUNCTION_WORDS = frozenset(
    ["a", "an", "the", "is", "are", "was", "were", "be", "been", "do", "does", "did", "of", "in", "on", "at", "to",
     "for", "from", "by", "with", "this", "that", "these", "those", "there", "it", "its", "any", "and", "or", "as",
     "what", "which", "where", "how", "can", "has", "have", "had"]
)  # fmt: skip
# Words whose loss turns a question into another one: never dropped.
PROTECTED = re.compile(
    r"(?i)^(no|not|nor|never|none|neither|without|absent|\w+n't|left|right|bilateral\w*|unilateral\w*|upper|lower|"
    r"anterior|posterior|superior|inferior|lateral|medial|more|less|than|before|after|or|\W*\d.*)\W*$"
)


@TEXT_NOISE.register(
    "typo",
    "bank",
    levels=SHARE,
    measure=SHARE_MEASURE,
    source="arXiv 1711.02173",
    differs="QWERTY neighbour instead or in addition, letter lost, two swapped; in words of three letters and more",
)
def _typo(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    eligible = [i for i, w in enumerate(words) if sum(c.isascii() and c.isalpha() for c in w) >= 3]
    edits = []
    for i in pick(eligible, level, rng):
        word = _mistype(words[i], rng)
        if level >= HEAVY and len(words[i]) >= 8 and rng.random() < AGAIN:
            word = _mistype(word, rng)
        if word != words[i]:
            edits.append(Edit(i, i + 1, words[i], word))
    return edits


def _mistype(word: str, rng: np.random.Generator) -> str:
    letters = [i for i, c in enumerate(word) if c.isascii() and c.isalpha()]
    at = letters[int(rng.integers(1, len(letters)))] if rng.random() < INSIDE else letters[0]
    way = rng.choice(4, p=MISTYPED)
    if way == 0:
        return word[:at] + _neighbour(word[at], rng) + word[at + 1 :]
    if way == 1:
        return word[:at] + _neighbour(word[at], rng) + word[at:]
    if way == 2:
        return word[:at] + word[at + 1 :]
    other = at + 1 if at + 1 < len(word) and word[at + 1].isalpha() else at - 1
    low, high = min(at, other), max(at, other)
    if low < 0 or word[low] == word[high] or not word[low].isalpha():
        return word[:at] + _neighbour(word[at], rng) + word[at + 1 :]
    return word[:low] + word[high] + word[low] + word[high + 1 :]


def _neighbour(letter: str, rng: np.random.Generator) -> str:
    low = letter.lower()
    row = next(r for r, keys in enumerate(ROWS) if low in keys)
    column = ROWS[row].index(low)
    near = [
        ROWS[r][c]
        for r in (row - 1, row, row + 1)
        for c in (column - 1, column, column + 1)
        if 0 <= r < 3 and 0 <= c < len(ROWS[r]) and (r, c) != (row, column) and abs(r - row) + abs(c - column) < 2
    ]
    new = near[int(rng.integers(len(near)))]
    return new.upper() if letter.isupper() else new


@TEXT_NOISE.register(
    "ocr",
    "bank",
    levels=SHARE,
    measure=SHARE_MEASURE,
    source="tables of OCR correction, for example nlpaug's OcrAug",
    differs="look-alike letters and groups (l and 1, O and 0, rn and m)",
)
def _ocr(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    def places(word: str) -> list[tuple[int, str]]:
        return [(i, k) for k in OCR_PAIRS for i in range(len(word)) if word.startswith(k, i)]

    eligible = [i for i, w in enumerate(words) if sum(c.isalpha() for c in w) >= 3 and places(w)]
    edits = []
    for i in pick(eligible, level, rng):
        word = words[i]
        for _ in range(2 if level >= HEAVY and len(word) >= 8 and rng.random() < AGAIN else 1):
            found = places(word)
            if not found:  # the first confusion may have taken the last place
                break
            at, key = found[int(rng.integers(len(found)))]
            options = OCR_PAIRS[key]
            word = word[:at] + options[int(rng.integers(len(options)))] + word[at + len(key) :]
        if word != words[i]:
            edits.append(Edit(i, i + 1, words[i], word))
    return edits


@TEXT_NOISE.register(
    "drop",
    "bank",
    levels=SHARE,
    measure="share of all words",
    source="random deletion, arXiv 1901.11196",
    differs="function words first; never a negation, a side, a comparison or a number",
)
def _drop(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    free = [i for i, w in enumerate(words) if not PROTECTED.match(w)]
    function = [i for i in free if words[i].lower().strip("?,.") in FUNCTION_WORDS]
    content = [i for i in free if i not in function]
    wanted = max(1, round(level * len(words)))
    chosen = [int(i) for i in rng.permutation(function)[:wanted]]
    # Content words follow only when the function words are spent, and one always stays.
    left = max(0, min(wanted - len(chosen), len(content) - 1)) if level >= HEAVY else 0
    chosen += [int(i) for i in rng.permutation(content)[:left]]
    if len(chosen) >= len(words):
        return []
    return [Edit(i, i + 1, words[i], "") for i in chosen]


@TEXT_NOISE.register(
    "shorthand",
    "bank",
    levels=SHARE,
    measure=SHARE_MEASURE,
    source="`imc_lite.noise.shorthand`",
    differs="charting and texting abbreviations, each of one long form",
)
def _shorthand(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    found, at = [], 0
    bare = [w.lower().rstrip("?.,") for w in words]
    while at < len(words):
        for length in (3, 2, 1):
            phrase = " ".join(bare[at : at + length])
            if at + length <= len(words) and phrase in SHORTHAND:
                found.append((at, at + length, phrase))
                at += length - 1
                break
        at += 1
    edits = []
    for i in pick(list(range(len(found))), level, rng):
        start, stop, phrase = found[i]
        forms = SHORTHAND[phrase]
        clean = " ".join(words[start:stop])
        tail = words[stop - 1][len(bare[stop - 1]) :]
        edits.append(Edit(start, stop, clean, forms[int(rng.integers(len(forms)))] + tail))
    return edits
