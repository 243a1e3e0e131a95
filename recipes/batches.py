"""Packs side by side: token ids, who sees whom, and what is to be answered, as arrays of one shape."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from data import Pack
from language_model import Words
from torch import Tensor
from views import View

from imc_lite.models.default.spec import ENCODER

PAD = -1  # owner of positions that hold nothing
SHARED = 0  # owner of the prompt's beginning and the picture, which every question sees
MULTIPLE = 32  # lengths are rounded up to it, so that few shapes occur
LONGEST = 384  # tokens of a pack in training


@dataclass(frozen=True)
class Batch:
    """B packs of at most T tokens with N answer tokens in all."""

    ids: np.ndarray  # int64 [B, T]; 0 where the picture's embeddings or nothing stand
    owner: np.ndarray  # int64 [B, T]: PAD, SHARED, or the number of the question, from 1
    positions: np.ndarray  # int64 [B, T]
    pictured: np.ndarray  # int64 [P], the packs with a picture
    views: list[View]  # of those
    where: np.ndarray  # int64 [N, 2]: pack, and position whose next token is asked
    truth: np.ndarray  # int64 [N]
    weight: np.ndarray  # float32 [N]; the loss is the weighted sum over all answer tokens
    spans: list[tuple[int, int]]  # of every pair, its answer tokens


def in_parts(packs: Sequence[Pack], words: Words, together: int) -> list[Batch]:
    """The packs of one step as batches of at most `together`, packs of like length side by side."""
    by_length = sorted(packs, key=lambda p: sum(len(q) + len(a) for q, a in p.pairs))
    parts = [by_length[i : i + together] for i in range(0, len(packs), together)]
    return [collate(part, words, of=len(packs)) for part in parts]


def collate(packs: Sequence[Pack], words: Words, longest: int = LONGEST, of: int | None = None) -> Batch:
    """Put packs side by side; questions that would make a pack longer than `longest` are left out.

    A pair's weight is 1 / sqrt(its answer's tokens), the mean over its pack's pairs, then over the packs: these, or
    `of` where they are a part of a step.
    """
    of = of or len(packs)
    rows, where, truth, weight, spans = [], [], [], [], []
    for number, pack in enumerate(packs):
        start = len(words.prefix) + (0 if pack.view is None else ENCODER.tokens)
        ids, owner = words.prefix + [0] * (start - len(words.prefix)), [SHARED] * start
        positions = list(range(start))
        kept = _within(pack, words, longest - start)
        for k, (asked, answer) in enumerate(kept, 1):
            first = len(ids) + len(asked) - 1
            spans.append((len(truth), len(truth) + len(answer)))
            where += [(number, first + i) for i in range(len(answer))]
            truth += answer
            weight += [1 / math.sqrt(len(answer)) / len(kept) / of] * len(answer)
            segment = asked + answer[:-1]
            ids, owner = ids + segment, owner + [k] * len(segment)
            positions += range(start, start + len(segment))
        rows.append((ids, owner, positions))
    width = -(-max(len(ids) for ids, _, _ in rows) // MULTIPLE) * MULTIPLE
    arrays = [np.full((len(rows), width), fill, np.int64) for fill in (0, PAD, 0)]
    for number, parts in enumerate(rows):
        for array, part in zip(arrays, parts, strict=True):
            array[number, : len(part)] = part
    pictured = [i for i, p in enumerate(packs) if p.view is not None]
    views = [p.view for p in packs if p.view is not None]
    facts = np.array(where, np.int64), np.array(truth, np.int64), np.array(weight, np.float32)
    return Batch(*arrays, np.array(pictured, np.int64), views, *facts, spans)


def _within(pack: Pack, words: Words, room: int) -> list[tuple[list[int], list[int]]]:
    """Token ids of the pack's pairs (asked, answer) that fit; one at least."""
    kept: list[tuple[list[int], list[int]]] = []
    for question, answer in pack.pairs:
        pair = words.ids(question) + words.turn, words.ids(answer) + words.end
        room -= len(pair[0]) + len(pair[1]) - 1
        if kept and room < 0:
            break
        kept.append(pair)
    return kept


def block_mask(owner: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [B, 1, T, T] from owners [B, T]: causal, no question sees another, nothing sees padding.

    Padding sees the shared beginning, so that no row is empty.
    """
    asks, seen = owner[:, :, None], owner[:, None, :]
    visible = (seen == SHARED) | ((seen == asks) & (seen != PAD))
    visible = visible & torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool, device=owner.device).tril()
    return torch.zeros(visible.shape, dtype=dtype, device=owner.device).masked_fill_(~visible, -1e4)[:, None]


_make: Callable[[int], list[Batch]]


def _made(step: int) -> list[Batch]:
    return _make(step)


class Ahead:
    """Steps' batches made ahead by forked processes, if any. Start it before threads and a GPU are used."""

    def __init__(self, make: Callable[[int], list[Batch]], steps: range, workers: int) -> None:
        global _make
        _make = make
        self.steps, self.workers = iter(steps), workers
        self.pool = ProcessPoolExecutor(workers, get_context("fork")) if workers else None
        self.waiting: deque = deque()
        self._fill()

    def _fill(self) -> None:
        while self.pool and len(self.waiting) < 4 * self.workers and (step := next(self.steps, None)) is not None:
            self.waiting.append(self.pool.submit(_made, step))

    def __iter__(self) -> Iterator[list[Batch]]:
        if self.pool is None:
            yield from map(_make, self.steps)
        while self.waiting:
            batch = self.waiting.popleft().result()
            self._fill()
            yield batch

    def stop(self) -> None:
        if self.pool:
            self.pool.shutdown(wait=False, cancel_futures=True)
