"""Candidates for one damaged word, each with what its damage costs: slips of hand or scanner, and short forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imc_lite.sms.abbreviations import READINGS
from imc_lite.sms.channel import reach, slips
from imc_lite.sms.lexicon import COMMON, Lexicon
from imc_lite.sms.symbols import LONGEST, behind_number
from imc_lite.sms.text import Word
from imc_lite.sms.word_forms import rests

SHORT, RARE = 0.5, 1.5
TWO_SLIPS_FROM = 6  # letters: two slips in a shorter word leave too little of it
LONGEST_UNIT = 3  # letters of what is read as a unit behind a number, or left
TWO_SLIPS = 3.0  # what two likely slips cost at most


@dataclass(frozen=True)
class Candidate:
    """A reading of a word, lower case; `reason` is "typo", "ocr" or "shorthand".

    `cost` is what the model's likelihood is weighed against: `slip`, the damage alone, and how rare the word is.
    """

    text: str
    cost: float
    reason: str
    slip: float


def propose(word: str, lexicon: Lexicon) -> list[Candidate]:
    """All readings of a lower-case word without its punctuation, the cheapest first; never the word itself."""
    if word in READINGS:
        return [Candidate(text, SHORT, "shorthand", SHORT) for text in READINGS[word]]
    if len(word) > LONGEST:
        return []
    found = {text: slip for text, slip in slips(word).items() if text in lexicon and text != word}
    if not found and len(word) >= TWO_SLIPS_FROM:
        # Two slips in one word are rare and dear to search: only where one does not explain it.
        reason = "ocr" if any(c.isdigit() for c in word) else "typo"
        found = {text: (cost, reason) for text, cost in _two_slips(word, lexicon).items()}
    if not found:
        found = _within_compound(word, lexicon)
    rated = [Candidate(text, cost + _rarity(text, lexicon), reason, cost) for text, (cost, reason) in found.items()]
    return sorted(rated, key=lambda c: (c.cost, c.text))


def propose_at(words: Sequence[Word], at: int, lexicon: Lexicon) -> list[Candidate]:
    """`propose` for a word of a question. A few letters behind a number are a unit, and too few to tell which."""
    core = words[at].core.lower()
    number = at > 0 and words[at - 1].core.isdigit() and behind_number(words[at - 1].core + words[at - 1].tail)
    if number and len(core) <= LONGEST_UNIT and core not in READINGS:
        return []
    return propose(core, lexicon)


def _within_compound(word: str, lexicon: Lexicon) -> dict[str, tuple[float, str]]:
    """Words put together from an intact prefix and a damaged word of medicine: "hypoinfated"."""
    found = {}
    for rest in rests(word):
        for text, slip in slips(rest).items():
            if text in lexicon.domain or text in lexicon.terms:
                found[word.removesuffix(rest) + text] = slip
    return found


def _rarity(word: str, lexicon: Lexicon) -> float:
    if word in lexicon.domain:
        return 0
    return RARE + lexicon.rank.get(word, COMMON) / 15_000


def _two_slips(word: str, lexicon: Lexicon) -> dict[str, float]:
    """Words that two likely slips turn into `word`, with their cost."""
    words, lengths, letters = lexicon.letters
    own = np.bincount([ord(c) - ord("a") for c in word if "a" <= c <= "z"], minlength=26)
    # A slip changes at most three letters ("rn" for "m"); those of two slips are counted before anything is aligned.
    differ = np.abs(letters - own.astype(np.int8)).sum(1, dtype=np.int16)
    close = np.flatnonzero((differ <= 4) & (abs(lengths - len(word)) <= 2))
    rated = ((words[i], reach(word, words[i], TWO_SLIPS)) for i in close)
    return {text: cost for text, cost in rated if cost <= TWO_SLIPS and text != word}
