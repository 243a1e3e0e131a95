"""ONNX graphs of a Hugging Face model's parts, traced with fixed picture sizes and free text lengths.

What depends on the grid alone (position indices, window and attention masks, rotary tables, the order in which a
projector's rows reach the language model) is recorded in one eager pass and enters the graphs as constants: exporters
cannot follow how models compute it, and on a deployment host it never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from imc_lite.errors import ImcError
from imc_lite.models.hf.model import HfMLLM, put_back, swap
from imc_lite.models.hf.parts import find


@dataclass(frozen=True)
class Recorded:
    """One eager pass over a picture.

    Attributes:
        given: what `get_image_features` was called with.
        pixels: what the tower was called with.
        blocks: positional and named arguments of every block of the tower, the hidden states first.
        indices: for each embedding table in the tower, what was looked up.
        shapes: of the projectors' inputs.
        rows: int64 [T]; which row of the first projector's output becomes which token of the language model; what is
            beyond the rows counts into `extra`.
        extra: float32 [E, hidden]; tokens that no picture changes, such as ends of lines.
    """

    given: dict[str, torch.Tensor]
    pixels: torch.Tensor
    blocks: list[tuple[tuple[Any, ...], dict[str, Any]]]
    indices: list[tuple[nn.Module, torch.Tensor]]
    shapes: list[torch.Size]
    rows: torch.Tensor
    extra: torch.Tensor


@torch.no_grad()
def record(mllm: HfMLLM, image: np.ndarray) -> Recorded:
    """Run the tower once and keep what it was called with, part by part; image uint8 [H, W, 3]."""
    given = mllm.visual(image)
    calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    results: dict[nn.Module, torch.Tensor] = {}
    tables = [m for m in mllm.tower.modules() if isinstance(m, nn.Embedding)]
    with ExitStack() as hooks:
        for module in (mllm.tower, *mllm.blocks, *tables, *mllm.projectors):
            keep = module.register_forward_pre_hook(lambda m, a, k: calls.update({m: (a, k)}), with_kwargs=True)
            hooks.callback(keep.remove)
        for module in mllm.projectors:
            hooks.callback(module.register_forward_hook(lambda m, _, out: results.update({m: out})).remove)
        mllm.model.get_image_features(**given)
    rows, extra = _layout(mllm, given, [results[p] for p in mllm.projectors])
    return Recorded(
        given=given,
        pixels=_first(*calls[mllm.tower]),
        blocks=[calls[block] for block in mllm.blocks],
        indices=[(table, calls[table][0][0]) for table in tables if table in calls],
        shapes=[_first(*calls[p]).shape for p in mllm.projectors],
        rows=rows,
        extra=extra,
    )


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else next(iter(kwargs.values()))


def _layout(
    mllm: HfMLLM, given: dict[str, torch.Tensor], outputs: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the rows of the first projector's output go, found by sending numbered rows through the model."""
    with ExitStack() as undo:
        for projector, out in zip(mllm.projectors, outputs, strict=True):
            numbered = torch.arange(1.0, 1 + out[..., 0].numel(), device=out.device).reshape(*out.shape[:-1], 1)
            undo.callback(put_back, projector, vars(projector).get("forward"))
            projector.forward = partial(_instead, numbered.expand(out.shape).clone())
        found = mllm.model.get_image_features(**given, return_dict=True)
    features = found.pooler_output
    features = (torch.cat(list(features)) if isinstance(features, (list, tuple)) else features).flatten(0, -2).float()
    count = outputs[0][..., 0].numel()
    first = features[:, 0]
    numbered = (features == first[:, None]).all(1) & (first == first.round()) & (first >= 1) & (first <= count)
    places = count + torch.cumsum(~numbered, 0) - 1
    for deep in getattr(found, "deepstack_features", None) or ():
        rows = torch.cat(list(deep))[:, 0].float()
        if not torch.equal(rows, torch.arange(1.0, 1 + len(rows), device=rows.device)):
            raise ImcError(f"{mllm.id} reorders what its deepstack mergers give; it cannot be exported")
    return torch.where(numbered, first.long() - 1, places), features[~numbered]


def _instead(rows: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return rows


class EncoderGraph(nn.Module):
    """pixels, as `Recorded.pixels` -> tokens float32 [N, D], stats float32 [8 D']: `HfMLLM.look`."""

    def __init__(self, mllm: HfMLLM, recorded: Recorded) -> None:
        super().__init__()
        self.model, self.mllm, self.recorded = mllm.model, mllm, recorded

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with ExitStack() as hooks:
            before = [(self.mllm.tower, swap(pixels))]
            before += [(table, swap(found)) for table, found in self.recorded.indices]
            before += [(b, _frozen(c)) for b, c in zip(self.mllm.blocks, self.recorded.blocks, strict=True)]
            for module, hook in before:
                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            return self.mllm.look(self.recorded.given)


def _frozen(call: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[..., Any]:
    """A forward pre-hook that lets only the hidden states through; the rest is as recorded."""
    others, named = call

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (args[0], *others[1:]), named
        name = next(iter(kwargs))
        return (), {**named, name: kwargs[name]}

    return hook


class ProjectorGraph(nn.Module):
    """tokens float32 [N, D] -> float32 [1 + deepstack, T, hidden]: what stands in the places of a picture's tokens, and
    what is added to them in the language model's first layers."""

    def __init__(self, mllm: HfMLLM, recorded: Recorded) -> None:
        super().__init__()
        self.projectors, self.recorded = nn.ModuleList(mllm.projectors), recorded

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        parts = tokens.chunk(len(self.projectors), 1)
        found = [
            projector(part.reshape(shape).contiguous()).flatten(0, -2)
            for projector, part, shape in zip(self.projectors, parts, self.recorded.shapes, strict=True)
        ]
        first = torch.cat([found[0], self.recorded.extra.to(found[0].dtype)])[self.recorded.rows]
        return torch.stack([first, *found[1:]])


class EmbedGraph(nn.Module):
    """ids int64 [S] -> float32 [S, hidden], as the language model takes them."""

    def __init__(self, mllm: HfMLLM) -> None:
        super().__init__()
        self.table = mllm.model.get_input_embeddings()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids[None])[0]


class DecoderGraph(nn.Module):
    """The language model with its cache as inputs and outputs.

    Inputs: embeds float32 [1, S, hidden]; positions int64 [1, S], or [3, 1, S] with Qwen's three axes; where int64 [n];
    each of `masks` float32 [1, 1, S, T]; with deepstack float32 [layers, S, hidden]; past_{i}_k/v float32
    [1, kv_heads, P, head_dim], T = P + S. Outputs: logits float32 [n, vocabulary], present_{i}_k/v [.., T, ..].
    """

    def __init__(self, mllm: HfMLLM, masks: list[str], deepstack: int) -> None:
        super().__init__()
        text: Any = find(mllm.model, mllm.family.language)
        if text is None:
            raise ImcError(f"{type(mllm.model).__name__} has no {mllm.family.language}; it cannot be exported")
        self.text, self.head, self.masks, self.deepstack = text, mllm.model.get_output_embeddings(), masks, deepstack
        self.layers = mllm.model.config.get_text_config().num_hidden_layers

    def forward(
        self, embeds: torch.Tensor, positions: torch.Tensor, where: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        masks, rest = dict(zip(self.masks, rest, strict=False)), rest[len(self.masks) :]
        cache = DynamicCache()
        past = rest[1:] if self.deepstack else rest
        for i in range(self.layers):
            cache.update(past[2 * i], past[2 * i + 1], i)
        with ExitStack() as hooks:
            for i in range(self.deepstack):
                hooks.callback(self.text.layers[i].register_forward_hook(_adds(rest[0][i])).remove)
            out = self.text(
                inputs_embeds=embeds,
                position_ids=positions,
                attention_mask=masks if len(masks) > 1 else masks[self.masks[0]],
                past_key_values=cache,
                use_cache=True,
            )
        present = (part for layer in out.past_key_values.layers for part in (layer.keys, layer.values))
        return (self.head(out.last_hidden_state[0, where]), *present)


def _adds(more: torch.Tensor) -> Callable[..., Any]:
    def hook(_: Any, __: Any, out: Any) -> Any:
        return (out[0] + more, *out[1:]) if isinstance(out, tuple) else out + more

    return hook
