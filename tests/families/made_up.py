"""A family that does not exist, as its module would stand in `imc_lite/models/hf/families/`: the whole of what is
written for a new one. Its model is in `tests/test_hf_family.py`."""

from __future__ import annotations

from typing import Any

from imc_lite.models.hf.families.base import Family, Step


class MadeUp(Family):
    """Reads its processor itself, and its pictures are cropped after they are stretched."""

    def load_processor(self, name: str, **source: Any) -> Any:
        from transformers import LlavaProcessor

        return LlavaProcessor.from_pretrained(name, **source)

    def views(self, image_processor: Any, pixels: tuple[int, ...]) -> list[list[Step]]:
        stretched = image_processor.size
        return [[["exact", stretched["height"], stretched["width"]], ["crop", *pixels[-2:]]]]


FAMILIES = {
    "made_up": MadeUp(
        "MadeUp-VL",
        tower="model.vision_tower",
        projectors=("model.multi_modal_projector",),
        prompt="{image} Q: {question} A:",
        side=80,
    )
}
