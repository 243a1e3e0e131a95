"""Plots of the report as SVG text, without a plotting library."""

from __future__ import annotations

from html import escape
from typing import Any

from imc_lite.bench.cells import name
from imc_lite.bench.report import PICTURE

COLOURS = {"plain": "#6b7280", "shift": "#d97706", "pdc": "#2563eb", "imc": "#2563eb"}
DASHES = {"shift": "5 3"}
PANEL, HEIGHT, COLUMNS = 250, 190, 4
LEFT, RIGHT, TOP, BOTTOM = 38, 12, 26, 30
ROW, LABEL, WIDTH = 34, 150, 560
SHOWN = (-100.0, 125.0)  # per cent of a loss; longer bars are cut off and carry their number
CARD, NAMES, LINE = 720, 128, 19  # of the plot that stands alone: width, room for the noise's name, height of a row
# It is shown as a picture, out of reach of a page's style, on light and dark pages: it brings its own ground.
CARD_STYLE = """<style>text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:#1f2328}
.title{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}.note{fill:#59636e}.grid{stroke:#e5e7eb}
.clean{stroke:#1f2328;stroke-dasharray:4 3}</style>"""


def severity_plot(results: dict[str, Any], scope: str = PICTURE) -> str:
    """Accuracy by severity, one panel a noise, with 95 % intervals; severity 0 is the clean case."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in results["conditions"]:
        if row["of"] != "none" and scope in row["arms"]["plain"]:
            kinds.setdefault(row["noise"], []).append(row)
    if not kinds:
        return ""
    lowest = min(cell["95ci"][0] for rows in kinds.values() for r in rows for cell in _cells(r, scope).values())
    floor = int(max(0, min(80, 100 * lowest - 5)) // 20 * 20)
    panels = [_panel(i, kind, rows, scope, floor) for i, (kind, rows) in enumerate(kinds.items())]
    lines = -(-len(kinds) // COLUMNS)
    shown = {arm for rows in kinds.values() for row in rows for arm in _cells(row, scope)}
    named = [("plain", "plain"), ("shift", "mean shift, told the noise"), ("imc", "IMC")]
    legend = _legend([(arm, text) for arm, text in named if arm in shown], 4, lines * HEIGHT + 14)
    return svg(PANEL * min(COLUMNS, len(kinds)), lines * HEIGHT + 26, [*panels, legend], "accuracy by severity")


def _cells(row: dict[str, Any], scope: str) -> dict[str, dict[str, Any]]:
    return {arm: row["arms"][arm][scope] for arm in ("plain", "shift", "imc") if arm in row["arms"]}


def _panel(index: int, kind: str, rows: list[dict[str, Any]], scope: str, floor: int) -> str:
    x0, y0 = PANEL * (index % COLUMNS), HEIGHT * (index // COLUMNS)
    width, height = PANEL - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    last = max(r["severity"] for r in rows)

    def at(severity: float, share: float) -> tuple[float, float]:
        return LEFT + width * severity / last, TOP + height * (100 - 100 * share) / (100 - floor)

    out = [f'<g transform="translate({x0} {y0})"><text x="{LEFT}" y="16" class="title">{escape(name(kind))}</text>']
    for tick in range(floor, 101, 20 if floor < 60 else 10):
        y = at(0, tick / 100)[1]
        out.append(f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        out.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" class="end">{tick}</text>')
    for tick in (0, *(r["severity"] for r in rows)):
        x = at(tick, 0)[0]
        out.append(f'<text x="{x:.1f}" y="{TOP + height + 15}" class="mid">{tick or "clean"}</text>')
    plain = rows[0]["arms"]["plain"][scope]
    start = at(0, plain["accuracy"] + plain["loss"])
    for shift, arm in enumerate(_cells(rows[0], scope)):
        colour, dash = COLOURS[arm], f' stroke-dasharray="{DASHES[arm]}"' if arm in DASHES else ""
        points = [start]
        for row in rows:
            cell = row["arms"][arm][scope]
            x, y = at(row["severity"], cell["accuracy"])
            points.append((x, y))
            low, high = (at(0, v)[1] for v in cell["95ci"])
            whisker = x + 3 * (shift - 1)
            out.append(
                f'<line x1="{whisker:.1f}" x2="{whisker:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}" '
                'stroke-opacity=".55"/>'
            )
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
    return "".join(out) + "</g>"


def recovered_plot(results: dict[str, Any], scope: str = PICTURE) -> str:
    """The share of the loss that comes back, a row for every condition with a significant loss; "" without one."""
    rows = [r for r in results["conditions"] if "recovered" in r["arms"].get("imc", {}).get(scope, {})]
    if not rows:
        return ""
    low, high = SHOWN

    def at(value: float) -> float:
        return LABEL + (WIDTH - LABEL - 50) * (min(max(value, low), high) - low) / (high - low)

    bottom = 10 + ROW * len(rows)
    out = []
    for tick in (-100, -50, 0, 50, 100):
        x = at(tick)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{bottom}" class="{"axis" if tick == 0 else "grid"}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 15}" class="mid">{tick} %</text>')
    for i, row in enumerate(rows):
        y = 10 + ROW * i
        label = f"{name(row['noise'])} {row['severity']}"
        out.append(f'<text x="{LABEL - 50}" y="{y + 18}" class="end">{escape(label)}</text>')
        for j, arm in enumerate(("imc", "shift")):
            value = row["arms"].get(arm, {}).get(scope, {}).get("recovered")
            if value is None:
                continue
            a, b = sorted((at(0), at(100 * value)))
            top = y + 3 + 13 * j
            out.append(f'<rect x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="11" fill="{COLOURS[arm]}"/>')
            side, x = ("start", b + 4) if value >= 0 else ("end", a - 4)
            out.append(f'<text x="{x:.1f}" y="{top + 10}" class="{side}">{100 * value:.0f}</text>')
    legend = _legend([("imc", "IMC"), ("shift", "mean shift, told the noise")], LABEL, bottom + 34)
    return svg(WIDTH, bottom + 46, [*out, legend], "share of the loss recovered")


def accuracy_plot(results: dict[str, Any], scope: str = PICTURE) -> str:
    """What noise costs and what comes back at a glance: plain and IMC by noise and severity, with 95 % intervals.

    A row a condition, the clean accuracy as a dashed line; a picture of its own, with style and ground. "" where the
    scope holds no question.
    """
    shown = [r for r in results["conditions"] if r["of"] != "none" and scope in r["arms"]["plain"]]
    if not shown:
        return ""
    lowest = min(r["arms"][arm][scope]["95ci"][0] for r in shown for arm in ("plain", "imc"))
    floor = int(100 * lowest) // 10 * 10
    ticks = range(floor, 101, 10)

    def at(share: float) -> float:
        return NAMES + (CARD - NAMES - 70) * (100 * share - floor) / (100 - floor)

    out, y = [], 44
    for of in ("image", "text"):
        rows = [r for r in shown if r["of"] == of]
        if not rows:
            continue
        plain = rows[0]["arms"]["plain"][scope]
        clean, bottom = plain["accuracy"] + plain["loss"], y + 16 + LINE * len(rows)
        for tick in ticks:
            x = at(tick / 100)
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 10}" y2="{bottom}" class="grid"/>')
        x = at(clean)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 5}" y2="{bottom}" class="clean"/>')
        out.append(f'<text x="{x:.1f}" y="{y}" class="mid note">clean {100 * clean:.1f}</text>')
        out.append(f'<text x="16" y="{y}" class="title">{of} noise</text>')
        for i, row in enumerate(rows):
            middle = y + 15 + LINE * i + LINE // 2
            if not i or row["noise"] != rows[i - 1]["noise"]:
                out.append(f'<text x="{NAMES - 26}" y="{middle + 4}" class="end">{escape(name(row["noise"]))}</text>')
            out.append(f'<text x="{NAMES - 9}" y="{middle + 4}" class="end note">{row["severity"]}</text>')
            for arm, level in (("plain", middle + 3), ("imc", middle - 3)):
                cell, colour = row["arms"][arm][scope], COLOURS[arm]
                low, high = map(at, cell["95ci"])
                out.append(f'<path d="M{low:.1f} {level}H{high:.1f}" stroke="{colour}" stroke-opacity=".6"/>')
                out.append(f'<circle cx="{at(cell["accuracy"]):.1f}" cy="{level}" r="3.5" fill="{colour}"/>')
            gain = 100 * row["arms"]["imc"][scope]["gain"]
            out.append(f'<text x="{CARD - 16}" y="{middle + 4}" class="end">{gain:+.1f}</text>')
        y = bottom + 34
    foot = bottom + 17
    for tick in ticks:
        out.append(f'<text x="{at(tick / 100):.1f}" y="{foot}" class="mid note">{tick}</text>')
    out.append(_legend([("plain", "plain model"), ("imc", "with IMC")], NAMES, 20))
    out.append(f'<text x="{NAMES + 230}" y="20" class="note">accuracy in %, 95 % intervals</text>')
    out.append(f'<text x="{CARD - 16}" y="20" class="end note">gain, points</text>')
    ground = f'<rect x=".5" y=".5" width="{CARD - 1}" height="{foot + 11}" rx="6" fill="#fff" stroke="#d1d9e0"/>'
    title = "accuracy by noise and severity, plain and with IMC"
    return svg(CARD, foot + 12, [CARD_STYLE, ground, *out], title) + "\n"


def _legend(items: list[tuple[str, str]], x: int, y: int) -> str:
    out = []
    for arm, text in items:
        out.append(f'<rect x="{x}" y="{y - 9}" width="14" height="10" fill="{COLOURS[arm]}"/>')
        out.append(f'<text x="{x + 19}" y="{y}" class="start">{escape(text)}</text>')
        x += 40 + 7 * len(text)
    return "".join(out)


def svg(width: int, height: int, parts: list[str], title: str) -> str:
    """Parts of a drawing as one SVG; `title` is what is read aloud."""
    head = f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" aria-label="{escape(title)}" '
    return head + 'xmlns="http://www.w3.org/2000/svg">' + "".join(parts) + "</svg>"


def confusion_table(results: dict[str, Any]) -> str:
    """HTML: what the pictures of each noise were called, in per cent of a row, darker for more."""
    rows = results["confusion"]
    columns = ["clean", *(k for k in rows if k != "clean"), "unknown"]
    columns += sorted({c for row in rows.values() for c in row} - set(columns))
    head = "".join(f"<th>{escape(name(c))}</th>" for c in columns)
    body = []
    for kind, row in rows.items():
        total, cells = max(1, sum(row.values())), []
        for column in columns:
            share = row.get(column, 0) / total
            ink = "#fff" if share > 0.55 else "#111827"
            shown = f"{100 * share:.0f}" if row.get(column) else ""
            cells.append(f'<td style="background:rgba(37,99,235,{share:.2f});color:{ink}">{shown}</td>')
        body.append(f"<tr><th>{escape(name(kind))}</th>{''.join(cells)}<td>{total}</td></tr>")
    return f"<table><tr><th>noise</th>{head}<th>pictures</th></tr>{''.join(body)}</table>"
