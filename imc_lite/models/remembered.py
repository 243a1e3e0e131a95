"""Answers without a picture that were asked for before: the same questions come about one picture after another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from imc_lite.models.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from imc_lite.models.base import TextOnly

MOST = 1024  # a question and an answer each, and a number for every token of it

Asked = TypeVar("Asked", bound=Callable[..., "TextOnly"])
_lock = threading.Lock()


def remembered(text_only: Asked) -> Asked:
    """`text_only` of a model that does not ask the same again: without a picture the outcome is always the same.

    The last outcomes are kept on the model, in memory alone; the oldest goes first. Several threads may ask at once.
    """

    @wraps(text_only)
    def ask(self: Any, prompt: str, answer: str, deadline: Deadline = NEVER) -> TextOnly:
        with _lock:
            kept: OrderedDict[tuple[str, str], TextOnly] = self.__dict__.setdefault("_text_only", OrderedDict())
            found = kept.get((prompt, answer))
        if found is not None:
            return found
        found = text_only(self, prompt, answer, deadline)
        with _lock:
            kept[prompt, answer] = found
            while len(kept) > MOST:
                kept.popitem(last=False)
        return found

    return ask  # type: ignore[return-value]
