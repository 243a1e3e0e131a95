"""The hierarchy that repairs a question, every role played by the model that answers it.

assessor  is this text damaged? the model's own yes or no, and the words that nobody knows
proposers readings of the damaged words (`imc_lite.sms.proposers`), called only for words under suspicion; the lost
          little words (`imc_lite.sms.lost_words`), called only when the assessor still finds damage
verifier  how likely the model finds each whole repaired question
arbiter   the best reading if it is clearly better than leaving the word alone, and the guard does not object

The question is data in all of it: words come from the lists, the model proposes where and weighs which, so a question
that gives orders is weighed like any other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from imc_lite.models.base import MLLM
from imc_lite.models.deadline import NEVER, Deadline
from imc_lite.results import Edit, QuestionReport
from imc_lite.sms import guard
from imc_lite.sms.abbreviations import READINGS
from imc_lite.sms.arbiter import SURE, settle
from imc_lite.sms.assessor import assess, is_name, lone_letters, strange, suspects
from imc_lite.sms.confusions import doubtful, settle_confusion
from imc_lite.sms.lexicon import Lexicon, default_lexicon
from imc_lite.sms.lost_words import fill
from imc_lite.sms.metered import Metered, SpentError
from imc_lite.sms.proposers import propose, propose_at
from imc_lite.sms.question import in_capitals, is_english
from imc_lite.sms.spaces import mend_spaces
from imc_lite.sms.text import Word, cased, join, split
from imc_lite.sms.verifier import REPAIR, posterior, weigh

ALARM = 0.9  # above this the assessor has known words doubted too
DAMAGED = 0.5  # above this lost words are looked for: the model's own verdict
FOREIGN = "its words are not English ones, and only English questions are repaired"
SPENT = (
    "it takes more work than a question is given (too long, too damaged, or of too many rare words); what is not among "
    "the edits was left as it was asked"
)


@dataclass
class Repaired:
    """What became of a question's words, parted at spaces.

    `words` has "" where a part was joined to the one before it, and not the lost words that were put back: these are in
    `whole`, the question as it goes to the model. `damaged` is how probably the model finds the question damaged, its
    doubtful words apart. `spent` says that not all of it could be looked at.
    """

    words: list[str]
    whole: list[str]
    edits: list[Edit]
    unsure: list[str]
    damaged: float
    spent: bool


def repair(
    model: MLLM,
    question: str,
    lexicon: Lexicon | None = None,
    rewrites: bool = False,
    deadline: Deadline = NEVER,
) -> QuestionReport:
    """The question repaired where that is safe, and every edit; a clean one comes back as it is.

    Args:
        model: weighs the readings; no image is shown to it.
        question: as from `imc_lite.sms.question.check_question`.
        lexicon: words that need no repair; the packaged one by default.
        rewrites: whether the model may propose a rewrite of its own (`imc_lite.sms.selftest.can_rewrite`).
        deadline: looked at before every pass of the model.

    Raises:
        DeadlineError: the repair is no longer wanted.
    """
    lexicon = lexicon or default_lexicon()
    if not is_english(question, lexicon):
        return QuestionReport(question, question, checked=False, reason=FOREIGN)
    if in_capitals(question):
        lowered = question.capitalize()
        small = repair(model, lowered, lexicon, rewrites, deadline)
        edits = tuple(replace(e, source=e.source.upper(), target=e.target.upper()) for e in small.edits)
        unsure = tuple(word.upper() for word in small.unsure)
        # Not every word comes back from small letters as it was: "ẞ" becomes "SS".
        repaired = question if small.repaired == lowered else small.repaired.upper()
        return QuestionReport(question, repaired, edits, unsure, small.checked, small.reason)
    metered = Metered(model, deadline=deadline)
    found = repair_words(metered, question, lexicon)
    if rewrites and found.unsure and not found.spent:
        try:
            found.whole, more = _rewrite(metered, found.whole)
            found.edits, found.unsure = found.edits + more, [] if more else found.unsure
        except SpentError:
            found.spent = True
    reason = SPENT if found.spent else None
    return QuestionReport(
        question, " ".join(found.whole), tuple(found.edits), tuple(found.unsure), not found.spent, reason
    )


def repair_words(model: Metered, question: str, lexicon: Lexicon) -> Repaired:
    """What each word of the question, parted at spaces, becomes; shorthand may become several words."""
    words, starts = split(question)
    edits: dict[int, Edit] = {}
    added: list[Edit] = []
    named: set[int] = set()
    filled: list[str] = []
    damaged, spent = 0.0, False
    names = {i for i in range(len(words)) if is_name(words, i)}
    try:
        mend_spaces(model, words, starts, lexicon, edits)
        doubted = [i for i in strange(words, starts, lexicon) if i not in edits]
        named |= {i for i in doubted if _looks_damaged(words[i].core, i in names, lexicon)} | lone_letters(
            words, starts
        )
        named |= _settle_all(model, words, [i for i in doubted if i not in names], lexicon, edits)
        for i in doubtful(words):
            edit, doubt = settle_confusion(model, words, i, lexicon)
            edits |= {i: edit} if edit else {}
            named |= {i} if doubt else set()
        damaged = assess(model, join(words))
        if damaged >= DAMAGED:
            filled, added = fill(model, [part for part in _parts(words, starts) if part])
        if damaged >= ALARM and not added:
            further = [i for i in suspects(model, words, starts, lexicon) if i not in {*doubted, *names}]
            named |= _settle_all(model, words, further, lexicon, edits)
    except SpentError:
        spent = True
    parts = _parts(words, starts)
    whole = filled if added else [part for part in parts if part]
    unsure = [words[i].core for i in sorted(named) if i not in edits]
    return Repaired(parts, whole, [edits[i] for i in sorted(edits)] + added, unsure, damaged, spent)


def _looks_damaged(word: str, name: bool, lexicon: Lexicon) -> bool:
    """Whether a doubted word that stays is worth naming: a short form, no word, or a name that may be misspelt."""
    lower = word.lower()
    return lower in READINGS or (not lexicon.known(lower) and (not name or bool(propose(lower, lexicon))))


def _parts(words: list[Word], starts: list[int]) -> list[str]:
    """What stands between two spaces."""
    return [join(words[a:b]).strip(" ") for a, b in itertools.pairwise([*starts, len(words)])]


def _settle_all(
    model: Metered, words: list[Word], doubted: list[int], lexicon: Lexicon, edits: dict[int, Edit]
) -> set[int]:
    """Decide word by word, the likeliest readings of the others in place; changes `words` and `edits`.

    Returns the words that stayed although the model finds another reading likelier.
    """
    likeliest = [word.core for word in words]
    left = set()
    for i in doubted:
        found = propose_at(words, i, lexicon)
        if found:
            likeliest[i] = cased(found[0].text, words[i].core)
    for i in doubted:
        edit, doubt = settle(model, words, i, likeliest, lexicon)
        likeliest[i] = words[i].core
        if edit is not None:
            edits[i] = edit
        elif doubt:
            left.add(i)
    return left


def _rewrite(model: Metered, words: list[str]) -> tuple[list[str], list[Edit]]:
    """The model's own rewrite, if it keeps the number of words, touches none that the guard protects, and is sure."""
    text = " ".join(words)
    found = model.write(REPAIR.format(text), 64).split(" ")
    changed = [(a, b) for a, b in itertools.zip_longest(words, found) if a != b]
    bare = [w.core.lower() for pair in changed for part in pair for w in split(part or "")[0]]
    if not changed or len(found) != len(words) or any(guard.protected(word) for word in bare):
        return words, []
    likely = posterior(weigh(model, text, [text, " ".join(found)]))[1]
    if likely < SURE:
        return words, []
    return found, [Edit(a, b, "rewrite", round(likely, 4)) for a, b in changed]
