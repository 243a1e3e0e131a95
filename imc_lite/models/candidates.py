"""Scoring candidate answers that follow one prompt, whatever computes the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from imc_lite.models.base import TextOnly
from imc_lite.models.deadline import Deadline


def score_candidates(
    candidates: Sequence[Sequence[int]],
    ends: Sequence[int],
    read: Callable[[list[int], list[list[int]]], tuple[np.ndarray, np.ndarray]],
    branch: Callable[[list[list[int]]], np.ndarray],
    split: Callable[[int, list[list[int]]], list[list[list[int]]]],
    deadline: Deadline,
) -> list[np.ndarray]:
    """Natural-log probability of every token of each candidate, then that it ends there: float32 [T_i + 1] each.

    What all candidates begin with is read once, behind the prompt; the rest follows side by side.

    Args:
        candidates: token ids.
        ends: tokens that end an answer; their probabilities are added.
        read: reads the prompt, the ids after it, and the first continuations of these, which do not see each other;
            log-probabilities float32 [1 + ids, vocabulary], the first row after the prompt, and
            float32 [sum of lengths, vocabulary], a row after each token of the continuations.
        branch: further continuations; log-probabilities as of the first ones.
        split: told how many ids are shared, continuations that go into one pass together.
        deadline: looked at before every pass.

    Raises:
        DeadlineError: the scores are no longer wanted.
    """
    if not candidates:
        return []
    deadline.check()
    shared = common_beginning(candidates)
    chunks = split(len(shared), [list(c[len(shared) :]) for c in candidates])
    rows, after = read(shared, chunks[0])
    head, first = [rows[i, token] for i, token in enumerate(shared)], rows[len(shared)]
    out: list[np.ndarray] = []
    for number, chunk in enumerate(chunks):
        if number:
            deadline.check()
            after = branch(chunk)
        at = 0
        for ids in chunk:
            mine = [first, *after[at : at + len(ids)]]
            at += len(ids)
            found = [row[token] for row, token in zip(mine, ids, strict=False)]
            out.append(np.array([*head, *found, np.logaddexp.reduce(mine[-1][list(ends)])], np.float32))
    return out


def read_back(rows: np.ndarray, ids: Sequence[int], ends: Sequence[int]) -> TextOnly:
    """An answer's token ids among log-probabilities float32 [T + 1, vocabulary], the first row after the prompt."""
    found = [*rows[np.arange(len(ids)), list(ids)], np.logaddexp.reduce(rows[-1][list(ends)])]
    first = rows.argmax(1)
    same = [int(i) for i in first[:-1]] == list(ids) and int(first[-1]) in ends
    return TextOnly(np.array(found, np.float32), same)


def common_beginning(items: Sequence[Sequence[int]]) -> list[int]:
    """The longest beginning that all share."""
    length = min(len(item) for item in items)
    while any(list(item[:length]) != list(items[0][:length]) for item in items):
        length -= 1
    return list(items[0][:length])


def split_by_room(items: list[list[int]], room: int) -> list[list[list[int]]]:
    """Split so that the tokens of a pass, an end for each item among them, take at most `room` positions."""
    parts: list[list[list[int]]] = [[]]
    used = 0
    for item in items:
        if parts[-1] and used + len(item) + 1 > room:
            parts.append([])
            used = 0
        parts[-1].append(item)
        used += len(item) + 1
    return parts if parts[0] else []
