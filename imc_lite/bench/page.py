"""The report: one HTML file with its plots and pictures inside, readable without a network."""

from __future__ import annotations

from html import escape
from typing import Any

from imc_lite.bench.gallery import HELPED, Example
from imc_lite.bench.plots import confusion_table, recovered_plot, severity_plot
from imc_lite.bench.report import OTHERS, PICTURE
from imc_lite.bench.tables import headline, markdown, name, noise_table

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


def page(results: dict[str, Any], gallery: list[Example]) -> str:
    """The whole file as text."""
    model, sources = results["model"], results["data"]["sources"]
    asked = ", ".join(f"{s} ({n['pictures']} pictures, {n['questions']} questions)" for s, n in sources.items())
    versions = ", ".join(f"{k.replace('_', '-')} {v}" for k, v in results["versions"].items())
    controls = markdown(results).split("\n\n", 1)[0]
    tables = [t for of in ("image", "text") for s in (PICTURE, OTHERS) if (t := noise_table(results, of, s))]
    sections = [
        ("What comes back", _html(headline(results))),
        (
            "Which questions need the picture",
            "<p class=note>A group needs the picture where showing another case's costs it accuracy significantly "
            "(95 % interval over pictures). Image noise is judged on these; the others are reported apart.</p>"
            + _html(controls),
        ),
        (
            "Accuracy by severity",
            "<p class=note>Per cent of the questions that need the picture; bars are 95 % intervals.</p>"
            + severity_plot(results),
        ),
        (
            "Share of the loss recovered",
            "<p class=note>Conditions with a significant loss. 100 % is the clean accuracy; below 0 the answers got "
            "worse.</p>" + (recovered_plot(results) or "<p>No condition loses significantly.</p>"),
        ),
        (
            "What the noise was called",
            "<p class=note>Per cent of a row's pictures, all severities together.</p>"
            + f"<div class=scroll>{confusion_table(results)}</div>",
        ),
        ("Every condition", "".join(map(_html, tables))),
        (
            "Examples",
            "<p class=note>Of every noise at its highest severity, the first question that was right on the clean "
            "case and wrong under noise: one that IMC gives back and one that it does not, where there are such. They "
            "show what happens, not how often.</p>" + "".join(map(_case, gallery)),
        ),
    ]
    body = "".join(f"<h2>{escape(title)}</h2>{content}" for title, content in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>imc-lite benchmark</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>Robustness of {escape(model['id'])}</h1><p class=note>{escape(asked)}. Model version "
        f"{escape(model['version'])}; {escape(versions)}; seed {results['seed']}. Not a medical device.</p>"
        f"{body}</body></html>\n"
    )


def _html(text: str) -> str:
    """Our own Markdown, tables and paragraphs, as HTML."""
    out, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            if not line.startswith("|---"):
                rows.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            cells = ["".join(f"<{tag}>{escape(c)}</{tag}>" for c in row) for tag, row in _tagged(rows)]
            out.append(f"<div class=scroll><table>{''.join(f'<tr>{c}</tr>' for c in cells)}</table></div>")
            rows = []
        if line:
            out.append(f"<p>{escape(line)}</p>")
    return "".join(out)


def _tagged(rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    return [("td" if i else "th", row) for i, row in enumerate(rows)]


def _case(example: Example) -> str:
    figures = "".join(
        f'<figure><img src="{uri}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, uri in example.pictures
    )
    facts = [("question", escape(example.question))]
    if example.asked != example.question:
        facts.append(("asked", escape(example.asked)))
    if example.repaired != example.asked:
        facts.append(("repaired", escape(example.repaired)))
    facts += [("expected", escape(example.expected)), ("picture", f"judged {escape(example.verdict)}")]
    for who, answer, right in example.answers:
        facts.append((who, f'<span class="{"right" if right else "wrong"}">{escape(answer)}</span>'))
    rows = "".join(f"<dt>{escape(term)}</dt><dd>{value}</dd>" for term, value in facts)
    fate = "comes back with IMC" if example.fate == HELPED else "stays lost"
    title = f"{name(example.noise)}, severity {example.severity}: {fate}"
    return f"<div class=case><h3>{escape(title)}</h3><div class=views>{figures}</div><dl>{rows}</dl></div>"
