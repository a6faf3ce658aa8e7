"""Writes a run's report beside its record."""

from __future__ import annotations

from pathlib import Path

from edgeprune.documents import FitRecord
from edgeprune.record import write_text
from edgeprune.report.html import render_html
from edgeprune.report.markdown import render_markdown


def write_reports(folder: Path, record: FitRecord) -> tuple[Path, Path]:
    """`report.html` and `report.md` in the run folder, each written whole or not at all.

    Raises:
        NoRoomError: The disk is full.
    """
    html, markdown = folder / "report.html", folder / "report.md"
    write_text(html, render_html(record))
    write_text(markdown, render_markdown(record))
    return html, markdown
