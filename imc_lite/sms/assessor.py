"""Is a question damaged, and where?"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from imc_lite.sms import guard
from imc_lite.sms.abbreviations import READINGS
from imc_lite.sms.lexicon import Lexicon
from imc_lite.sms.metered import Metered
from imc_lite.sms.symbols import behind_number, is_address, is_symbol
from imc_lite.sms.text import Word, join
from imc_lite.sms.verifier import REPAIR

ASSESS = "Is this question damaged? {}"
SURPRISE = -3.0  # log-probability below which a known word is doubted by a model that finds the question damaged
SUSPECTS = 2  # known words that are doubted then
# Short forms that are units where a number stands before them: nanolitres, units, metabolic equivalents.
ALSO_UNITS = frozenset(["nl", "u", "mets"])
# What is no damaged or short form beside one of these words: the sacroiliac joint, the lumbosacral, thoracic and
# cervical spine, digital radiography, intramuscular or intravenous, the right eye and the left, twins of one egg or
# two, the latissimus.
BESIDE = {
    "si": ("joint", "joints"),
    "ls": ("spine", "junction"),
    "ts": ("spine",),
    "cs": ("spine",),
    "dx": ("image", "images", "system", "detector", "modality"),
    "im": ("iv", "injection", "injections"),
    "od": ("os",),
    "dz": ("mz", "twins"),
    "mz": ("dz", "twins"),
    "lat": ("dorsi", "flap", "muscle", "tendon", "tear", "torn", "strain"),
}
# A reading of "r" that asks needs one of these behind it: "r the lungs clear?", but "r lung clear?"
SUBJECTS = guard.LITTLE | {"any", "all", "both", "you"}


def assess(model: Metered, question: str) -> float:
    """The model's own probability that a question is damaged."""
    yes, no = (sum(logprobs) for logprobs in model.score(ASSESS.format(question), ["yes", "no"]))
    return 1 / (1 + math.exp(no - yes))


def strange(words: Sequence[Word], starts: Sequence[int], lexicon: Lexicon) -> list[int]:
    """Which words are short forms, or none that people use; measures, symbols and addresses are left alone."""
    return [i for i in _readable(words, starts) if _strange(words, i, lexicon)]


def suspects(model: Metered, words: list[Word], starts: Sequence[int], lexicon: Lexicon) -> list[int]:
    """The words that the model itself would least have written there; not abbreviations and what else is right where it
    stands, which the model hardly knows."""
    text = join(words)
    found = np.array(model.score(REPAIR.format(text), [text])[0])
    ends = [len(model.encode(join(words[: i + 1]).rstrip(" "))) for i in range(len(words))]
    likely = [float(part.sum()) for part in np.split(found, ends)[: len(words)]]
    free = [
        i
        for i in _readable(words, starts)
        if not guard.protected(words[i].core.lower())
        and words[i].core.lower() not in lexicon.rare
        and not _symbol(words, i)
        and not _belongs(words, i)
    ]
    return sorted(i for i in sorted(free, key=likely.__getitem__)[:SUSPECTS] if likely[i] < SURPRISE)


def _readable(words: Sequence[Word], starts: Sequence[int]) -> list[int]:
    """Words that are no part of an address or an identifier."""
    bounds = itertools.pairwise([*starts, len(words)])
    return [i for a, b in bounds if not is_address(join(words[a:b]).strip(" ")) for i in range(a, b)]


def _strange(words: Sequence[Word], at: int, lexicon: Lexicon) -> bool:
    word, core = words[at], words[at].core.lower()
    before = words[at - 1].core + words[at - 1].tail if at else ""
    beside_slash = "/" in word.tail or before.endswith("/")
    if beside_slash and len(core) <= 2:  # "r/o", "s/p": half an abbreviation is no word
        return False
    if core == "r" and at == 0 and len(words) > 1 and words[1].core.lower() not in SUBJECTS:
        return False  # "r the lungs clear?" asks "are", "r lung clear?" may mean the right one
    if core in ALSO_UNITS and behind_number(before):  # "5 nl" is no normal
        return False
    if _belongs(words, at):
        return False
    if core in READINGS and word.core in (core, core.capitalize()) and (len(core) > 1 or word.core == core):
        return True
    if not any(c.isalpha() for c in core) or guard.protected(core):
        return False
    return not _symbol(words, at) and not lexicon.common(core)


def _belongs(words: Sequence[Word], at: int) -> bool:
    """Whether a short form stands beside what it goes with; "iv or im" and "od and os" are two words apart."""
    near = (i for i in (at - 2, at + 1, at + 2) if 0 <= i < len(words))
    wanted = BESIDE.get(words[at].core.lower(), ())
    return any(words[i].core.lower() in wanted for i in near)


def _symbol(words: Sequence[Word], at: int) -> bool:
    """Whether a word is a symbol, an abbreviation in capitals, or a single letter."""
    core = words[at].core
    before = words[at - 1].core + words[at - 1].tail if at else ""
    after = words[at].tail + (words[at + 1].core if at + 1 < len(words) else "")
    return len(core) < 2 or (core.isupper() and core.isalpha()) or is_symbol(core, before, after)


def lone_letters(words: Sequence[Word], starts: Sequence[int]) -> set[int]:
    """Where "n" or "o" stands by itself: half of "no", perhaps, or of "an" or "on"; never changed."""
    return {i for i in range(1, len(words)) if words[i].core in ("n", "o") and i in starts and i + 1 in starts}


def is_name(words: Sequence[Word], at: int) -> bool:
    """Whether a capital in the midst of small letters says that a word is a name."""
    word = words[at].core
    capital = re.fullmatch(r"[A-Z]'?[A-Z]?[a-z']+", word) is not None and word.lower() not in READINGS
    if at == 0 or not capital or re.search(r"[.?!:]\W*$", words[at - 1].tail):
        return False
    # "Iung": a small l read as a capital I begins no name. Nor does a capital where every word has one.
    others = [w.core for i, w in enumerate(words) if i not in (0, at) and w.core[:1].isalpha() and len(w.core) > 3]
    return word[0] != "I" and sum(w[0].isupper() and not w.isupper() for w in others) <= len(others) / 2
