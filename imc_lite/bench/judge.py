"""Right or wrong, for all questions about one picture in one pass of the language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imc_lite.models.base import MLLM
from imc_lite.models.default.onnx import BLOCKED, OrtMLLM

BEYOND = 3  # tokens that an answer may be longer than expected before it is cut
MOST_TOKENS = 768  # of one pass; its attention bias grows with their square


def judge(model: MLLM, tokens: np.ndarray | None, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the model's greedy answer is the expected one.

    With the default model an answer counts when every one of its tokens, the end token included, is the model's first
    choice after the ones before it: what greedy decoding would have written, without decoding. Questions do not see
    each other. Any other model writes its answer, which counts when it is the expected one but for case, spaces and a
    full stop.

    Args:
        model: answers.
        tokens: float32 [N, D] of the picture, or None to ask without one.
        pairs: questions and expected answers, normalized.
    """
    if not isinstance(model, OrtMLLM):
        said = (model.generate(q, tokens, len(model.encode(a)) + BEYOND).text for q, a in pairs)
        return [_plain(text) == _plain(a) for text, (_, a) in zip(said, pairs, strict=True)]
    parts, decoder = model.config["prompt"], model._decoder
    visual = [] if tokens is None else [model._projector.run(["embeds"], {"tokens": tokens[None]})[0][0]]
    prefix = np.concatenate([model._embed(parts["prefix"]), *visual])
    rows = [([*model.encode(q), *parts["turn"]], [*model.encode(a), *parts["end"]]) for q, a in pairs]
    hits: list[bool] = []
    while len(hits) < len(rows):
        chunk = rows[len(hits) : len(hits) + 1]
        for row in rows[len(hits) + 1 :]:
            if sum(len(head) + len(tail) for head, tail in (*chunk, row)) > MOST_TOKENS:
                break
            chunk.append(row)
        hits += _judge(model, decoder, prefix, chunk)
    return hits


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".")


def _judge(model: OrtMLLM, decoder, prefix: np.ndarray, rows: list[tuple[list[int], list[int]]]) -> list[bool]:
    segments, spans, where, wanted = [], [], [], []
    at = 0
    for head, tail in rows:
        segments.append([*head, *tail[:-1]])
        spans.append((len(where), len(where) + len(tail)))
        where += range(at + len(head) - 1, at + len(head) - 1 + len(tail))
        wanted += tail
        at += len(segments[-1])
    decoder.begin(len(prefix) + at)
    decoder.extend(prefix)
    past = decoder.length
    bias = np.full((at, past + at), BLOCKED, np.float32)
    bias[:, :past] = 0
    positions, start = [], 0
    for segment in segments:
        block = slice(start, start + len(segment))
        bias[block, past + start : past + block.stop] = np.triu(np.full((len(segment),) * 2, BLOCKED, np.float32), 1)
        positions.append(np.arange(past, past + len(segment)))
        start = block.stop
    embeds = model._embed([i for s in segments for i in s])
    first = decoder._run(embeds, np.concatenate(positions), bias, np.array(where)).argmax(1) == np.array(wanted)
    return [bool(first[a:b].all()) for a, b in spans]
