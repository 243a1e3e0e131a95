"""How far a run is: a bar with the remaining time on a terminal, one line a condition elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

import click
from tqdm import tqdm


class Progress:
    """Conditions weigh what they are expected to cost, so that the remaining time means something. Several may be
    judged at once, in a thread each."""

    def __init__(self, costs: list[tuple[str, float]]) -> None:
        """Names and expected costs of the conditions, in any unit."""
        self.costs, self.total = dict(costs), sum(cost for _, cost in costs)
        self.done = self.taken_up = 0.0
        self.finished: set[str] = set()
        self.began = time.monotonic()
        self.running: dict[str, float] = {}  # which share of each condition that is being judged is done
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left"
        self.bar = tqdm(total=self.total, bar_format=layout, file=sys.stderr, disable=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def begin(self, name: str) -> None:
        """A condition is being judged."""
        with self._lock:
            self.running[name] = 0.0
            self._show()

    def step(self, name: str, count: float, of: float) -> None:
        """So many of so many parts of a condition that is being judged are done."""
        with self._lock:
            self.running[name] = count / of
            self._show()

    def end(self, name: str) -> None:
        """A condition is judged, or was before."""
        with self._lock:
            judged = self.running.pop(name, None) is not None
            self.finished.add(name)
            self.done += self.costs[name]
            if not judged:  # taken up from an earlier run: says nothing about speed
                self.taken_up += self.costs[name]
                self.bar.initial = self.taken_up
            self._show()
            if self.bar.disable and judged:
                spent = time.monotonic() - self.began
                left = spent * (self.total - self.done) / max(self.done - self.taken_up, 1e-9)
                where = f"{len(self.finished)} of {len(self.costs)} conditions"
                click.echo(f"imc-lite: {name} done, {where}, about {max(1, round(left / 60))} min left", err=True)

    def _show(self) -> None:
        self.bar.set_description_str(", ".join(self.running), refresh=False)
        self.bar.n = self.done + sum(self.costs[name] * share for name, share in self.running.items())
        self.bar.update(0)
