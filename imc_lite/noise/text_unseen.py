"""Text noises for tests alone: no repair is built from them."""

from __future__ import annotations

import numpy as np

from imc_lite.noise.edits import SHARE, SHARE_MEASURE, TEXT_NOISE, Edit, pick

HOMOPHONES = {
    "there": "their", "their": "there", "to": "too", "too": "to", "right": "write", "hear": "here", "here": "hear",
    "see": "sea", "seen": "scene", "which": "witch", "whole": "hole", "where": "wear", "for": "four", "by": "buy",
    "in": "inn", "be": "bee", "vein": "vain", "site": "sight", "mass": "mas", "bowel": "bowl", "lung": "lunge",
    "brain": "brane", "heart": "hart", "or": "ore", "are": "our", "does": "dose", "not": "knot", "is": "his",
    "it": "eat", "side": "sighed", "made": "maid", "no": "know", "would": "wood", "week": "weak", "male": "mail",
}  # fmt: skip
DISTRACTORS = (
    "The weather was fine this morning.",
    "Please find the parking ticket attached.",
    "Lunch is at noon in the cafeteria.",
    "My printer is out of paper again.",
    "The meeting moved to Thursday.",
)


@TEXT_NOISE.register(
    "homophone",
    "unseen",
    levels=SHARE,
    measure=SHARE_MEASURE,
    source="a table of our own",
    differs="a word that sounds alike",
)
def _homophone(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    eligible = [i for i, w in enumerate(words) if w.lower() in HOMOPHONES]
    return [Edit(i, i + 1, words[i], HOMOPHONES[words[i].lower()]) for i in pick(eligible, level, rng)]


@TEXT_NOISE.register(
    "swap",
    "unseen",
    levels=SHARE,
    measure="share of pairs of words, at least one",
    source="random swap, arXiv 1901.11196",
    differs="neighbouring words change places",
)
def _swap(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    edits: list[Edit] = []
    for i in pick(list(range(0, len(words) - 1, 2)), level, rng):
        edits.append(Edit(i, i + 2, " ".join(words[i : i + 2]), f"{words[i + 1]} {words[i]}"))
    return [e for e in edits if e.clean != e.damaged]


@TEXT_NOISE.register(
    "case",
    "unseen",
    levels=SHARE,
    measure="share of words, at least one",
    source="of our own",
    differs="capitals, mixed case, or a space inside the word",
)
def _case(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    edits = []
    for i in pick(list(range(len(words))), level, rng):
        word = words[i]
        way = int(rng.integers(3))
        if way == 0:
            new = word.upper()
        elif way == 1:
            new = "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in word)
        else:
            cut = int(rng.integers(1, len(word))) if len(word) > 1 else 1
            new = f"{word[:cut]} {word[cut:]}".strip()
        if new != word:
            edits.append(Edit(i, i + 1, word, new))
    return edits


@TEXT_NOISE.register(
    "distractor",
    "unseen",
    levels=(1, 1, 1, 2, 2),
    measure="sentences that are added before or after",
    source="arXiv 2302.00093",
    differs="they have nothing to do with pictures",
)
def _distractor(words: list[str], level: float, rng: np.random.Generator) -> list[Edit]:
    if not words:
        return []
    sentences = " ".join(DISTRACTORS[i] for i in rng.permutation(len(DISTRACTORS))[: int(level)])
    if rng.random() < 0.5:
        return [Edit(0, 1, words[0], f"{sentences} {words[0]}")]
    return [Edit(len(words) - 1, len(words), words[-1], f"{words[-1]} {sentences}")]
