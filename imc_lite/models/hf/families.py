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
        tower, projector: below the model; the projector's first argument is what `Perception.tokens` holds.
        blocks: below the tower, its list of transformer blocks; the first path that is there.
        options: of the processor's call, so that one picture is one pass of the tower.
        prompt: how a question is put when the checkpoint brings no chat template; {image} becomes the processor's
            image token or nothing.
    """

    name: str
    tower: str
    projector: str
    prompt: str
    options: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ("encoder.layers", "vision_model.encoder.layers")


_IDEFICS = {
    "tower": "model.vision_model",
    "projector": "model.connector",
    "prompt": "<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:",
    # Its tiles would be further passes, and noise is read from the whole picture.
    "options": {"do_image_splitting": False},
}
_LLAVA = {"tower": "model.vision_tower", "projector": "model.multi_modal_projector"}

FAMILIES = {
    "smolvlm": Family("SmolVLM", **_IDEFICS),
    "idefics3": Family("Idefics3", **_IDEFICS),
    "llava": Family("LLaVA", **_LLAVA, prompt="USER: {image}\n{question} ASSISTANT:"),
    "gemma3": Family(
        "Gemma3 (MedGemma)",
        **_LLAVA,
        prompt="<start_of_turn>user\n{image}{question}<end_of_turn>\n<start_of_turn>model\n",
        options={"do_pan_and_scan": False},
    ),
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


def early_blocks(tower: nn.Module, family: Family) -> list[nn.Module]:
    """The blocks whose inputs are the early hidden states: the embeddings and three states of the first third.

    Raises:
        ImcError: the tower is built otherwise, or has too few blocks.
    """
    found = (find(tower, path) for path in family.blocks)
    blocks = next((b for b in found if isinstance(b, nn.ModuleList)), None)
    if blocks is None or len(blocks) < EARLY:
        raise ImcError(f"the vision tower {type(tower).__name__} of this {family.name} model is not supported")
    depths = [0, 1]
    for share in (6, 3):
        depths.append(max(depths[-1] + 1, len(blocks) // share))
    return [blocks[i] for i in depths]
