"""Cells of the tables in Markdown."""

from __future__ import annotations

from typing import Any


def percent(value: float) -> str:
    """37.5 for 0.375."""
    return f"{100 * value:.1f}"


def accuracy(cell: dict[str, Any] | None) -> str:
    """An accuracy with its interval, in per cent; a dash where nothing was asked."""
    if cell is None:
        return "–"
    low, high = cell["95ci"]
    return f"{percent(cell['accuracy'])} ({percent(low)}–{percent(high)})"


def name(kind: str) -> str:
    """motion blur for motion_blur."""
    return kind.replace("_", " ")
