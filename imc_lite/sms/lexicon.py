"""Words that need no repair, with how common they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np

from imc_lite.sms.channel import slips
from imc_lite.sms.word_forms import american, compound

COMMON = 30_000  # general words beyond this rank are as often a slip as meant


@dataclass(frozen=True)
class Lexicon:
    """Words by where they come from (recipes/build_lexicon.py).

    `rank` gives the place of each word in its list, for those that may be proposed in place of a damaged one. `domain`
    holds the words of radiology questions and `terms` those of medicine, both of which `rank` has as well. `rare` words
    are right where they stand and are never proposed.
    """

    rank: dict[str, int]
    domain: frozenset[str]
    terms: frozenset[str] = frozenset()
    rare: frozenset[str] = frozenset()

    @classmethod
    def of(cls, domain: Iterable[str], terms: Iterable[str], general: Iterable[str], rare: Iterable[str]) -> Lexicon:
        """From its lists, most frequent first. General words rank as if the terms came before them."""
        domain, terms = list(domain), list(terms)
        rank = {word: i + EARLIER for i, word in enumerate(general)}
        rank |= dict.fromkeys(terms, EARLIER) | {word: i for i, word in enumerate(domain)}
        return cls(rank, frozenset(domain), frozenset(terms), frozenset(rare))

    def __contains__(self, word: str) -> bool:
        """Whether a lower-case word may be proposed."""
        return word in self.rank

    def common(self, word: str) -> bool:
        """Whether a lower-case word needs no second look."""
        return self._medical(word) or self.rank.get(word, COMMON) < COMMON or self._derived(word)

    def listed(self, word: str) -> bool:
        """Whether a lower-case word, or its American spelling, stands in a list."""
        return any(s in self.rank or s in self.rare for s in (word, *american(word)))

    def known(self, word: str) -> bool:
        """Whether a lower-case word is one at all."""
        return word in self.rank or word in self.rare or self._derived(word)

    @cached_property
    def letters(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The words that may be proposed, their lengths int64 [W], and how often each has a to z, int8 [W, 26]."""
        words = list(self.rank)
        codes = np.array([w.encode("ascii", "replace") for w in words]).view(np.uint8).reshape(len(words), -1)
        counts = [(codes == ord("a") + i).sum(1, dtype=np.int8) for i in range(26)]
        return words, np.array([len(w) for w in words]), np.stack(counts, 1)

    def _medical(self, word: str) -> bool:
        return word in self.domain or word in self.terms or word in self.rare

    def _derived(self, word: str) -> bool:
        """Whether rules make it a word, as British spelling or from parts, and no slip away from one of the lists."""
        if word.endswith("'s"):
            return self.known(word[:-2])
        if len(word) < 5 or not word.isascii():
            return False
        british = list(american(word))
        if any(self._medical(s) or self.rank.get(s, COMMON) < COMMON for s in british):
            return True
        parts = any(compound(s, self._medical) for s in (word, *british))
        return parts and not any(form in self.domain or form in self.terms for form in slips(word, likely=True))


EARLIER = 1_400  # the rank of a term, and of the most frequent general word


@cache
def default_lexicon() -> Lexicon:
    """The packaged lists."""
    text = (resources.files("imc_lite.assets") / "words.txt").read_text(encoding="utf-8")
    return Lexicon.of(*(part.split() for part in text.split("\n\n")))
