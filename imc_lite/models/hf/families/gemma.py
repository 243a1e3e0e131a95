"""Gemma3, and MedGemma, which is a Gemma3."""

from __future__ import annotations

from typing import Any

from imc_lite.models.hf.families.base import Family


class Gemma(Family):
    """Its processor puts a picture's tokens where a prompt holds the token that begins a picture."""

    def image_token(self, processor: Any) -> str:
        return processor.boi_token


FAMILIES = {
    "gemma3": Gemma(
        "Gemma3 (MedGemma)",
        tower="model.vision_tower",
        projectors=("model.multi_modal_projector",),
        prompt="<start_of_turn>user\n{image}{question}<end_of_turn>\n<start_of_turn>model\n",
        options={"do_pan_and_scan": False},
        bidirectional=True,
    )
}
