"""The base model's tokenizer, from its GGUF to tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_tokenizer(reader: Any, path: Path) -> dict[str, list[int]]:
    """Write tokenizer.json; return the ids of the prompt's fixed parts.

    Control tokens are left out of the text side on purpose: "<|im_end|>" inside a question is then
    plain text, and no question can end its own turn.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    merges = [tuple(m.split(" ")) for m in reader.get_field("tokenizer.ggml.merges").contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path), pretty=False)
    start, end = tokens.index("<|im_start|>"), tokens.index("<|im_end|>")

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text).ids

    return {
        "prefix": [start, *ids("user\n")],
        "turn": [end, *ids("\n"), start, *ids("assistant\n")],
        "end": [end],
    }
