"""The best reading of a doubted word, if it is clearly better than leaving the word alone and the guard agrees."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from imc_lite.results import Edit
from imc_lite.sms import guard
from imc_lite.sms.channel import FAR_KEY
from imc_lite.sms.lexicon import EARLIER, Lexicon
from imc_lite.sms.metered import Metered
from imc_lite.sms.opposites import NEAR
from imc_lite.sms.proposers import Candidate, propose_at
from imc_lite.sms.text import Word, cased
from imc_lite.sms.verifier import posterior, weigh_places

# Chosen on questions of training pictures that were held out, and SLAKE's validation questions.
KEEP_UNKNOWN, KEEP_RARE, KEEP_COMMON = 6.0, 2.0, 0.0  # what it costs to leave a word as it stands
CHANNEL = 1.5  # weight of the channel's cost beside the model's likelihood
SURE = 0.8  # posterior a repair needs
SURE_READING = 0.98  # one that chooses between readings of a short form
SURE_BESIDE_GUARDED = 0.99  # one that passes over a guarded word as near
MOST, MOST_OF_COMMON = 8, 4  # candidates that the model weighs; the ninth was never right
DEARER = 3.0  # than the cheapest one, at most
SHORTEST, SHORT = 2, 4  # letters of a word that may be an abbreviation, and of one that no list knows
ACRONYM = 3  # letters of a word that no list knows and that is sooner an acronym or cut short than misspelt
# A damaged word of fewer letters than LONG is sooner a term that no list has than a general word from this rank on.
SELDOM, LONG = EARLIER + 8_000, 8
ALTERNATIVES = ("or", "and", "vs", "versus")
_VOWEL = re.compile(r"[aeiouy\d]")


def settle(
    model: Metered, words: list[Word], at: int, likeliest: Sequence[str], lexicon: Lexicon
) -> tuple[Edit | None, bool]:
    """Decide on one doubted word; changes `words` where it is repaired.

    Args:
        model: weighs the readings.
        words: the question as it stands.
        at: which word.
        likeliest: what every word is taken for while this one is weighed, the doubted others by their best reading.
        lexicon: proposes.

    Returns:
        The edit, if any, and whether another reading is likelier than the word as it stands.

    Raises:
        SpentError: no work is left to weigh the word.
    """
    word = words[at].core
    source = word.lower()
    found = propose_at(words, at, lexicon)
    if found and found[0].reason == "shorthand":
        edit = _written_out(model, words, at, likeliest, found)
        chosen = None
    else:
        near = _near(source, found, lexicon)
        chosen, likely = _weighed(model, words, at, likeliest, near, _cost_of_keeping(source, lexicon))
        permitted = (
            chosen is not None
            and likely >= SURE
            and _permitted(source, chosen, likely, found, lexicon)
            and not _repeats(words, at, chosen.text)
        )
        edit = _edit(word, chosen, likely, at) if chosen is not None and permitted else None
    if edit is not None:
        words[at].core = edit.target
        if edit.reason == "shorthand" and at + 1 < len(words) and words[at + 1].core[:1].islower():
            words[at].tail = words[at].tail.removeprefix(".")  # it was the short form's own: "the ant. horn"
    return edit, chosen is not None


def _near(source: str, found: list[Candidate], lexicon: Lexicon) -> list[Candidate]:
    """The candidates that the model weighs."""
    if len(source) <= SHORTEST:  # "ph" is sooner an abbreviation than a damaged "mph"
        found = [c for c in found if c.text in lexicon.domain]
    most = MOST_OF_COMMON if lexicon.common(source) else MOST
    return [c for c in found[:most] if c.cost <= found[0].cost + DEARER]


def _written_out(
    model: Metered, words: list[Word], at: int, likeliest: Sequence[str], found: list[Candidate]
) -> Edit | None:
    """A short form by its one reading, or by the one that the model finds far likelier where none is guarded."""
    word = words[at].core
    source = word.lower()
    chosen: Candidate | None
    if len(found) == 1:
        chosen, likely, only = found[0], 1.0, found[0]
        if any(guard.protected(w) for w in only.text.split()):
            # "a red ant bite": what is written out says where, or how, so the model must find that it belongs there.
            chosen, likely = _weighed(model, words, at, likeliest, found, KEEP_UNKNOWN)
        allowed = chosen is not None and likely >= SURE and guard.allowed(source, chosen.text, [], known=False)
        return _edit(word, chosen, likely, at) if chosen is not None and allowed else None
    # "r" asks where `assessor` lets it through, and is a side elsewhere.
    if source != "r" and any(guard.protected(w) for c in found for w in c.text.split()):
        return None
    chosen, likely = _weighed(model, words, at, likeliest, found, KEEP_UNKNOWN)
    if chosen is None or likely < (SURE if source == "r" else SURE_READING) or guard.protected(chosen.text):
        return None
    return _edit(word, chosen, likely, at)


def _weighed(
    model: Metered, words: list[Word], at: int, likeliest: Sequence[str], found: list[Candidate], keep: float
) -> tuple[Candidate | None, float]:
    """The likeliest candidate and its posterior; None where leaving the word as it stands is likelier."""
    if not found:
        return None, 1.0
    texts = [cased(c.text, words[at].core) for c in found]
    likelihood = weigh_places(model, words, at, texts, likeliest=likeliest)
    costs = [keep, *(CHANNEL * c.cost for c in found)]
    posteriors = posterior([a - b for a, b in zip(likelihood, costs, strict=True)])
    best = int(np.argmax(posteriors))
    return (found[best - 1] if best else None), posteriors[best]


def _permitted(source: str, target: Candidate, likely: float, found: Sequence[Candidate], lexicon: Lexicon) -> bool:
    """Whether the guard lets a word be repaired; it looks at all candidates, also those the model did not weigh."""
    others = [c for c in found if c.text != target.text]
    guarded = [c for c in others if guard.protected(c.text) and not guard.same_stem(c.text, target.text)]
    guarded = [c for c in guarded if c.slip <= target.slip + NEAR]
    if len(source) <= SHORTEST and any(c.slip <= target.slip for c in guarded):
        return False
    # What is read into so few letters must not turn the question round ("nmo"); and consonants that no list has may be
    # an abbreviation.
    if len(source) <= SHORT and guard.protected(target.text) == "negation":
        return False
    if len(source) <= SHORT and not _VOWEL.search(source) and target.text not in lexicon.domain:
        return False
    few = source.isalpha() and len(source) <= ACRONYM and not lexicon.known(source)
    if few and not _of_few(source, target, lexicon):
        return False
    # A digit among letters was misread, so that it is no word that is missing in the lists.
    if source.isalpha() and not lexicon.known(source) and _far_fetched(source, target, others, lexicon):
        return False
    if guarded and likely < SURE_BESIDE_GUARDED:
        return False
    rivals = [c.text for c in others if c.slip <= target.slip + 1]
    known = lexicon.known(source)
    return guard.allowed(source, target.text, rivals, known) and not guard.ambiguous(source, target.text, lexicon)


def _of_few(source: str, target: Candidate, lexicon: Lexicon) -> bool:
    """Whether so few letters may be a damaged word: a little one, one that lost letters or has its own swapped, or one
    of questions that is a near slip away; a guarded one as short only where a scanner misreads so. "tib" is no rib, and
    "wet amd" is not wet and."""
    text = target.text
    if text in guard.LITTLE or len(text) > len(source) or sorted(text) == sorted(source):
        return True
    near = len(text) == len(source) and target.slip < FAR_KEY and text in lexicon.domain
    return near and (target.reason == "ocr" or not guard.protected(text)) and text not in ALTERNATIVES


def _far_fetched(source: str, target: Candidate, others: Sequence[Candidate], lexicon: Lexicon) -> bool:
    """Whether a word that no list has is sooner another one, or a term or an abbreviation that is missing there."""
    if target.text in lexicon.domain or target.text in lexicon.terms:
        near = [c.text for c in others if c.text in lexicon.terms and c.cost <= target.cost + NEAR]
        return target.text in lexicon.terms and any(not guard.same_stem(text, target.text) for text in near)
    if (rank := lexicon.rank.get(target.text)) is None:  # put together from a prefix and a word of medicine
        return False
    if len(source) <= SHORT or (len(source) < LONG and rank >= SELDOM):
        return True
    return any(c.text in lexicon.terms and c.cost <= target.cost + NEAR for c in others)


def _repeats(words: list[Word], at: int, text: str) -> bool:
    """Whether a word would become the very one that it is an alternative to: "ct or cr" asks no "ct or ct"."""
    cores = [word.core.lower() for word in words]
    before = at >= 2 and cores[at - 1] in ALTERNATIVES and cores[at - 2] == text
    return before or (at + 2 < len(cores) and cores[at + 1] in ALTERNATIVES and cores[at + 2] == text)


def _cost_of_keeping(source: str, lexicon: Lexicon) -> float:
    if lexicon.common(source):
        return KEEP_COMMON
    return KEEP_RARE if lexicon.known(source) else KEEP_UNKNOWN


def _edit(word: str, chosen: Candidate, likely: float, at: int) -> Edit:
    """The edit, a first letter's capital kept, and given back where a scanner lost that of the first word."""
    text = cased(chosen.text, word)
    misread = chosen.reason == "ocr" and word[:1] != chosen.text[:1]
    if misread:  # "Iung" was no capital, and "ls" that begins the question was one
        text = chosen.text.capitalize() if at == 0 else chosen.text
    return Edit(word, text, chosen.reason, round(likely, 4))
