"""Where each supported family keeps its vision tower, its projector and its early hidden states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from imc_lite.errors import ImcError

EARLY = 4  # hidden states that statistics are read from


@dataclass(frozen=True)
class Family:
    """One family of models; paths are dotted attribute names.

    Attributes:
        name: as users know it.
        tower: below the model.
        projectors: below the model; their first arguments, side by side, are what `Perception.tokens` holds. A list of
            modules counts as its members.
        blocks: below the tower, its list of transformer blocks; the first path that is there.
        options: of the processor's call, so that one picture is one pass of the tower.
        side: pictures are padded to a square of so many pixels first, so that all have the same number of tokens;
            None where the processor sees to that.
        prompt: how a question is put when the checkpoint brings no chat template; {image} becomes the processor's
            image token or nothing.
    """

    name: str
    tower: str
    projectors: tuple[str, ...]
    prompt: str
    options: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ("encoder.layers", "vision_model.encoder.layers", "blocks")
    side: int | None = None


_IDEFICS = {
    "tower": "model.vision_model",
    "projectors": ("model.connector",),
    "prompt": "<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:",
    # Its tiles would be further passes, and noise is read from the whole picture.
    "options": {"do_image_splitting": False},
}
_LLAVA = {"tower": "model.vision_tower", "projectors": ("model.multi_modal_projector",)}
_QWEN = {
    "tower": "model.visual",
    "prompt": "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
    # A multiple of both patch sizes, 14 and 16, merged by two: 256 or 196 tokens for the language model.
    "side": 448,
}

FAMILIES = {
    "smolvlm": Family("SmolVLM", **_IDEFICS),
    "idefics3": Family("Idefics3", **_IDEFICS),
    "llava": Family("LLaVA", **_LLAVA, prompt="USER: {image}\n{question} ASSISTANT:"),
    # Five views, the whole and its quarters, as every square picture of that size has them.
    "llava_next": Family("LLaVA-Next", **_LLAVA, prompt="[INST] {image}\n{question} [/INST]", side=672),
    "gemma3": Family(
        "Gemma3 (MedGemma)",
        **_LLAVA,
        prompt="<start_of_turn>user\n{image}{question}<end_of_turn>\n<start_of_turn>model\n",
        options={"do_pan_and_scan": False},
    ),
    "qwen2_5_vl": Family("Qwen2.5-VL", **_QWEN, projectors=("model.visual.merger",)),
    # What its deepstack mergers take goes to deeper layers of the language model.
    "qwen3_vl": Family("Qwen3-VL", **_QWEN, projectors=("model.visual.merger", "model.visual.deepstack_merger_list")),
}


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`.

    Raises:
        ImcError: not a supported one; those are named.
    """
    if model_type not in FAMILIES:
        raise ImcError(f"models of type {model_type!r} are not supported; {supported()}")
    return FAMILIES[model_type]


def supported() -> str:
    """The families in one phrase, for messages."""
    return "supported families: " + ", ".join(f.name for f in FAMILIES.values())


def find(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path below `root`, or None."""
    for name in path.split("."):
        root = getattr(root, name, None)
        if root is None:
            return None
    return root


def blocks_of(tower: nn.Module, family: Family) -> nn.ModuleList:
    """The tower's transformer blocks.

    Raises:
        ImcError: the tower is built otherwise, or has too few blocks.
    """
    found = (find(tower, path) for path in family.blocks)
    blocks = next((b for b in found if isinstance(b, nn.ModuleList)), None)
    if blocks is None or len(blocks) < EARLY:
        raise ImcError(f"the vision tower {type(tower).__name__} of this {family.name} model is not supported")
    return blocks


def early_blocks(blocks: nn.ModuleList) -> list[nn.Module]:
    """The blocks whose inputs are the early hidden states: the embeddings and three states of the first third."""
    depths = [0, 1]
    for share in (6, 3):
        depths.append(max(depths[-1] + 1, len(blocks) // share))
    return [blocks[i] for i in depths]
