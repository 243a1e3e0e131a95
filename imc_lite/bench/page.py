"""The report: one HTML file with its plots and pictures inside, readable without a network."""

from __future__ import annotations

from html import escape
from typing import Any

from imc_lite.bench.cells import name
from imc_lite.bench.gallery import HELPED, Example
from imc_lite.bench.html import document, table
from imc_lite.bench.plots import confusion_table, recovered_plot, severity_plot
from imc_lite.bench.report import OTHERS, PICTURE
from imc_lite.bench.sureness import PLAIN
from imc_lite.bench.sureness_plots import reliability_plot, risk_plot
from imc_lite.bench.sureness_tables import sureness_tables
from imc_lite.bench.tables import headline, markdown, noise_table

NEED_IMC = ("Share of the loss recovered", "What the noise was called", "Examples")


def page(results: dict[str, Any], gallery: list[Example]) -> str:
    """The whole file as text."""
    model, sources = results["model"], results["data"]["sources"]
    asked = ", ".join(f"{s} ({n['pictures']} pictures, {n['questions']} questions)" for s, n in sources.items())
    versions = ", ".join(f"{k.replace('_', '-')} {v}" for k, v in results["versions"].items())
    controls = markdown(results).split("\n\n", 1)[0]
    tables = [t for of in ("image", "text") for s in (PICTURE, OTHERS) if (t := noise_table(results, of, s))]
    groups = results["sureness"]["groups"]
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
        (
            "How sure, and did it look?",
            "<p class=note>Answers that the model writes, to one question about each picture and to all damaged ones. "
            "The confidence is fitted, where the model has one; the token probability is the model's own. "
            "Wordings are up to two others of the same question.</p>"
            + reliability_plot(groups)
            + risk_plot(groups)
            + _html(sureness_tables(results)),
        ),
        ("Every condition", "".join(map(_html, tables))),
        (
            "Examples",
            "<p class=note>Of every noise at its highest severity, the first question that was right on the clean "
            "case and wrong under noise: one that IMC gives back and one that it does not, where there are such. They "
            "show what happens, not how often.</p>" + "".join(map(_case, gallery)),
        ),
    ]
    note = f"{asked}. Model version {model['version']}; {versions}; seed {results['seed']}."
    if results["options"]["arms"] == PLAIN:
        sections = [section for section in sections if section[0] not in NEED_IMC]
    return document("imc-lite benchmark", f"Robustness of {model['id']}", note, sections)


def _html(text: str) -> str:
    """Our own Markdown, tables and paragraphs, as HTML."""
    out, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            if not line.startswith("|---"):
                rows.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if rows:
            out.append(table(rows))
            rows = []
        if line:
            out.append(f"<p>{escape(line)}</p>")
    return "".join(out)


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
