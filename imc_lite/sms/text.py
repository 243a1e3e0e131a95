"""A question as words, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imc_lite.sms.abbreviations import READINGS


@dataclass
class Word:
    """A run of letters and digits, and what stands between it and the next one."""

    core: str
    tail: str


def split(question: str) -> tuple[list[Word], list[int]]:
    """Words and, for each part between spaces, the index of its first word. `join` is the inverse."""
    words: list[Word] = []
    starts: list[int] = []
    for part in question.split(" "):
        starts.append(len(words))
        bare = next((b for b in (part.rstrip("?.,;:!)"), part.rstrip("?,;!)")) if b.lower() in READINGS), None)
        if bare is not None:  # "w/" and "b/l" are one word each
            words.append(Word(bare, part[len(bare) :] + " "))
            continue
        runs = re.findall(r"([^\W_](?:[\w']*[^\W_])?)?([^\w]*|_+)", part)
        words += [Word(core, tail) for core, tail in runs if core or tail] or [Word("", "")]
        words[-1].tail += " "
    words[-1].tail = words[-1].tail.removesuffix(" ")
    return words, starts


def join(words: Sequence[Word]) -> str:
    """The question again."""
    return "".join(w.core + w.tail for w in words)


def cased(text: str, like: str) -> str:
    """`text`, its first letter a capital where that of `like` is."""
    return text[:1].upper() + text[1:] if like[:1].isupper() else text
