"""Spaces that were lost or put in by mistake: "Isthere", "pneumo thorax"."""

from __future__ import annotations

from collections.abc import Sequence

from imc_lite.results import Edit
from imc_lite.sms import guard
from imc_lite.sms.channel import LOST, slips
from imc_lite.sms.lexicon import COMMON, Lexicon
from imc_lite.sms.metered import Metered
from imc_lite.sms.text import Word
from imc_lite.sms.verifier import posterior, weigh_places

KEEP_UNKNOWN, SPACE = 6.0, 1.5 * LOST  # what it costs to leave an unknown word, and that a space was lost or typed
SURE = 0.8  # posterior a repair needs
SHORTEST = 2  # letters of each half, "a" apart


def mend_spaces(
    model: Metered, words: list[Word], starts: Sequence[int], lexicon: Lexicon, edits: dict[int, Edit]
) -> None:
    """Join and part words where all letters stand and nothing else explains them.

    Changes `words`, where a word that is joined to the one before it becomes empty, and `edits`, by the word where each
    begins.

    Raises:
        SpentError: no work is left to weigh a word.
    """
    for at, word in enumerate(words):
        if not word.core.isalpha() or word.core[1:] != word.core[1:].lower():
            continue
        edit = _joined(model, words, at, lexicon) if at + 1 in starts else None
        if edit is None and not lexicon.known(word.core.lower()):
            edit = _parted(model, words, at, lexicon)
        if edit is not None:
            edits[at] = edit


def _joined(model: Metered, words: list[Word], at: int, lexicon: Lexicon) -> Edit | None:
    """Two halves of a word of questions, of which one is no common word itself."""
    first, second = words[at], words[at + 1]
    whole = first.core + second.core
    halves = (first.core.lower(), second.core.lower())
    if first.tail != " " or not second.core.isalpha() or second.core != second.core.lower():
        return None
    if not _listed(whole.lower(), lexicon) or all(lexicon.rank.get(h, COMMON) < COMMON or len(h) == 1 for h in halves):
        return None
    if any(guard.protected(h) not in (None, "anatomy") for h in halves):
        return None
    likely = _likely(model, words, whole, at, 2)
    if likely < SURE:
        return None
    edit = Edit(f"{first.core} {second.core}", whole, "typo", round(likely, 4))
    words[at], words[at + 1] = Word(whole, second.tail), Word("", "")
    return edit


def _parted(model: Metered, words: list[Word], at: int, lexicon: Lexicon) -> Edit | None:
    """One unknown word that is two known ones, and no slip away from a third."""
    word = words[at].core
    lower = word.lower()
    ways = [(word[:i], word[i:]) for i in range(1, len(word)) if _halves(lower[:i], lower[i:], lexicon)]
    if not ways or any(_listed(form, lexicon) for form in slips(lower)):
        return None
    rated = [(_likely(model, words, " ".join(way), at, 1), way) for way in ways[:2]]
    likely, way = max(rated)
    if likely < SURE:
        return None
    words[at].core = " ".join(way)
    return Edit(word, words[at].core, "typo", round(likely, 4))


def _halves(first: str, second: str, lexicon: Lexicon) -> bool:
    """Whether both are words that questions have; one of them a little one, or both long."""
    if first in guard.NEGATING and second not in lexicon.domain and second not in guard.LITTLE:
        return False  # "anicteric" is not icteric
    little = first in guard.LITTLE or second in guard.LITTLE
    shortest = SHORTEST if little else 4
    longest = max(len(first), len(second)) > SHORTEST
    return longest and all(h == "a" or (len(h) >= shortest and _listed(h, lexicon)) for h in (first, second))


def _listed(word: str, lexicon: Lexicon) -> bool:
    return word in lexicon.domain or word in lexicon.terms


def _likely(model: Metered, words: list[Word], reading: str, at: int, count: int) -> float:
    """How likely it is that so many words from `at` on are to be read so."""
    kept, changed = weigh_places(model, words, at, [reading], count)
    return posterior([kept - KEEP_UNKNOWN, changed - SPACE])[1]
