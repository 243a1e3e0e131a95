"""What is counted over many verdicts, in memory that does not grow with pictures but by their two figures."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from imc_lite.gate.judge import Judged
from imc_lite.gate.rules import NOISES, SEVERITIES, Rule

KINDS = ("clean", *NOISES, "unknown")  # what a verdict may name, in the order of tables
GRADABLE = {True: "gradable", False: "not gradable", None: "left alone"}
NO_PICTURE = "DICOM without a picture"
MOST_LISTED = 1000


@dataclass
class Tally:
    """Counts of verdicts.

    Attributes:
        kinds: pictures by kind, then severity.
        gradable: pictures by the words of `GRADABLE`.
        unreadable: candidates with an error.
        passed_over: files that are no pictures, by suffix.
        rules: pictures that met a rule, by its words; `failed`: those that met any.
        scores, probabilities: of each picture, in order.
        listed: the first thousand pictures that met a rule or could not be read, with the rules.
    """

    kinds: dict[str, Counter[int]] = field(default_factory=dict)
    gradable: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    scores: array[float] = field(default_factory=lambda: array("d"))
    probabilities: array[float] = field(default_factory=lambda: array("d"))
    listed: list[tuple[Judged, tuple[Rule, ...]]] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """Those with a verdict."""
        return len(self.scores)

    def count(self, kind: str) -> int:
        """Pictures of a kind, whatever the severity."""
        return sum(self.kinds.get(kind, Counter()).values())

    def add(self, judged: Judged, met: Sequence[Rule]) -> None:
        """Count one verdict and the rules that it met."""
        if judged.error is not None:
            self.unreadable += 1
        elif judged.report is None or judged.report.noise is None or judged.score is None:
            self.passed_over[NO_PICTURE] += 1
        else:
            noise = judged.report.noise
            self.kinds.setdefault(noise.kind, Counter())[noise.severity] += 1
            self.gradable[GRADABLE[judged.report.gradable]] += 1
            self.scores.append(judged.score)
            self.probabilities.append(noise.probability)
        self.rules.update(map(str, met))
        self.failed += bool(met)
        if (met or judged.error is not None) and len(self.listed) < MOST_LISTED:
            self.listed.append((judged, tuple(met)))


def kind_rows(tally: Tally) -> list[list[str]]:
    """The table of kinds: a head, then name, pictures, share, and pictures by severity of each kind that was seen."""
    rows = [[f"{tally.pictures:,} picture{'s' if tally.pictures != 1 else ''}", "all", "share", *map(str, SEVERITIES)]]
    for kind in KINDS:
        if all_of := tally.count(kind):
            counts = (tally.kinds[kind][severity] for severity in SEVERITIES)
            share = f"{100 * all_of / tally.pictures:.1f} %"
            rows.append([kind, f"{all_of:,}", share, *(f"{n:,}" if n else "" for n in counts)])
    return rows


def summary_lines(tally: Tally, ruled: bool) -> list[str]:
    """What is said below that table; `ruled`: whether there were rules to meet."""
    lines = [", ".join(f"{word} {tally.gradable[word]:,}" for word in GRADABLE.values())]
    lines[0] += f", unreadable {tally.unreadable:,}"
    if tally.passed_over:
        most = ", ".join(f"{what} {n:,}" for what, n in sorted(tally.passed_over.items(), key=lambda x: (-x[1], x))[:6])
        lines.append(f"passed over as no pictures: {tally.passed_over.total():,} ({most})")
    if ruled:
        which = ", ".join(f"{rule} {n:,}" for rule, n in tally.rules.items())
        lines.append(f"met a rule: {tally.failed:,}" + (f" ({which})" if which else ""))
    return lines


def summary(tally: Tally, ruled: bool) -> str:
    """The table and the lines as text."""
    rows = kind_rows(tally)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
    return "\n".join([*(line.rstrip() for line in table), *summary_lines(tally, ruled)])
