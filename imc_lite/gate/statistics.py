"""Two samples compared: proportions, distributions, and many such questions at once. Plain Python and numpy.

The intervals of one comparison are 95 % each; which comparisons count as moved is decided by p-values with Holm's
correction, so that one in twenty sets of equal samples is called different, however many questions are asked.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # normal quantile of 0.975
POINTS = 200  # values of a distribution that are kept
TIE = 1 + 1e-7  # tables this near in probability count as equally likely (as in R's fisher.test)


def wilson(count: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, JASA 22:209, 1927); of nothing, 0 to 1."""
    if not total:
        return 0.0, 1.0
    share, square = count / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total * total)) / (1 + square / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe(count: int, total: int, count2: int, total2: int, z: float = Z95) -> tuple[float, float]:
    """Interval of count/total - count2/total2 (Newcombe, Statistics in Medicine 17:873, 1998, method 10)."""
    (low, high), (low2, high2) = wilson(count, total, z), wilson(count2, total2, z)
    share, share2 = count / total, count2 / total2
    apart = share - share2
    return apart - math.hypot(share - low, high2 - share2), apart + math.hypot(high - share, share2 - low2)


def fisher(count: int, total: int, count2: int, total2: int) -> float:
    """Two-sided p-value of equal proportions: Fisher's exact test, tables no likelier than the one seen."""
    hits, everything = count + count2, total + total2
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, everything + 1)))))  # of factorials
    first = np.arange(max(0, hits - total2), min(hits, total) + 1)
    second = hits - first
    chances = logs[total] - logs[first] - logs[total - first] + logs[total2] - logs[second] - logs[total2 - second]
    chances = np.exp(chances - (logs[everything] - logs[hits] - logs[everything - hits]))
    return min(1.0, float(chances[chances <= chances[count - first[0]] * TIE].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for asking all at once (Holm, Scandinavian Journal of Statistics 6:65, 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Distribution:
    """What is kept of a sample: up to 200 of its values, evenly spaced by rank, the least and the greatest among them.

    Attributes:
        total: size of the sample.
        values: ascending, each once.
        below: how many of the sample are smaller than each value.
        at_most: how many are not greater.
    """

    total: int
    values: tuple[float, ...]
    below: tuple[int, ...]
    at_most: tuple[int, ...]

    @classmethod
    def of(cls, sample: Sequence[float]) -> Distribution:
        """Of a sample that is not empty, rounded to four significant digits; what is no number is the greatest."""
        finite = np.nan_to_num(np.asarray(sample, np.float64), nan=3e38, posinf=3e38, neginf=-3e38)
        values, counts = np.unique([float(f"{value:.4g}") for value in finite], return_counts=True)
        if len(values) > POINTS:
            ranks = np.linspace(1, len(finite), POINTS)
            kept = np.unique(np.searchsorted(np.cumsum(counts), ranks))
        else:
            kept = np.arange(len(values))
        at_most = np.cumsum(counts)
        return cls(
            len(finite),
            tuple(values[kept].tolist()),
            tuple((at_most - counts)[kept].tolist()),
            tuple(at_most[kept].tolist()),
        )

    def shares_at(self, value: float) -> tuple[float, float]:
        """Between which two the share of the sample lies that is at most `value`; the same where that is known."""
        i = bisect_right(self.values, value)
        low = self.at_most[i - 1] if i else 0
        if (i and self.values[i - 1] == value) or i == len(self.values):
            return low / self.total, low / self.total
        return low / self.total, self.below[i] / self.total

    def quantile(self, share: float) -> float:
        """The least value kept that so large a share of the sample does not exceed."""
        return next(v for v, n in zip(self.values, self.at_most, strict=True) if n >= share * self.total)


def kolmogorov_smirnov(first: Distribution, second: Distribution) -> tuple[float, float]:
    """Distance of two distributions, and the p-value of their being one (two-sample Kolmogorov-Smirnov).

    Where values were left out, the least distance is taken that agrees with those that were kept: it is at most
    1 / 200 too small for either sample, and never too large. The p-value is that of the limiting distribution with
    Stephens's correction (JRSS B 32:115, 1970), near enough from samples of about ten on.
    """
    distance = 0.0
    for value in {*first.values, *second.values}:
        (low, high), (low2, high2) = first.shares_at(value), second.shares_at(value)
        distance = max(distance, low - high2, low2 - high)
    root = math.sqrt(first.total * second.total / (first.total + second.total))
    return distance, kolmogorov((root + 0.12 + 0.11 / root) * distance)


def kolmogorov(x: float) -> float:
    """Chance that Kolmogorov's distribution exceeds `x`."""
    if x < 0.2:
        return 1.0  # short of 1 by less than 1e-12, where the series converges slowly
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))))
