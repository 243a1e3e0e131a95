"""Outcomes that were asked for before: the same questions come about one picture after another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imc_lite.models.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from imc_lite.models.base import TextOnly

MOST = 1024  # a question and an answer each, and a number for every token of it

Asked = TypeVar("Asked", bound=Callable[..., "TextOnly"])
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """The last outcomes of what always gives the same, in memory alone; the least recently used goes first.

    Several threads may use it at once.
    """

    def __init__(self, most: int = MOST) -> None:
        """Nothing is kept yet, and never more than `most`."""
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, find: Callable[[], Value]) -> Value:
        """What `find` gives, or gave before; what it raises is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Not under the lock: others need not wait for a model.
        found = find()
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found


_making = threading.Lock()


def remembered(text_only: Asked) -> Asked:
    """`text_only` of a model that does not ask the same again: without a picture the outcome is always the same."""

    @wraps(text_only)
    def ask(self: Any, prompt: str, answer: str, deadline: Deadline = NEVER) -> TextOnly:
        with _making:
            kept: Remembered[tuple[str, str], TextOnly] = self.__dict__.setdefault("_text_only", Remembered())
        return kept.get((prompt, answer), lambda: text_only(self, prompt, answer, deadline))

    return ask  # type: ignore[return-value]
