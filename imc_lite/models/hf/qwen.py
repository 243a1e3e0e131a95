"""Qwen-VL's processor without its video half, which needs torchvision; Pillow resizes pictures on every machine."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


class QwenProcessor:
    """Makes a Qwen2.5-VL's or Qwen3-VL's inputs of one text and at most one picture, as `transformers` does."""

    image_token = "<|image_pad|>"

    def __init__(self, image_processor: Qwen2VLImageProcessorPil, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.chat_template = tokenizer.chat_template

    @classmethod
    def from_pretrained(cls, name: str, **source: Any) -> QwenProcessor:
        """From a hub's name or a folder; `source` goes to transformers' own `from_pretrained`."""
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
        """input_ids, attention_mask and mm_token_type_ids int64 [1, T], pixel_values float32 [patches, values] and
        image_grid_thw int64 [1, 3] of one prompt that holds one `image_token`."""
        seen = self.image_processor(images=images, return_tensors="pt")
        count = int(seen["image_grid_thw"][0].prod()) // self.image_processor.merge_size**2
        found = self.tokenizer([text[0].replace(self.image_token, self.image_token * count)], **options)
        pictured = found["input_ids"] == self.tokenizer.convert_tokens_to_ids(self.image_token)
        return {**found, **seen, "mm_token_type_ids": pictured.long()}
