"""Words that need no repair, with how common they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

COMMON = 30_000  # general words beyond this rank are as often a slip as meant


@dataclass(frozen=True)
class Lexicon:
    """`rank` gives a word's place in its list; `domain` holds the words of radiology questions."""

    rank: dict[str, int]
    domain: frozenset[str]

    def __contains__(self, word: str) -> bool:
        return word in self.rank

    def common(self, word: str) -> bool:
        """Whether a word needs no second look."""
        return word in self.domain or self.rank.get(word, COMMON) < COMMON


@cache
def default_lexicon() -> Lexicon:
    """The packaged lists (recipes/build_lexicon.py)."""
    text = (resources.files("imc_lite.assets") / "words.txt").read_text(encoding="utf-8")
    domain, general = (part.split() for part in text.split("\n\n", 1))
    rank = {word: i for i, word in enumerate(general)}
    return Lexicon(rank | {word: i for i, word in enumerate(domain)}, frozenset(domain))
