"""One finding of `imc-lite doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """What was looked at and found.

    Attributes:
        name: what was looked at; stable, for programs.
        state: "problem" where something does not work, "warning" where something is slow, missing or unknown that
            not everybody needs.
        detail: what was found, in one line without a path, a name or a value of whoever owns the machine.
        remedy: what to do; "" where nothing is to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name, "ok", detail)


def warning(name: str, detail: str, remedy: str = "") -> Check:
    return Check(name, "warning", detail, remedy)


def problem(name: str, detail: str, remedy: str) -> Check:
    return Check(name, "problem", detail, remedy)
