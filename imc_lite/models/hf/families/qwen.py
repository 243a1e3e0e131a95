"""Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imc_lite.models.hf.families.base import Family

if TYPE_CHECKING:
    import torch
    from PIL import Image


class Qwen(Family):
    """Its tower takes patches, not pixels, and its language model counts a picture's rows and columns as positions."""

    def load_processor(self, name: str, **source: Any) -> QwenProcessor:
        return QwenProcessor.from_pretrained(name, **source)

    def embedded(self, seen: Any, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        # What goes to deeper layers stands behind what goes to the first.
        parts = [seen.pooler_output[0], *(part[0] for part in getattr(seen, "deepstack_features", None) or ())]
        return {"image_embeds": torch.cat(parts, 1).cpu(), "image_grid_thw": given["image_grid_thw"].cpu()}

    def position_shift(self, model: Any) -> int:
        # A picture's rows and columns are counted, not its tokens; the model keeps the difference from call to call.
        return int(model.model.rope_deltas)

    def picture_positions(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[list[list[int]], int]:
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        places, _ = model.model.get_rope_index(**{name: inputs[name] for name in names})
        shown = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
        begin, end = int(shown[0]), int(shown[-1]) + 1
        first = int(places[0, 0, begin - 1]) + 1
        return (places[:, 0, begin:end] - first).tolist(), int(places[0, 0, end]) - first

    def picture_spec(
        self, processor: Any, pixels: tuple[int, ...], given: Mapping[str, torch.Tensor]
    ) -> dict[str, Any]:
        steps = processor.image_processor
        size, merge = steps.patch_size, steps.merge_size
        _, rows, columns = given["image_grid_thw"][0].tolist()
        return super().picture_spec(processor, pixels, given) | {
            "views": [[["exact", rows * size, columns * size]]],
            "patches": {"size": size, "merge": merge, "repeat": steps.temporal_patch_size},
        }


class QwenProcessor:
    """Makes the model's inputs of one text and at most one picture, as transformers' own processor does.

    That one has a half for videos, which needs torchvision; this one resizes pictures with Pillow on every machine.
    """

    image_token = "<|image_pad|>"

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        """`image_processor` is a `Qwen2VLImageProcessorPil` of transformers."""
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.chat_template = tokenizer.chat_template

    @classmethod
    def from_pretrained(cls, name: str, **source: Any) -> QwenProcessor:
        """From a hub's name or a folder; `source` goes to transformers' own `from_pretrained`."""
        from transformers import AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        tokenizer = AutoTokenizer.from_pretrained(name, **source)
        return cls(Qwen2VLImageProcessorPil.from_pretrained(name, **source), tokenizer)

    def save_pretrained(self, folder: str) -> None:
        """Write what `from_pretrained` reads."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """The prompt as text, the picture as one `image_token`."""
        return self.tokenizer.apply_chat_template(messages, **options)

    def __call__(self, text: list[str], images: list[Image.Image], **options: Any) -> dict[str, torch.Tensor]:
        """Inputs of one prompt that holds one `image_token`.

        Returns:
            input_ids, attention_mask and mm_token_type_ids int64 [1, T]; pixel_values float32 [patches, values];
            image_grid_thw int64 [1, 3].
        """
        seen = self.image_processor(images=images, return_tensors="pt")
        count = int(seen["image_grid_thw"][0].prod()) // self.image_processor.merge_size**2
        found = self.tokenizer([text[0].replace(self.image_token, self.image_token * count)], **options)
        pictured = found["input_ids"] == self.tokenizer.convert_tokens_to_ids(self.image_token)
        return {**found, **seen, "mm_token_type_ids": pictured.long()}


def _family(name: str, *projectors: str) -> Family:
    return Qwen(
        name,
        tower="model.visual",
        projectors=projectors,
        prompt="<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
        # A multiple of both patch sizes, 14 and 16, merged by two: 256 or 196 tokens for the language model.
        side=448,
    )


FAMILIES = {
    "qwen2_5_vl": _family("Qwen2.5-VL", "model.visual.merger"),
    # What its deepstack mergers take goes to deeper layers of the language model.
    "qwen3_vl": _family("Qwen3-VL", "model.visual.merger", "model.visual.deepstack_merger_list"),
}
