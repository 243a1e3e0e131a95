"""Control tokens in questions."""

from __future__ import annotations

from collections.abc import Iterable


def defuse(text: str, tokens: Iterable[str]) -> str:
    """Text whose control tokens are plain words: a question that holds "<image>" shows no second picture.

    Args:
        text: of a user.
        tokens: the model's control tokens, the longest first.
    """
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
