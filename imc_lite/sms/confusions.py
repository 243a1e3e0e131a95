"""Words that are right in themselves and often stand where another is meant."""

from __future__ import annotations

from collections.abc import Sequence

from imc_lite.results import Edit
from imc_lite.sms import guard
from imc_lite.sms.lexicon import Lexicon
from imc_lite.sms.metered import Metered
from imc_lite.sms.text import Word, cased
from imc_lite.sms.verifier import posterior, weigh_places

MEANT = {
    "their": "there",
    "plural": "pleural",
    "plain": "plane",
    "tub": "tube",
    "tubs": "tubes",
    "lin": "line",
    "medal": "medial",
    "prostrate": "prostate",
    "humorous": "humerus",
    "sit": "site",
    "heal": "heel",
    "lunge": "lung",
    "on": "no",
}
COST = 4.5  # nats: how much seldomer these stand for the other than for themselves
SURE = 0.95  # posterior that a repair needs
DOUBT = 0.5  # and one that a word needs to be named


def doubtful(words: Sequence[Word]) -> list[int]:
    """Where such words stand; "on" only behind "there", where "no" is as usual."""
    return [
        i
        for i, w in enumerate(words)
        if w.core in MEANT and (w.core != "on" or (i > 0 and words[i - 1].core.lower() == "there"))
    ]


def settle_confusion(model: Metered, words: list[Word], at: int, lexicon: Lexicon) -> tuple[Edit | None, bool]:
    """The edit, where the other word is clearly meant and the guard does not mind; and whether it may be meant.

    It may be where the model finds it likelier, or where questions about pictures have no use for the word that stands.

    Changes `words` where it is repaired.

    Raises:
        SpentError: no work is left to weigh the words.
    """
    word = words[at].core
    meant = cased(MEANT[word], word)
    kept, changed = weigh_places(model, words, at, [meant])
    likely = posterior([kept, changed - COST])[1]
    if likely < SURE or guard.protected(meant):
        return None, likely >= DOUBT or word not in lexicon.domain
    words[at].core = meant
    return Edit(word, meant, "typo", round(likely, 4)), False
