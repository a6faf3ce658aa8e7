"""The parts that pages of figures are put together from: tables, lists and numbers as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]


def wrapped(text: str) -> str:
    """Text in lines of at most 118 characters."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells_of(document: Document) -> dict[str, Any]:
    """What each cell found, by its key."""
    return {key: cell["result"] for key, cell in document["cells"].items()}


def item(text: str) -> str:
    """An item of a list, its further lines indented."""
    return textwrap.fill(text, 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def percent(share: float | None) -> str:
    """A fraction as per cent with two digits; empty where it is None."""
    return scaled(share, 0.01, 2)


def scaled(value: float | None, unit: float, digits: int) -> str:
    """A value in a unit; empty where it is None."""
    return "" if value is None else f"{value / unit:.{digits}f}"
