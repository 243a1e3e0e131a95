"""SmolVLM and Idefics3."""

from __future__ import annotations

from typing import Any

from imc_lite.models.hf.families.base import Family, Step


class Idefics(Family):
    """Its pictures are resized so that the longer side fits, then made square."""

    def views(self, image_processor: Any, pixels: tuple[int, ...]) -> list[list[Step]]:
        return [[["longest", image_processor.size["longest_edge"]], ["exact", *pixels[-2:]]]]


def _family(name: str) -> Family:
    return Idefics(
        name,
        tower="model.vision_model",
        projectors=("model.connector",),
        prompt="<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:",
        language="model.text_model",
        # Its tiles would be further passes, and noise is read from the whole picture.
        options={"do_image_splitting": False},
    )


FAMILIES = {"smolvlm": _family("SmolVLM"), "idefics3": _family("Idefics3")}
