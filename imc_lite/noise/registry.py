"""Kinds of noise: each one is a registered object that holds its levels, its function and its source.

To add a kind, write its function in the file of its role and register it there (`docs/noise.md` shows how).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Generic, Literal, TypeVar

import numpy as np

from imc_lite.errors import ImcError, shown

# Prototypes belong to one version. A changed level, probability or function gives other noise under the same name: it
# needs another version, and prototypes that are fitted to it.
BANK_VERSION = "2"
Role = Literal["bank", "further", "unseen", "out-of-distribution"]
Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True)
class NoiseKind(Generic[Function]):
    """One kind of noise.

    Attributes:
        name: as in verdicts and on the command line.
        role: "bank": prototypes and repairs are built for it, and the benchmark asks under it. "further": as the bank,
            but not in the benchmark. "unseen": for tests only, nothing is built from it.
            "out-of-distribution": an example of what is in no bank, from which the verdict "unknown" is learnt.
        levels: strength at severity 1, 2, …
        measure: what a level measures, with its unit.
        source: where the kind is from.
        differs: what is done otherwise than there.
        function: does it.
    """

    name: str
    role: Role
    levels: tuple[float, ...]
    measure: str
    source: str
    differs: str
    function: Function

    def level(self, severity: int) -> float:
        """The level at a severity, counted from 1.

        Raises:
            ImcError: there is no such severity.
        """
        if isinstance(severity, bool) or not isinstance(severity, Integral) or not 1 <= severity <= len(self.levels):
            raise ImcError(
                f"severity {shown(severity)} is out of range: choose 1 (mild) to {len(self.levels)} (severe)"
            )
        return self.levels[int(severity) - 1]

    def strength(self, level: float) -> float:
        """The severity of a level, between those of the levels that have one: the inverse of `level`, on the scale of
        logarithms, and no less than 1 nor more than the highest."""
        rising = np.argsort(self.levels)
        return float(np.interp(np.log(level), np.log(self.levels)[rising], 1.0 + rising))


def check_seed(seed: int) -> None:
    """Refuse what numpy draws nothing from.

    Raises:
        ImcError: it is no whole number, or below zero.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ImcError(f"seed {shown(seed)} cannot be used: give a whole number from 0 on")


class Registry(Generic[Function]):
    """All kinds of noise that one medium can have, in the order in which they were registered.

    That order decides which prototype stands for which kind: a new kind goes behind the others of its role.
    """

    def __init__(self, medium: str) -> None:
        """Start empty; `medium` is what error messages call it."""
        self.medium = medium
        self._kinds: dict[str, NoiseKind[Function]] = {}

    def register(
        self, name: str, role: Role, *, levels: tuple[float, ...], measure: str, source: str, differs: str = ""
    ) -> Callable[[Function], Function]:
        """A decorator that registers a function as a kind of noise; the arguments are the fields of `NoiseKind`.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._kinds:
            raise ValueError(f"{self.medium} noise {name!r} is registered already")

        def register(function: Function) -> Function:
            self._kinds[name] = NoiseKind(name, role, levels, measure, source, differs, function)
            return function

        return register

    def find(self, name: str) -> NoiseKind[Function]:
        """The kind of that name.

        Raises:
            ImcError: there is none.
        """
        if name not in self._kinds:
            raise ImcError(f"unknown {self.medium} noise {shown(name)!r}: choose one of {', '.join(self._kinds)}")
        return self._kinds[name]

    def kinds(self, role: Role | None = None) -> tuple[NoiseKind[Function], ...]:
        """All kinds, or those of one role."""
        return tuple(kind for kind in self._kinds.values() if role in (None, kind.role))

    def names(self, role: Role | None = None) -> tuple[str, ...]:
        """The names of `kinds`."""
        return tuple(kind.name for kind in self.kinds(role))
