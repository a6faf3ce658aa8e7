"""What is written to the terminal: progress on stderr, aligned tables, and a stdout that stays clean."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, TypeVar

import typer

from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    import rich.progress

T = TypeVar("T")

_LINE_EVERY_S = 15.0


class Lines:
    """Progress as plain lines, for logs and pipes."""

    def note(self, text: str) -> None:
        typer.echo(text, err=True)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        total = len(items) if total is None and isinstance(items, Sized) else total
        of = "" if total is None else f"/{total}"
        started = last = time.monotonic()
        count = 0
        for item in items:
            yield item
            count += 1
            now = time.monotonic()
            if now - last >= _LINE_EVERY_S:
                last = now
                self.note(f"{label}: {count}{of}")
        self.note(f"{label}: {count}{of} in {time.monotonic() - started:.1f} s")


class Bars:
    """Progress as bars that vanish when they are full; for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars: rich.progress.Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        total = len(items) if total is None and isinstance(items, Sized) else total
        if not self._bars.tasks:
            self._bars.start()
        bar = self._bars.add_task(label, total=total)
        try:
            for item in items:
                yield item
                self._bars.advance(bar)
        finally:
            self._bars.remove_task(bar)
            if not self._bars.tasks:
                self._bars.stop()


def progress(*, quiet: bool) -> Progress:
    """Bars on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return SILENT
    return Bars() if sys.stderr.isatty() else Lines()


@contextlib.contextmanager
def only_results_on_stdout(*, debug: bool) -> Iterator[None]:
    """While the block runs, whatever a library prints goes to stderr, also from compiled code.

    Third-party warnings are kept to --debug: results that are weaker say so in the record.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Aligned columns under a header; `right` lists the columns that are numbers."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    numbers = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )
