"""Control tokens that somebody writes into a question: they stay plain text."""

from __future__ import annotations

from collections.abc import Iterable


def defuse(text: str, tokens: Iterable[str]) -> str:
    """The text with a space put into every control token, so that a question with "<image>" in it shows no second
    picture.

    Args:
        text: what a user wrote.
        tokens: the model's control tokens, the longest first.
    """
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
