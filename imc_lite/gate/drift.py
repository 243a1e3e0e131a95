"""Has what comes in changed? Pictures of now beside a baseline: shares of verdicts, distributions of their figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from imc_lite.files import write_atomically
from imc_lite.gate.baseline import Baseline
from imc_lite.gate.statistics import Distribution, fisher, holm, kolmogorov_smirnov, newcombe
from imc_lite.gate.tally import KINDS

ALPHA = 0.05  # of all comparisons together
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Share:
    """The share of one verdict, now and then.

    Attributes:
        name: a kind of noise, `clean`, `unknown`, `not gradable`, `left alone` or `unreadable`.
        now, then: how many, of how many.
        difference: of the shares, now minus then.
        interval: 95 % of it (Newcombe).
        p: of equal shares (Fisher); `p_holm`: for all comparisons together; `moved`: whether that is below 0.05.
    """

    name: str
    now: tuple[int, int]
    then: tuple[int, int]
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    moved: bool


@dataclass(frozen=True)
class Shift:
    """A figure's distribution, now and then.

    Attributes:
        name: `out_of_distribution_score` or `probability`.
        now, then: 5 %, 50 % and 95 % quantiles.
        distance: of Kolmogorov and Smirnov; `p`, `p_holm` and `moved` as in `Share`.
    """

    name: str
    now: tuple[float, ...]
    then: tuple[float, ...]
    distance: float
    p: float
    p_holm: float
    moved: bool


@dataclass(frozen=True)
class Drift:
    """All comparisons of pictures of now with those of then."""

    now: Baseline
    then: Baseline
    shares: tuple[Share, ...]
    shifts: tuple[Shift, ...]

    @property
    def moved(self) -> bool:
        """Whether anything did."""
        return any(share.moved for share in self.shares) or any(shift.moved for shift in self.shifts)

    def lines(self) -> Iterator[str]:
        """A line for everything that moved."""
        for share in self.shares:
            if share.moved:
                (count, total), (before, total_before) = share.now, share.then
                low, high = (100 * end for end in share.interval)
                yield (
                    f"{share.name} {count / total:.1%} of {total:,}, was {before / total_before:.1%} of "
                    f"{total_before:,}: {100 * share.difference:+.1f} points (95 % {low:+.1f} to {high:+.1f}), "
                    f"p {_p(share.p_holm)}"
                )
        for shift in self.shifts:
            if shift.moved:
                name = shift.name.replace("_", " ")
                yield (
                    f"{name} has median {shift.now[1]:.4g}, was {shift.then[1]:.4g}: distance "
                    f"{shift.distance:.2f}, p {_p(shift.p_holm)}"
                )

    def save(self, path: Path) -> None:
        """Write all of it as JSON, all or nothing; docs/gate.md has the fields.

        Raises:
            ImcError: it cannot be written.
        """
        rows = {"moved": self.moved, "shares": self.shares, "shifts": self.shifts}
        report = {**rows, "shares": [asdict(s) for s in self.shares], "shifts": [asdict(s) for s in self.shifts]}
        for name, side in (("now", self.now), ("then", self.then)):
            report[name] = {k: v for k, v in asdict(side).items() if k not in {s.name for s in self.shifts}}
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))


def compare(now: Baseline, then: Baseline) -> Drift:
    """Every kind of verdict that was seen on either side, and both distributions, with Holm's correction for all."""
    counts = {kind: ((now.count(kind), now.pictures), (then.count(kind), then.pictures)) for kind in KINDS}
    for word in ("not gradable", "left alone"):
        counts[word] = ((now.gradable[word], now.pictures), (then.gradable[word], then.pictures))
    files = now.pictures + now.unreadable, then.pictures + then.unreadable
    counts["unreadable"] = ((now.unreadable, files[0]), (then.unreadable, files[1]))
    # What was never seen cannot have moved, and asking about it would make all others harder to show.
    asked = {name: sides for name, sides in counts.items() if sides[0][0] or sides[1][0]}
    figures: dict[str, tuple[Distribution, Distribution]] = {
        "out_of_distribution_score": (now.out_of_distribution_score, then.out_of_distribution_score),
        "probability": (now.probability, then.probability),
    }
    distances = [kolmogorov_smirnov(*sides) for sides in figures.values()]
    p_values = [fisher(*a, *b) for a, b in asked.values()] + [p for _, p in distances]
    adjusted = holm(p_values)
    shares = tuple(
        Share(name, a, b, a[0] / a[1] - b[0] / b[1], newcombe(*a, *b), p, p_holm, p_holm < ALPHA)
        for (name, (a, b)), p, p_holm in zip(asked.items(), p_values, adjusted, strict=False)
    )
    shifts = tuple(
        Shift(name, _quantiles(a), _quantiles(b), distance, p, p_holm, p_holm < ALPHA)
        for (name, (a, b)), (distance, p), p_holm in zip(
            figures.items(), distances, adjusted[len(asked) :], strict=True
        )
    )
    return Drift(now, then, shares, shifts)


def _quantiles(distribution: Distribution) -> tuple[float, ...]:
    return tuple(map(distribution.quantile, QUANTILES))


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
