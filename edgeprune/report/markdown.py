"""The record as one Markdown document: the same tables as the HTML report."""

from __future__ import annotations

import html

from edgeprune.documents import FitRecord
from edgeprune.report import tables
from edgeprune.report.tables import Cell, Table
from edgeprune.report.text import title, verdict_line


def render_markdown(record: FitRecord) -> str:
    """The report as Markdown, with a last newline."""
    parts = [f"# {plain(title(record))}", f"**{plain(verdict_line(record))}**"]
    if record.workload == "demo":
        parts.append("This is the built-in demo: a small network on scenes of handwritten digits.")
    sections = (
        ("Before and after", tables.before_after(record)),
        ("Rounds", tables.rounds(record)),
        ("Rehearsals", tables.rehearsals(record)),
        ("Raced plans", tables.race(record)),
        ("Steps to int8", tables.quantization(record)),
        ("Channels kept per layer", _kept(record)),
        ("Operators of the deployed file", tables.operators(record)),
        ("Left alone", tables.frozen(record)),
        ("Artifacts", tables.artifacts(record)),
        ("Made with", tables.facts(record)),
    )
    for heading, table in sections:
        if table.rows:
            parts += [f"## {heading}", markdown_table(table)]
    if record.notes:
        parts += ["## Notes", "\n".join(f"- {plain(note)}" for note in record.notes)]
    parts += ["## Repeat it", f"```\nedgeprune fit --config {record.run / 'spec.toml'}\n```"]
    return "\n\n".join(parts) + "\n"


def _kept(record: FitRecord) -> Table:
    columns = (("layer", ""), ("group", ""), ("dense", ""), ("kept", ""))
    rows = tuple((Cell(row.layer), Cell(row.group), Cell(str(row.dense)), Cell(str(row.kept))) for row in record.layers)
    return Table(columns, rows, (2, 3))


def markdown_table(table: Table) -> str:
    """The table in Markdown; what it holds cannot become markup."""
    heads = [f"{head} ({detail})" if detail else head for head, detail in table.columns]
    rule = ["--:" if i in table.numbers else "---" for i in range(len(heads))]
    lines = [[plain(head) for head in heads], rule]
    for number, row in enumerate(table.rows):
        mark = "**" if number in table.strong else ""
        lines.append([_cell(cell, mark) for cell in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell, mark: str) -> str:
    text = f"{mark}{plain(cell.text)}{mark}" if cell.text else ""
    return f"{text} ({plain(cell.detail)})" if cell.detail else text


def plain(text: str) -> str:
    """The text as Markdown that shows it as it is. Names come from files: no markup, no table breaks."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\|`*_[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
