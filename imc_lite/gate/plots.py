"""Plots of the gate's report as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from imc_lite.bench.plots import svg
from imc_lite.gate.drift import Share
from imc_lite.gate.rules import SEVERITIES
from imc_lite.gate.statistics import Distribution
from imc_lite.gate.tally import KINDS, Tally

GREY, MOVED = "#6b7280", "#b91c1c"
SHADES = {0: GREY, 1: "#bfdbfe", 2: "#93c5fd", 3: "#60a5fa", 4: "#2563eb", 5: "#1e3a8a"}
UNKNOWN = "#d97706"
WIDTH, LABEL, RIGHT, ROW = 720, 130, 120, 24
HEIGHT = 220


def kinds_plot(tally: Tally) -> str:
    """A bar a kind, as long as its pictures are many, in parts by severity."""
    kinds = [kind for kind in KINDS if tally.count(kind)]
    most = max(map(tally.count, kinds), default=1)
    out = []
    for i, kind in enumerate(kinds):
        y, x = 4 + ROW * i, float(LABEL)
        out.append(f'<text x="{LABEL - 8}" y="{y + 14}" class="end">{escape(kind)}</text>')
        for severity, count in sorted(tally.kinds[kind].items()):
            width = (WIDTH - LABEL - RIGHT) * count / most
            fill = UNKNOWN if kind == "unknown" else SHADES[severity]
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{fill}"/>')
            x += width
        share = f"{tally.count(kind):,} ({tally.count(kind) / tally.pictures:.1%})"
        out.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{share}</text>')
    bottom = 4 + ROW * len(kinds)
    for severity in SEVERITIES:
        x = LABEL + 60 * (severity - 1)
        out.append(f'<rect x="{x}" y="{bottom + 6}" width="14" height="10" fill="{SHADES[severity]}"/>')
        out.append(f'<text x="{x + 19}" y="{bottom + 15}">{severity}</text>')
    out.append(f'<text x="{LABEL - 8}" y="{bottom + 15}" class="end">severity</text>')
    return svg(WIDTH, bottom + 22, out, "pictures by kind and severity")


def distribution_plot(now: Distribution, then: Distribution | None, limits: dict[str, float]) -> str:
    """Share of the pictures whose out-of-distribution score is at most so high; score on a logarithmic scale."""
    sides = [(now, "#2563eb"), *([(then, GREY)] if then else [])]
    values = [max(v, 1e-6) for side, _ in sides for v in side.values] + list(limits.values())
    low, high = math.log(min(values)) - 0.05, math.log(max(values)) + 0.05
    bottom, right = HEIGHT - 30, WIDTH - 20

    def at(value: float, share: float) -> tuple[float, float]:
        x = 50 + (right - 50) * (math.log(max(value, 1e-6)) - low) / (high - low)
        return x, bottom - (bottom - 34) * share

    out = []
    for tick in (0.0, 0.5, 1.0):
        y = at(1, tick)[1]
        out.append(f'<line x1="50" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        out.append(f'<text x="44" y="{y + 4:.1f}" class="end">{tick:.0%}</text>')
    for i, (name, limit) in enumerate(limits.items()):
        x, y = at(limit, 0)[0], 12 + 13 * i  # one below the other: the limits may lie close together
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 3}" y2="{bottom}" class="axis" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{x - 5:.1f}" y="{y}" class="end">{escape(name)}</text>')
    for side, colour in reversed(sides):
        path, before = f"M50 {bottom}", at(1, 0)[1]
        for value, count in zip(side.values, side.at_most, strict=True):
            x, y = at(value, count / side.total)
            path += f"L{x:.1f} {before:.1f}L{x:.1f} {y:.1f}"
            before = y
        out.append(f'<path d="{path}H{right}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for value in (side.quantile(q) for side, _ in sides[:1] for q in (0.05, 0.5, 0.95)):
        out.append(f'<text x="{at(value, 0)[0]:.1f}" y="{bottom + 16}" class="mid">{value:.3g}</text>')
    if then:
        out.append(f'<text x="56" y="48" style="fill:{GREY}">grey: baseline</text>')
    return svg(WIDTH, HEIGHT, out, "distribution of the out-of-distribution score")


def drift_plot(shares: Sequence[Share]) -> str:
    """How many points each share moved, with 95 % intervals."""
    reach = max(0.01, *(abs(end) for share in shares for end in share.interval))

    def at(difference: float) -> float:
        return LABEL + (WIDTH - LABEL - RIGHT) * (difference + reach) / (2 * reach)

    bottom = 4 + ROW * len(shares)
    out = [f'<line x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{bottom}" class="axis"/>']
    for i, share in enumerate(shares):
        y, colour = 14 + ROW * i, MOVED if share.moved else GREY
        low, high = map(at, share.interval)
        out.append(f'<text x="{LABEL - 8}" y="{y + 4}" class="end">{escape(share.name)}</text>')
        out.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<circle cx="{at(share.difference):.1f}" cy="{y}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{WIDTH - RIGHT + 10}" y="{y + 4}">{100 * share.difference:+.1f} points</text>')
    for tick in (-reach, 0.0, reach):
        out.append(f'<text x="{at(tick):.1f}" y="{bottom + 15}" class="mid">{100 * tick:+.1f}</text>')
    return svg(WIDTH, bottom + 22, out, "difference of shares from the baseline")
