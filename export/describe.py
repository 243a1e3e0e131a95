"""What a bundle's config.json says of a Hugging Face model: its pictures, its prompts, its language model."""

from __future__ import annotations

from typing import Any

import numpy as np
from imc_lite.export.trace import Recorded

from imc_lite.errors import ImcError
from imc_lite.models.hf.model import HfMLLM

SENTINEL = "imc asks here"


def describe(mllm: HfMLLM, recorded: Recorded, image: np.ndarray) -> dict[str, Any]:
    """The content of config.json.

    Args:
        mllm: the model.
        recorded: a pass of its tower over `image`.
        image: any picture, uint8 [H, W, 3]; it leaves no trace.

    Raises:
        ImcError: the processor, the chat template or the language model does something that a bundle cannot say.
    """
    text = mllm.model.config.get_text_config()
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ["full_attention"]))
    if set(kinds) - {"full_attention", "sliding_attention"}:
        raise ImcError(f"the language model of {mllm.id} has layers of type {kinds}; it cannot be exported")
    grid, span = mllm.family.picture_positions(mllm.model, mllm.inputs(SENTINEL, image))
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return {
        "picture": mllm.family.picture_spec(mllm.processor, tuple(recorded.pixels.shape), recorded.given),
        "prompts": {"picture": _prompt(mllm, image), "text": _prompt(mllm, None)},
        "control": mllm.family.control_tokens(mllm.processor),
        "ends": mllm.ends,
        "image": {"token": int(mllm.model.config.image_token_id), "places": grid, "span": span},
        "decoder": {
            "layers": text.num_hidden_layers,
            "kv_heads": text.num_key_value_heads,
            "head_dim": head,
            "hidden": text.hidden_size,
            "positions": _reach(text, kinds),
            "masks": kinds,
            "window": text.sliding_window if "sliding_attention" in kinds else None,
            "bidirectional": mllm.family.bidirectional,
            "axes": 1 if grid is None else len(grid),
            "deepstack": len(mllm.projectors) - 1,
        },
    }


def _reach(text: Any, kinds: list[str]) -> int:
    """How many positions may be used. Where all layers have one sliding window, no more than that: it then never cuts
    anything off, and the graph needs no mask for it."""
    window = getattr(text, "sliding_window", None) if kinds == ["full_attention"] else None
    return min(text.max_position_embeddings, window or text.max_position_embeddings)


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
        mllm.inputs(SENTINEL, image)
    finally:
        processor.tokenizer = listener.tokenizer
    parts = listener.heard.split(SENTINEL)
    if len(parts) != 2:
        raise ImcError(f"the chat template of {mllm.id} does not hold the question once; it cannot be exported")
    return {"before": parts[0], "after": parts[1], "special": listener.special}
