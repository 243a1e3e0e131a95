"""The hierarchy that repairs a question, every role played by the model that answers it.

assessor  is this text damaged? the model's own yes or no, and the words that nobody knows
proposers readings of the damaged words (`imc_lite.sms.proposers`), called only for words under suspicion; the lost
          little words, called only when the assessor still finds damage
verifier  how likely the model finds each whole repaired question
arbiter   the best reading if it is clearly better than leaving the word alone, and the guard does not object

The question is data in all of it: words come from the lists, the model proposes where and weighs which, so a question
that gives orders is weighed like any other.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imc_lite.models.base import MLLM
from imc_lite.results import Edit, QuestionReport
from imc_lite.sms import guard
from imc_lite.sms.lexicon import Lexicon, default_lexicon
from imc_lite.sms.proposers import LONG_FORM, SECOND, Candidate, propose

ASSESS = "Is this question damaged? {}"
REPAIR = "Repair this question: {}"
ALARM = 0.9  # above this the assessor has known words doubted too
DAMAGED = 0.5  # above this lost words are looked for: the model's own verdict
SURPRISE = -3.0  # log-probability below which a known word is doubted then
PLAIN = "Ask a question about a medical image."
# Chosen on questions of training pictures that were held out, and SLAKE's validation questions.
KEEP_UNKNOWN, KEEP_RARE, KEEP_COMMON = 6.0, 2.0, 0.0  # what it costs to leave a word as it stands
CHANNEL = 1.5  # weight of the channel's cost beside the model's likelihood
SURE = 0.8  # posterior a repair needs
SURE_LOST = 0.9  # and one that adds words; chosen on the questions of recipes/measure_repair.py themselves
MOST_WORDS = 12  # words under suspicion; more is no question
YES_OR_NO = ("Is there", "Is there a", "Are there", "Is this", "Is this an", "Is the", "Are the", "Is")
MOST_ADDED = 6  # lost words put back; more is another question
SUSPECTS = 2  # known words that are doubted when the assessor is alarmed


@dataclass
class Word:
    """A run of letters and digits, and what stands between it and the next one."""

    core: str
    tail: str


def repair(model: MLLM, question: str, lexicon: Lexicon | None = None, rewrites: bool = False) -> QuestionReport:
    """The question repaired where that is safe, and every edit; a clean one comes back as it is.

    Args:
        model: weighs the readings; no image is shown to it.
        question: as from `imc_lite.pipeline.check_question`.
        lexicon: words that need no repair; the packaged one by default.
        rewrites: whether the model may propose a rewrite of its own (`imc_lite.sms.selftest.can_rewrite`).
    """
    words, edits, unsure, damaged = repair_words(model, question, lexicon or default_lexicon())
    if rewrites and unsure:
        words, more = _rewrite(model, words)
        edits, unsure = edits + more, [] if more else unsure
    if damaged >= DAMAGED:
        words, more = fill(model, words)
        edits = edits + more
    return QuestionReport(question, " ".join(words), tuple(edits), tuple(unsure))


def repair_words(model: MLLM, question: str, lexicon: Lexicon) -> tuple[list[str], list[Edit], list[str], float]:
    """What each word of the question, parted at spaces, becomes; shorthand may become several words.

    Returns:
        The words, the edits, the words that look damaged but have no sure reading (those stay), and how probably
        the model finds the question damaged, its doubtful words apart.
    """
    words, starts = _split(question)
    doubted = [i for i in range(len(words)) if _strange(words, i, lexicon)][:MOST_WORDS]
    edits: list[tuple[int, Edit]] = []
    if doubted:
        edits = _settle(model, question, words, doubted, lexicon)
    text = _join(words)
    damaged = assess(model, text)
    if damaged >= ALARM:
        suspects = [i for i in _suspects(model, words) if i not in doubted]
        edits += _settle(model, text, words, suspects, lexicon)
        doubted = sorted({*doubted, *suspects})
    bounds = [*starts, len(words)]
    whole = [_join(words[a:b]).strip(" ") for a, b in itertools.pairwise(bounds)]
    done = {i for i, _ in edits}
    kept = [words[i].core for i in doubted if i not in done]
    return whole, [e for _, e in sorted(edits, key=lambda e: e[0])], kept, damaged


def fill(model: MLLM, words: list[str]) -> tuple[list[str], list[Edit]]:
    """Put back little words that were lost; the words that stand stay as they are, in their order.

    The model rewrites the question, and only what it adds is taken: a few words of `guard.LITTLE`. How a question
    begins is what it asks, so there "what", "where" … come back only where no other beginning comes near, as a repair
    or on its own, and "is" and its like only before "there".
    """
    text = " ".join(words)
    found = model.generate(REPAIR.format(text), None, 64).text.split(" ")
    added = _added(words, found)
    opening = added.get(0, [""])[0].lower()
    if opening not in ("", *guard.ASKING) and words[0].lower() != "there":
        del added[0]
    if not 0 < sum(map(len, added.values())) <= MOST_ADDED:
        return words, []
    filled = _with(words, added)
    if opening in guard.ASKING:
        others = [[o.capitalize(), *added[0][1:]] for o in guard.ASKING if o != opening]
        rivals = [_with(words, {**added, 0: other}) for other in (*others, *map(str.split, YES_OR_NO))]
        if any(_softmax(scores)[0] < SURE_LOST for scores in _scores(model, text, [filled, *rivals])):
            return words, []
    posterior = _softmax(weigh(model, text, [text, filled]))[1]
    if posterior < SURE_LOST:
        return words, []
    edits = [Edit(words[i], " ".join([*more, words[i]]), "drop", round(posterior, 4)) for i, more in added.items()]
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


def _rewrite(model: MLLM, words: list[str]) -> tuple[list[str], list[Edit]]:
    """The model's own rewrite, if it keeps the number of words, touches none that the guard protects, and is sure."""
    text = " ".join(words)
    found = model.generate(REPAIR.format(text), None, 64).text.split(" ")
    changed = [(a, b) for a, b in itertools.zip_longest(words, found) if a != b]
    bare = [w.core.lower() for pair in changed for part in pair for w in _split(part or "")[0]]
    if not changed or len(found) != len(words) or any(guard.protected(word) for word in bare):
        return words, []
    posterior = _softmax(weigh(model, text, [text, " ".join(found)]))[1]
    if posterior < SURE:
        return words, []
    return found, [Edit(a, b, "rewrite", round(posterior, 4)) for a, b in changed]


def assess(model: MLLM, question: str) -> float:
    """The model's own probability that a question is damaged."""
    yes, no = (float(logprobs.sum()) for logprobs in model.score(ASSESS.format(question), ["yes", "no"]))
    return 1 / (1 + math.exp(no - yes))


def _settle(
    model: MLLM, question: str, words: list[Word], doubted: list[int], lexicon: Lexicon
) -> list[tuple[int, Edit]]:
    """Decide word by word, the likeliest readings of the others in place; changes `words`."""
    options = {i: propose(words[i].core.lower(), lexicon) for i in doubted}
    options = {i: found for i, found in options.items() if found}
    original = [w.core for w in words]
    for i, found in options.items():
        words[i].core = _cased(found[0].text, original[i])
    edits = []
    for i, found in options.items():
        source = original[i].lower()
        texts = [original[i], *(_cased(c.text, original[i]) for c in found)]
        rows = []
        for text in texts:
            words[i].core = text
            rows.append(_join(words))
        likelihood = weigh(model, question, rows)
        keep = KEEP_COMMON if lexicon.common(source) else KEEP_RARE if source in lexicon else KEEP_UNKNOWN
        costs = [keep, *(CHANNEL * c.cost for c in found)]
        posterior = _softmax([a - b for a, b in zip(likelihood, costs, strict=True)])
        best = int(np.argmax(posterior))
        words[i].core = original[i]
        if best and posterior[best] >= SURE and _permitted(source, found[best - 1], found, lexicon):
            words[i].core = texts[best]
            edits.append((i, Edit(original[i], texts[best], found[best - 1].reason, round(posterior[best], 4))))
    return edits


def weigh(model: MLLM, question: str, readings: list[str]) -> list[float]:
    """Log-likelihood of each reading of a question, half as its repair and half as a question on its own.

    As a repair alone, a model that has learnt to repair copies too much ("shitf" keeps its first four letters); on
    its own alone, it forgets what was written.
    """
    return [0.5 * (a + b) for a, b in zip(*_scores(model, question, readings), strict=True)]


def _scores(model: MLLM, question: str, readings: list[str]) -> list[list[float]]:
    """Log-likelihood of each reading, as the question's repair and as a question on its own."""
    prompts = (REPAIR.format(question), PLAIN)
    return [[float(logprobs.sum()) for logprobs in model.score(prompt, readings)] for prompt in prompts]


def _permitted(source: str, target: Candidate, found: Sequence[Candidate], lexicon: Lexicon) -> bool:
    if target.reason == "shorthand":  # the table gives each short form one reading
        return target.text == LONG_FORM[source]
    if len(source) <= 2 and target.text not in lexicon.domain:  # "ph" is sooner an abbreviation than a damaged "mph"
        return False
    rivals = [c.text for c in found if c.cost <= target.cost + 1]
    return guard.allowed(source, target.text, rivals, source in lexicon)


def _suspects(model: MLLM, words: list[Word]) -> list[int]:
    """The words that the model itself would least have written there."""
    text = _join(words)
    found = model.score(REPAIR.format(text), [text])[0]
    ends = [len(model.encode(_join(words[: i + 1]).rstrip(" "))) for i in range(len(words))]
    likely = [float(part.sum()) for part in np.split(found, ends)[: len(words)]]
    free = [i for i, w in enumerate(words) if len(w.core) > 1 and not guard.protected(w.core.lower())]
    return sorted(i for i in sorted(free, key=likely.__getitem__)[:SUSPECTS] if likely[i] < SURPRISE)


def _strange(words: list[Word], at: int, lexicon: Lexicon) -> bool:
    """Shorthand, or not a word people use; measures, signs and abbreviations in capitals are left alone."""
    word, core = words[at], words[at].core.lower()
    beside_slash = "/" in word.tail or (at > 0 and words[at - 1].tail.endswith("/"))
    if beside_slash and len(core) <= 2:  # "r/o", "s/p": half an abbreviation is no word
        return False
    if core in SECOND and at == 0 and len(words) > 1 and not _begins_a_subject(words[1].core.lower()):
        return False  # "r the lungs clear?" asks "are", "r lung clear?" may mean the right one
    if core in LONG_FORM and word.core == core:
        return True
    if lexicon.common(core) or not any(c.isalpha() for c in core) or len(core) == 1 or guard.protected(core):
        return False
    return not (word.core.isupper() and core.isalpha())


def _begins_a_subject(word: str) -> bool:
    return LONG_FORM.get(word, word) in guard.LITTLE | {"any", "all", "both", "you"}


def _split(question: str) -> tuple[list[Word], list[int]]:
    """Words and, for each part between spaces, the index of its first word. `_join` is the inverse."""
    words, starts = [], []
    for part in question.split(" "):
        starts.append(len(words))
        bare = next((b for b in (part.rstrip("?.,;:!)"), part.rstrip("?,;!)")) if b in LONG_FORM), None)
        if bare is not None:  # "w/" and "b/l" are one word each
            words.append(Word(bare, part[len(bare) :] + " "))
            continue
        runs = re.findall(r"([^\W_](?:[\w']*[^\W_])?)?([^\w]*|_+)", part)
        words += [Word(core, tail) for core, tail in runs if core or tail] or [Word("", "")]
        words[-1].tail += " "
    words[-1].tail = words[-1].tail.removesuffix(" ")
    return words, starts


def _join(words: Sequence[Word]) -> str:
    return "".join(w.core + w.tail for w in words)


def _cased(text: str, like: str) -> str:
    return text[:1].upper() + text[1:] if like[:1].isupper() else text


def _softmax(values: list[float]) -> list[float]:
    weights = np.exp(np.array(values) - max(values))
    return [float(v) for v in weights / weights.sum()]
