"""What an upstream's chat completion says, or a chunk of one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

NO_COMPLETION = "the upstream's reply is no chat completion; check its URL"
MOST_TOKENS = 1 << 31  # no answer has as many; who says so counts something else
Row = dict[str, Any]


@dataclass
class Told:
    """What has been read of an answer; `take` each object that says something of it.

    Attributes:
        id, model: as the other server has them.
        text: of the first choice, None where it has none, as when it calls a tool.
        tokens: of the answer, as far as they were counted.
    """

    id: str | None = None
    model: str | None = None
    text: str | None = None
    tokens: int = 0
    _ended: set[Any] = field(default_factory=set)

    def take(self, said: Row) -> None:
        """Read a whole reply, or a chunk of a stream. It may have any shape."""
        for name in ("id", "model"):
            if isinstance(said.get(name), str):
                setattr(self, name, said[name])
        usage = said.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(tokens, int) and 0 <= tokens < MOST_TOKENS:
            self.tokens = tokens
        choices = said.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            part = choice.get("message") or choice.get("delta")
            if index in (0, None) and isinstance(part, dict) and isinstance(part.get("content"), str):
                self.text = (self.text or "") + part["content"]
            # Some write "" where nothing has ended yet.
            if choice.get("finish_reason") and isinstance(index, int | None):
                self._ended.add(index)

    def ended(self, choices: int) -> bool:
        """Whether so many answers have come to their end."""
        return len(self._ended) >= choices


def error_message(said: Row | None) -> str:
    """The text of an error in the shapes that servers give it, "" where there is none."""
    said = said or {}
    found: Any = said.get("error") or said.get("message") or said.get("detail")
    if isinstance(found, dict):
        found = found.get("message")
    return found.rstrip(". \n") if isinstance(found, str) else ""


def read_object(data: bytes) -> Row | None:
    """The JSON object that `data` holds, None where it holds something else."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
