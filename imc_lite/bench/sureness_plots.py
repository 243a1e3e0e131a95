"""Plots of how sure answers are, as SVG text: whether that comes true, and what is wrong of the surest."""

from __future__ import annotations

from html import escape
from typing import Any

from imc_lite.bench.plots import svg

SIZE, LEFT, TOP, GAP = 230, 44, 34, 40
GROUPS = {"clean": "#15803d", "image noise": "#b91c1c", "text noise": "#7c3aed"}
LINES = (("plain", "token_probability", "plain model, token probability"), ("imc", "confidence", "IMC, confidence"))


def reliability_plot(groups: dict[str, Any]) -> str:
    """How often answers are right by how sure they are said to be; the diagonal is perfect."""
    panels = []
    for arm, estimate, title in _panels(groups):
        lines = [_line([(0.0, 0.0), (1.0, 1.0)], "#9ca3af", 1.0, dashed=True)]
        for group, colour in GROUPS.items():
            points = _found(groups, group, arm, estimate).get("reliability", [])
            lines.append(_line([(sure, right) for sure, right, _ in points], colour, 1.0))
        panels.append((title, lines))
    return _drawn(panels, "said", "right", 1.0, "how often answers are right by how sure they are said to be")


def risk_plot(groups: dict[str, Any]) -> str:
    """What is wrong of the surest tenth, the surest two tenths, …, of all answers."""
    most = max((max(_risks(groups, g, a, e), default=0.0) for a, e, _ in LINES for g in GROUPS), default=0.0)
    top = max(0.1, -(-most * 10 // 1) / 10)
    panels = []
    for arm, estimate, title in _panels(groups):
        lines = []
        for group, colour in GROUPS.items():
            found = _risks(groups, group, arm, estimate)
            lines.append(_line([((i + 1) / len(found), risk) for i, risk in enumerate(found)], colour, top))
        panels.append((title, lines))
    return _drawn(panels, "answered", "wrong", top, "the share that is wrong of the surest answers")


def _panels(groups: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [line for line in LINES if _found(groups, "clean", line[0], line[1])]


def _found(groups: dict[str, Any], group: str, arm: str, estimate: str) -> dict[str, Any]:
    return groups.get(group, {}).get("arms", {}).get(arm, {}).get("estimates", {}).get(estimate, {})


def _risks(groups: dict[str, Any], group: str, arm: str, estimate: str) -> list[float]:
    return _found(groups, group, arm, estimate).get("risks", [])


def _line(points: list[tuple[float, float]], colour: str, top: float, dashed: bool = False) -> str:
    places = [(LEFT + SIZE * x, TOP + SIZE * (1 - y / top)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    dots = "" if dashed else "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>{dots}'


def _drawn(panels: list[tuple[str, list[str]]], across: str, up: str, top: float, title: str) -> str:
    width, height = LEFT + SIZE + GAP, TOP + SIZE + 64
    out = []
    for number, (heading, lines) in enumerate(panels):
        parts = [f'<text x="{LEFT}" y="18" class="title">{escape(heading)}</text>']
        for tick in range(6):
            y, x = TOP + SIZE * (1 - tick / 5), LEFT + SIZE * tick / 5
            parts.append(f'<line x1="{LEFT}" x2="{LEFT + SIZE}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
            parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" class="end">{100 * top * tick / 5:.0f}</text>')
            parts.append(f'<text x="{x:.1f}" y="{TOP + SIZE + 16}" class="mid">{20 * tick}</text>')
        parts.append(f'<text x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 33}" class="mid">{across}, %; up: {up}, %</text>')
        out.append(f'<g transform="translate({number * width} 0)">{"".join([*parts, *lines])}</g>')
    x = LEFT
    for group, colour in GROUPS.items():
        out.append(f'<rect x="{x}" y="{height - 16}" width="14" height="10" fill="{colour}"/>')
        out.append(f'<text x="{x + 19}" y="{height - 7}">{escape(group)}</text>')
        x += 40 + 7 * len(group)
    return svg(max(width * len(panels), x), height, out, title)
