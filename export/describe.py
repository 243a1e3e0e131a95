"""What a bundle's config.json says of a Hugging Face model: its pictures, its prompts, its language model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from imc_lite.export.trace import Recorded

from imc_lite.errors import ImcError
from imc_lite.models.hf.model import HfMLLM
from imc_lite.models.hf.prompt import control_tokens

SENTINEL = "imc asks here"


def describe(mllm: HfMLLM, recorded: Recorded, image: np.ndarray) -> dict[str, Any]:
    """config.json's content.

    Raises:
        ImcError: the processor, the chat template or the language model does something that a bundle cannot say.
    """
    text = mllm.model.config.get_text_config()
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ["full_attention"]))
    if set(kinds) - {"full_attention", "sliding_attention"}:
        raise ImcError(f"the language model of {mllm.id} has layers of type {kinds}; it cannot be exported")
    grid, span = _grid(mllm, image)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return {
        "picture": picture(mllm, recorded),
        "prompts": {"picture": _prompt(mllm, image), "text": _prompt(mllm, None)},
        "control": control_tokens(mllm.processor),
        "ends": mllm.ends,
        "image": {"token": _image_token_id(mllm), "places": grid, "span": span},
        "decoder": {
            "layers": text.num_hidden_layers,
            "kv_heads": text.num_key_value_heads,
            "head_dim": head,
            "hidden": text.hidden_size,
            "positions": _reach(text, kinds),
            "masks": kinds if len(kinds) > 1 else ["full_attention"],
            "window": text.sliding_window if "sliding_attention" in kinds else None,
            "bidirectional": mllm.model.config.model_type == "gemma3",
            "axes": 1 if grid is None else 3,
            "deepstack": len(mllm.projectors) - 1,
        },
    }


def _reach(text: Any, kinds: list[str]) -> int:
    """Positions that may be used: no more than a window that all layers share, so that it never matters."""
    window = getattr(text, "sliding_window", None) if kinds == ["full_attention"] else None
    return min(text.max_position_embeddings, window or text.max_position_embeddings)


def picture(mllm: HfMLLM, recorded: Recorded) -> dict[str, Any]:
    """The processor's steps as `imc_lite.models.exported.picture_steps.prepare` takes them."""
    processor, kind = mllm.processor.image_processor, mllm.model.config.model_type
    spec: dict[str, Any] = {
        "pad": mllm.family.side,
        "resample": int(processor.resample),
        "scale": float(processor.rescale_factor),
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "patches": None,
    }
    if kind.startswith("qwen"):
        size, merge = processor.patch_size, processor.merge_size
        _, rows, columns = recorded.given["image_grid_thw"][0].tolist()
        spec["patches"] = {"size": size, "merge": merge, "repeat": processor.temporal_patch_size}
        return spec | {"views": [[["exact", rows * size, columns * size]]]}
    height, width = recorded.pixels.shape[-2:]
    if kind in ("smolvlm", "idefics3"):
        return spec | {"views": [[["longest", processor.size["longest_edge"]], ["exact", height, width]]]}
    if kind == "llava_next":
        return spec | {"views": _tiles(len(recorded.pixels), height, width)}
    if kind == "llava" and "shortest_edge" in processor.size:
        return spec | {"views": [[["shortest", processor.size["shortest_edge"]], ["crop", height, width]]]}
    return spec | {"views": [[["exact", height, width]]]}


def _tiles(views: int, height: int, width: int) -> list[list[list[Any]]]:
    """The whole of a square picture and its parts, row by row."""
    across = round((views - 1) ** 0.5)
    whole = ["exact", across * height, across * width]
    boxes = [["box", r * height, c * width, height, width] for r in range(across) for c in range(across)]
    return [[["exact", height, width]], *([whole, box] for box in boxes)]


class _Listener:
    """A tokenizer that remembers what it was given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.heard = tokenizer, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, text: list[str], **options: Any) -> Any:
        self.heard, self.special = text[0], bool(options["add_special_tokens"])
        return self.tokenizer(text, **options)


def _prompt(mllm: HfMLLM, image: np.ndarray | None) -> dict[str, Any]:
    """What stands before and after a question, the picture's tokens written out."""
    processor, listener = mllm.processor, _Listener(mllm.processor.tokenizer)
    processor.tokenizer = listener
    try:
        mllm._inputs(SENTINEL, image)
    finally:
        processor.tokenizer = listener.tokenizer
    parts = listener.heard.split(SENTINEL)
    if len(parts) != 2:
        raise ImcError(f"the chat template of {mllm.id} does not hold the question once; it cannot be exported")
    return {"before": parts[0], "after": parts[1], "special": listener.special}


def _image_token_id(mllm: HfMLLM) -> int:
    config = mllm.model.config
    found = getattr(config, "image_token_id", None)
    return int(config.image_token_index if found is None else found)


def _grid(mllm: HfMLLM, image: np.ndarray) -> tuple[list[list[int]] | None, int | None]:
    """Rotary positions of a picture's tokens on Qwen's three axes, counted from the first, and how far they reach."""
    if not hasattr(mllm.model.model, "get_rope_index"):
        return None, None
    inputs = mllm._inputs(SENTINEL, image)
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    places, _ = mllm.model.model.get_rope_index(**{name: inputs[name] for name in names})
    shown = torch.nonzero(inputs["input_ids"][0] == _image_token_id(mllm))[:, 0]
    begin, end = int(shown[0]), int(shown[-1]) + 1
    first = int(places[0, 0, begin - 1]) + 1
    return (places[:, 0, begin:end] - first).tolist(), int(places[0, 0, end]) - first
