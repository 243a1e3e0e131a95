"""Little words that were lost, put back."""

from __future__ import annotations

from imc_lite.results import Edit
from imc_lite.sms import guard
from imc_lite.sms.metered import Metered
from imc_lite.sms.verifier import REPAIR, likelihoods, posterior, weigh

SURE_LOST = 0.9  # posterior that added words need; chosen on the questions of recipes/measure_repair.py themselves
MOST_ADDED = 6  # lost words put back; more is another question
YES_OR_NO = ("Is", "Is there", "Are")
FINITE = frozenset(["is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "can", "could", "should"])
TELLING = 6  # words behind the opening that tell one from another
ROOM = 6  # tokens that the rewritten question may be longer than the one given
# At the end of a question these ask of its subject what "there" would ask a second time.
SAID_OF = frozenset(["present", "absent", "visible", "seen", "shown", "noted", "evident", "identified", "demonstrated"])


def fill(model: Metered, words: list[str]) -> tuple[list[str], list[Edit]]:
    """Put back little words that were lost; the words that stand stay as they are, in their order.

    The model rewrites the question, and only what it adds is taken: a few words of `guard.LITTLE`. How a question
    begins is what it asks, so there "what", "where" … come back only where no other beginning comes near, as a repair
    or on its own, and "is" and its like only before "there". Where no verb stands ("Normal heart size?"), nobody can
    tell what was asked, and nothing is added.
    """
    bare = [word.lower().strip("?.,;:!") for word in words]
    if not FINITE.intersection(bare) and bare[0] != "there":
        return words, []
    text = " ".join(words)
    found = model.write(REPAIR.format(text), len(model.encode(text)) + ROOM).split(" ")
    added = _added(words, found)
    opening = added.get(0, [""])[0].lower()
    if opening not in ("", *guard.ASKING) and words[0].lower() != "there":
        del added[0]
    if bare[-1] in SAID_OF and any("there" in more for more in added.values()):
        return words, []  # "Are openings present?"
    if not 0 < sum(map(len, added.values())) <= MOST_ADDED:
        return words, []
    filled = _with(words, added)
    if opening in guard.ASKING:
        others = [[o.capitalize(), *added[0][1:]] for o in guard.ASKING if o != opening]
        openings = [added[0], *others, *map(str.split, YES_OR_NO)]
        rivals = [_with(words, {**added, 0: opening}).split(" ")[: len(opening) + TELLING] for opening in openings]
        whole = len(rivals[0]) == len(filled.split(" "))
        scores = likelihoods(model, text, [" ".join(rival) for rival in rivals], whole)
        if any(posterior(row)[0] < SURE_LOST for row in scores):
            return words, []
    likely = posterior(weigh(model, text, [text, filled]))[1]
    if likely < SURE_LOST:
        return words, []
    edits = [Edit(words[i], " ".join([*more, words[i]]), "drop", round(likely, 4)) for i, more in added.items()]
    return filled.split(" "), edits


def _added(words: list[str], found: list[str]) -> dict[int, list[str]]:
    """Little words that `found` has before each word of `words`; empty where it differs in anything else."""
    added: dict[int, list[str]] = {}
    at = 0
    for word in found:
        if at < len(words) and word.lower() == words[at].lower():
            at += 1
        elif word.lower() in guard.LITTLE and at < len(words):
            added.setdefault(at, []).append(word)
        else:
            return {}
    return added if at == len(words) else {}


def _with(words: list[str], added: dict[int, list[str]]) -> str:
    return " ".join(w for i, word in enumerate(words) for w in (*added.get(i, ()), word))
