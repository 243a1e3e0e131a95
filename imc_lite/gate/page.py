"""The gate's report: one HTML file that needs nothing beside it and holds no picture."""

from __future__ import annotations

from html import escape
from pathlib import Path

from imc_lite import __version__
from imc_lite.bench.html import document, table
from imc_lite.errors import shown
from imc_lite.files import write_atomically
from imc_lite.gate.drift import Drift
from imc_lite.gate.plots import distribution_plot, drift_plot, kinds_plot
from imc_lite.gate.statistics import Distribution
from imc_lite.gate.tally import GRADABLE, MOST_LISTED, Tally, kind_rows, summary_lines
from imc_lite.pipeline import IMC


def page(tally: Tally, imc: IMC, *, ruled: bool, drift: Drift | None = None) -> str:
    """The whole file as text.

    Args:
        tally: what was counted.
        imc: what judged.
        ruled: whether there were rules to meet.
        drift: from a baseline, where there is one.
    """
    matcher = imc.noise_prototypes().matcher
    limits = {"in distribution": matcher.in_distribution_limit, "unknown": matcher.unknown_limit}
    lines = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(tally, ruled))
    sections = [("Verdicts", table(kind_rows(tally)) + lines)]
    if tally.pictures:
        then = drift.then.out_of_distribution_score if drift else None
        sections.append(("Kinds of noise", kinds_plot(tally)))
        sections.append(
            (
                "Like the pictures that the prototypes were fitted to?",
                "<p class=note>Share of the pictures with at most that out-of-distribution score; beyond the limits "
                "features are left alone, and the verdict is unknown. Below: 5, 50 and 95 % of the pictures.</p>"
                + distribution_plot(Distribution.of(tally.scores), then, limits),
            )
        )
    if drift:
        sections.append(("Since the baseline", _drift(drift)))
    sections.append((_listed_title(tally, ruled), _listed(tally)))
    note = f"By the encoder of {imc.model.id}, version {imc.model.version}; imc-lite {__version__}."
    return document("imc-lite inspect", f"{tally.pictures:,} pictures inspected", note, sections)


def save_page(path: Path, text: str) -> None:
    """Write it, all or nothing.

    Raises:
        ImcError: it cannot be written.
    """
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))


def _drift(drift: Drift) -> str:
    rows = [["", "now", "then", "difference", "95 % interval", "p", "p, Holm", "moved"]]
    for s in drift.shares:
        low, high = s.interval
        sides = [f"{count:,} of {total:,}" for count, total in (s.now, s.then)]
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        rows.append([s.name, *sides, f"{100 * s.difference:+.1f}", interval, f"{s.p:.2g}", f"{s.p_holm:.2g}"])
        rows[-1].append("yes" if s.moved else "")
    for f in drift.shifts:
        sides = ["median " + f"{side[1]:.4g}" for side in (f.now, f.then)]
        rows.append([f.name.replace("_", " "), *sides, f"K-S {f.distance:.2f}", "", f"{f.p:.2g}", f"{f.p_holm:.2g}"])
        rows[-1].append("yes" if f.moved else "")
    note = (
        "<p class=note>Points of a hundred. An interval is for its line alone; p with Holm's correction is for all "
        "lines together, and below 0.05 a line has moved. Pictures are taken to be independent of each other.</p>"
    )
    return note + drift_plot(drift.shares) + table(rows)


def _listed_title(tally: Tally, ruled: bool) -> str:
    title = "Pictures that met a rule or could not be read" if ruled else "Pictures that could not be read"
    return f"{title}: the first {MOST_LISTED:,}" if len(tally.listed) == MOST_LISTED else title


def _listed(tally: Tally) -> str:
    if not tally.listed:
        return "<p>None.</p>"
    rows = [["picture", "rules", "kind", "severity", "probability", "gradable", "why"]]
    for judged, met in tally.listed:
        verdict, why = ["", "", "", ""], judged.error
        if judged.report is not None and (noise := judged.report.noise) is not None:
            verdict = [noise.kind, str(noise.severity), f"{noise.probability:.2f}", GRADABLE[judged.report.gradable]]
            why = judged.report.reason
        rows.append([shown(judged.path, len(judged.path)), ", ".join(map(str, met)), *verdict, why or ""])
    return table(rows)
