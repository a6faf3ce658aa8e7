"""`edgeprune report`: the report of a finished run or sweep, made again from its record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run or sweep.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, write nothing.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write report.html and report.md of a run again, and print its summary."""
    from edgeprune.front.folder import is_sweep

    if is_sweep(run):
        _sweep(run, markdown=markdown, json=json)
        return
    from edgeprune.record import read_record

    record = read_record(run)
    if markdown:
        from edgeprune.report.markdown import render_markdown

        typer.echo(render_markdown(record), nl=False)
        return
    from edgeprune.report.files import write_reports
    from edgeprune.report.summary import summary

    write_reports(run, record)
    typer.echo(record.to_json() if json else summary(record), nl=False)


def _sweep(folder: Path, *, markdown: bool, json: bool) -> None:
    from edgeprune.front.folder import read_sweep_record
    from edgeprune.report.front import front_summary, render_front_markdown, write_sweep_reports

    record = read_sweep_record(folder)
    if markdown:
        typer.echo(render_front_markdown(record), nl=False)
        return
    write_sweep_reports(folder, record)
    typer.echo(record.to_json() if json else front_summary(record), nl=False)
