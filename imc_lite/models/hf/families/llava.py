"""LLaVA and LLaVA-Next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imc_lite.models.hf.families.base import Family, Step

if TYPE_CHECKING:
    import torch


class Llava(Family):
    """Its pictures are resized so that the shorter side fits, and cropped, where the processor says so."""

    def views(self, image_processor: Any, pixels: tuple[int, ...]) -> list[list[Step]]:
        if "shortest_edge" not in image_processor.size:
            return super().views(image_processor, pixels)
        return [[["shortest", image_processor.size["shortest_edge"]], ["crop", *pixels[-2:]]]]

    def embedded(self, seen: Any, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return seen.pooler_output[0][None].cpu()


class LlavaNext(Llava):
    """The whole of a square picture and its parts, row by row."""

    def views(self, image_processor: Any, pixels: tuple[int, ...]) -> list[list[Step]]:
        count, _, height, width = pixels
        across = round((count - 1) ** 0.5)
        whole = ["exact", across * height, across * width]
        boxes = [["box", r * height, c * width, height, width] for r in range(across) for c in range(across)]
        return [[["exact", height, width]], *([whole, box] for box in boxes)]


TOWER, PROJECTORS = "model.vision_tower", ("model.multi_modal_projector",)
FAMILIES = {
    "llava": Llava("LLaVA", TOWER, PROJECTORS, prompt="USER: {image}\n{question} ASSISTANT:"),
    # Five views, the whole and its quarters, as every square picture of that size has them.
    "llava_next": LlavaNext("LLaVA-Next", TOWER, PROJECTORS, prompt="[INST] {image}\n{question} [/INST]", side=672),
}
