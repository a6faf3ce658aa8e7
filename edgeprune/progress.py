"""How long-running functions say where they are, without printing themselves.

The command line hands in bars on stderr; as a library nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Where a stage reports to."""

    def note(self, text: str) -> None:
        """One line about something that happened."""
        ...

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items, one by one, while a bar with this label moves."""
        ...


class _Silent:
    def note(self, text: str) -> None:
        pass

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items


SILENT: Progress = _Silent()
