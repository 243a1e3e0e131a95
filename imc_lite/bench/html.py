"""What reports have in common: one HTML file with its style inside, readable without a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

# A browser then loads nothing for such a page, whatever a name in it may hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#111827;background:#fff;margin:0 auto;
max-width:1120px;padding:24px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 8px;border-top:1px solid #e5e7eb;padding-top:18px}
p{margin:6px 0 12px}.note{color:#4b5563;font-size:14px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;margin:8px 0}
th,td{padding:4px 7px;text-align:right;border-bottom:1px solid #e5e7eb;white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{font-weight:600}
svg{width:100%;height:auto;display:block;margin:8px 0}
svg text{font:12px system-ui,sans-serif;fill:#111827}svg .title{font-weight:600;font-size:13px}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}svg .grid{stroke:#e5e7eb}svg .axis{stroke:#111827}
.case{border:1px solid #e5e7eb;border-radius:6px;padding:12px 14px;margin:12px 0}
.case h3{font-size:15px;margin:0 0 8px}.views{display:flex;flex-wrap:wrap;gap:14px}
figure{margin:0}figure img{display:block;max-width:240px;height:auto;background:#000}
figcaption{font-size:13px;color:#4b5563}dl{display:grid;grid-template-columns:110px 1fr;gap:2px 10px;margin:10px 0 0}
dt{color:#4b5563}dd{margin:0;overflow-wrap:anywhere}.right{color:#15803d}.wrong{color:#b91c1c}
"""


def document(title: str, heading: str, note: str, sections: Iterable[tuple[str, str]]) -> str:
    """The whole file: plain text for title, heading and the note below it; a title and HTML for every section."""
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(heading)}</h1><p class=note>{escape(note)} Not a medical device.</p>{body}</body></html>\n"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of plain text, the first of them the head."""
    lines = []
    for i, row in enumerate(rows):
        tag = "td" if i else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<div class=scroll><table>{''.join(lines)}</table></div>"
