"""Text noise: keyboard typos, OCR confusions, dropped words, clinical shorthand, and four unseen kinds.

| kind | what is done to a chosen word | source |
|---|---|---|
| typo | QWERTY neighbour substituted or inserted, letter lost, two letters swapped | arXiv 1711.02173 |
| ocr | look-alike characters and groups (l/1, O/0, rn/m) | OCR post-correction tables, e.g. nlpaug's OcrAug |
| drop | the word is left out; never a negation, a side or a number | arXiv 1901.11196 (random deletion) |
| shorthand | charting and texting abbreviations | `imc_lite.noise.shorthand` |

Severity 1-5 sets the share of eligible words that suffer: 10, 20, 30, 45, 60 %, at least one.
Unseen kinds (homophone, swap, case, distractor) are for tests: no repair is built from them.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import numpy as np

from imc_lite.errors import ImcError
from imc_lite.noise.shorthand import SHORTHAND

TEXT_KINDS = ("typo", "ocr", "drop", "shorthand")
UNSEEN_TEXT_KINDS = ("homophone", "swap", "case", "distractor")
SHARE = (0.10, 0.20, 0.30, 0.45, 0.60)
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
HOMOPHONES = {
    "there": "their", "their": "there", "to": "too", "too": "to", "right": "write", "hear": "here", "here": "hear",
    "see": "sea", "seen": "scene", "which": "witch", "whole": "hole", "where": "wear", "for": "four", "by": "buy",
    "in": "inn", "be": "bee", "vein": "vain", "site": "sight", "mass": "mas", "bowel": "bowl", "lung": "lunge",
    "brain": "brane", "heart": "hart", "or": "ore", "are": "our", "does": "dose", "not": "knot", "is": "his",
    "it": "eat", "side": "sighed", "made": "maid", "no": "know", "would": "wood", "week": "weak", "male": "mail",
}  # fmt: skip
DISTRACTORS = (
    "The weather was fine this morning.",
    "Please find the parking ticket attached.",
    "Lunch is at noon in the cafeteria.",
    "My printer is out of paper again.",
    "The meeting moved to Thursday.",
)


@dataclass(frozen=True)
class Edit:
    """One damaged place: words [start, stop) of the clean text became `damaged` ("" when dropped)."""

    start: int
    stop: int
    clean: str
    damaged: str


@dataclass(frozen=True)
class Damaged:
    """A damaged text and where it was damaged; words are what `str.split` gives of the clean text."""

    text: str
    edits: tuple[Edit, ...]


def apply(text: str, kind: str, severity: int, seed: int) -> str:
    """`text` damaged by `kind` at `severity` 1-5; the same arguments give the same text everywhere.

    A text that the kind cannot damage (no eligible word) comes back unchanged.

    Raises:
        ImcError: unknown kind, or a severity outside 1-5.
    """
    return damage(text, kind, severity, seed).text


def damage(text: str, kind: str, severity: int, seed: int) -> Damaged:
    """Like `apply`, with a record of every damaged word."""
    if kind not in TEXT_KINDS + UNSEEN_TEXT_KINDS:
        raise ImcError(f"unknown text noise {kind!r}: choose one of {', '.join(TEXT_KINDS + UNSEEN_TEXT_KINDS)}")
    if severity not in range(1, 6):
        raise ImcError(f"severity {severity!r} is out of range: choose 1 (mild) to 5 (severe)")
    rng = np.random.default_rng([seed, severity, zlib.crc32(kind.encode()), zlib.crc32(text.encode())])
    words = text.split()
    edits = sorted(_EDITORS[kind](words, severity, rng), key=lambda e: e.start)
    if not edits:
        return Damaged(text, ())
    out, at = [], 0
    for edit in edits:
        out += words[at : edit.start]
        out += [edit.damaged] if edit.damaged else []
        at = edit.stop
    return Damaged(" ".join(out + words[at:]), tuple(edits))


def _pick(eligible: list[int], severity: int, rng: np.random.Generator) -> list[int]:
    if not eligible:
        return []
    count = max(1, round(SHARE[severity - 1] * len(eligible)))
    return sorted(int(i) for i in rng.choice(eligible, size=count, replace=False))


def _typo(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    eligible = [i for i, w in enumerate(words) if sum(c.isascii() and c.isalpha() for c in w) >= 3]
    edits = []
    for i in _pick(eligible, severity, rng):
        word = _mistype(words[i], rng)
        if severity >= 4 and len(words[i]) >= 8 and rng.random() < 0.3:
            word = _mistype(word, rng)
        if word != words[i]:
            edits.append(Edit(i, i + 1, words[i], word))
    return edits


def _mistype(word: str, rng: np.random.Generator) -> str:
    letters = [i for i, c in enumerate(word) if c.isascii() and c.isalpha()]
    # The first letter of a word is mistyped far less often than the rest.
    at = letters[int(rng.integers(1, len(letters)))] if rng.random() < 0.93 else letters[0]
    way = rng.choice(4, p=(0.35, 0.2, 0.2, 0.25))
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


def _ocr(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    def places(word: str) -> list[tuple[int, str]]:
        return [(i, k) for k in OCR_PAIRS for i in range(len(word)) if word.startswith(k, i)]

    eligible = [i for i, w in enumerate(words) if sum(c.isalpha() for c in w) >= 3 and places(w)]
    edits = []
    for i in _pick(eligible, severity, rng):
        word = words[i]
        for _ in range(2 if severity >= 4 and len(word) >= 8 and rng.random() < 0.3 else 1):
            found = places(word)
            if not found:  # the first confusion may have taken the last place
                break
            at, key = found[int(rng.integers(len(found)))]
            options = OCR_PAIRS[key]
            word = word[:at] + options[int(rng.integers(len(options)))] + word[at + len(key) :]
        if word != words[i]:
            edits.append(Edit(i, i + 1, words[i], word))
    return edits


def _drop(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    free = [i for i, w in enumerate(words) if not PROTECTED.match(w)]
    function = [i for i in free if words[i].lower().strip("?,.") in FUNCTION_WORDS]
    content = [i for i in free if i not in function]
    wanted = max(1, round(SHARE[severity - 1] * len(words)))
    chosen = [int(i) for i in rng.permutation(function)[:wanted]]
    # Content words follow only when the function words are spent, and one always stays.
    left = max(0, min(wanted - len(chosen), len(content) - 1)) if severity >= 4 else 0
    chosen += [int(i) for i in rng.permutation(content)[:left]]
    if len(chosen) >= len(words):
        return []
    return [Edit(i, i + 1, words[i], "") for i in chosen]


def _shorthand(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
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
    for i in _pick(list(range(len(found))), severity, rng) if found else []:
        start, stop, phrase = found[i]
        forms = SHORTHAND[phrase]
        clean = " ".join(words[start:stop])
        tail = words[stop - 1][len(bare[stop - 1]) :]
        edits.append(Edit(start, stop, clean, forms[int(rng.integers(len(forms)))] + tail))
    return edits


def _homophone(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    eligible = [i for i, w in enumerate(words) if w.lower() in HOMOPHONES]
    return [Edit(i, i + 1, words[i], HOMOPHONES[words[i].lower()]) for i in _pick(eligible, severity, rng)]


def _swap(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    edits: list[Edit] = []
    for i in _pick(list(range(0, len(words) - 1, 2)), severity, rng):
        edits.append(Edit(i, i + 2, " ".join(words[i : i + 2]), f"{words[i + 1]} {words[i]}"))
    return [e for e in edits if e.clean != e.damaged]


def _case(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    edits = []
    for i in _pick(list(range(len(words))), severity, rng):
        word = words[i]
        way = int(rng.integers(3))
        if way == 0:
            new = word.upper()
        elif way == 1:
            new = "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in word)
        else:
            cut = int(rng.integers(1, len(word))) if len(word) > 1 else 1
            new = f"{word[:cut]} {word[cut:]}".strip()
        if new != word:
            edits.append(Edit(i, i + 1, word, new))
    return edits


def _distractor(words: list[str], severity: int, rng: np.random.Generator) -> list[Edit]:
    if not words:
        return []
    sentences = " ".join(DISTRACTORS[i] for i in rng.permutation(len(DISTRACTORS))[: (severity + 2) // 3])
    if rng.random() < 0.5:
        return [Edit(0, 1, words[0], f"{sentences} {words[0]}")]
    return [Edit(len(words) - 1, len(words), words[-1], f"{words[-1]} {sentences}")]


_EDITORS = {
    "typo": _typo,
    "ocr": _ocr,
    "drop": _drop,
    "shorthand": _shorthand,
    "homophone": _homophone,
    "swap": _swap,
    "case": _case,
    "distractor": _distractor,
}
