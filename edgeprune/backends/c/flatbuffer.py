"""FlatBuffers read with every offset, length and table checked before it is followed, for files nobody vouches for.

A file is bytes. A table starts with the distance back to its vtable, which lists where each field lies in the table; a
field is a number, or the distance forward to a table, a vector or a text. All numbers are little-endian. Whoever reads
names fields by their position in the schema, so that a walk is as deep as the code that does it and no cycle can be
followed; and since one vector may be named by many fields, the whole walk has a limit too.
"""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np

from edgeprune.backends import Array
from edgeprune.errors import UnsupportedError, UsageError

Format = Literal["?", "b", "B", "h", "H", "i", "I", "q", "Q", "f"]  # as in `struct`

_WORK = 2**22  # elements and characters read; a microcontroller's model has thousands
_TABLE_WORK = 256  # elements that take as long to read as a table and what it describes


def damaged(what: str) -> UsageError:
    """The error for a file that contradicts its format."""
    return UsageError(f"the TFLite model is damaged: {what}")


class Content:
    """The bytes of a file and how much may still be read of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._work = _WORK

    def root(self) -> Table:
        """The table that the file is.

        Raises:
            UsageError: It does not lie in the file.
        """
        return self.table(self.integer(0, "I"))

    def number(self, at: int, form: Format) -> int | float:
        """The number at a place in the file."""
        self.span(at, struct.calcsize(form))
        value: int | float = struct.unpack_from(f"<{form}", self.data, at)[0]
        return value

    def integer(self, at: int, form: Format) -> int:
        """The whole number at a place in the file."""
        return int(self.number(at, form))

    def span(self, at: int, count: int) -> None:
        """Make sure that so many bytes lie there."""
        if at < 0 or at + count > len(self.data):
            raise damaged(f"{count} bytes at offset {at} do not lie in its {len(self.data)} bytes")

    def charge(self, work: int) -> None:
        """Count what is about to be read.

        Raises:
            UnsupportedError: The file holds, or by shared offsets seems to hold, more than any model for this backend.
        """
        self._work -= work
        if self._work < 0:
            raise UnsupportedError(f"the TFLite model lists more than {_WORK:,} elements", hint="is it a small model?")

    def follow(self, at: int) -> int:
        """The place that the offset at a place leads to; it lies further on."""
        distance = self.integer(at, "I")
        if distance == 0:
            raise damaged(f"the offset at {at} leads to itself")
        return at + distance

    def table(self, at: int) -> Table:
        """The table at a place, its own size and its vtable checked."""
        self.charge(_TABLE_WORK)
        vtable = at - self.integer(at, "i")
        size, inline = self.integer(vtable, "H"), self.integer(vtable + 2, "H")
        if size < 4 or size % 2 or inline < 4:
            raise damaged(f"the table at offset {at} has no vtable")
        self.span(vtable, size)
        self.span(at, inline)
        return Table(self, at, inline, vtable, size)

    def vector(self, at: int, width: int) -> tuple[int, int]:
        """Place of the first element and number of elements, so many bytes each, of the vector at a place."""
        count = self.integer(at, "I")
        self.span(at + 4, count * width)
        return at + 4, count


class Table:
    """Fields of a table by their positions in the schema."""

    def __init__(self, content: Content, at: int, inline: int, vtable: int, size: int) -> None:
        self.content = content
        self._at, self._inline, self._vtable = at, inline, vtable
        self.slots = (size - 4) // 2

    def has(self, slot: int) -> bool:
        """Whether the field is stored."""
        return slot < self.slots and self.content.integer(self._vtable + 4 + 2 * slot, "H") != 0

    def number(self, slot: int, form: Format, default: float = 0) -> int | float:
        """A number; the schema's default where it is not stored."""
        return self.content.number(self._place(slot, struct.calcsize(form)), form) if self.has(slot) else default

    def integer(self, slot: int, form: Format, default: int = 0) -> int:
        """A whole number; the schema's default where it is not stored."""
        return int(self.number(slot, form, default))

    def table(self, slot: int) -> Table | None:
        """A table; None where it is not stored."""
        return self.content.table(self._target(slot)) if self.has(slot) else None

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables; empty where it is not stored."""
        if not self.has(slot):
            return []
        first, count = self.content.vector(self._target(slot), 4)
        # Charged before the list exists: each table is counted again when it is read.
        self.content.charge(count)
        return [self.content.table(self.content.follow(first + 4 * index)) for index in range(count)]

    def numbers(self, slot: int, form: Literal["i", "q", "f"]) -> tuple[float, ...] | None:
        """A vector of numbers; None where it is not stored."""
        if not self.has(slot):
            return None
        first, count = self.content.vector(self._target(slot), struct.calcsize(form))
        self.content.charge(count)
        return struct.unpack_from(f"<{count}{form}", self.content.data, first)

    def integers(self, slot: int, form: Literal["i", "q"] = "i") -> tuple[int, ...] | None:
        """A vector of whole numbers; None where it is not stored."""
        values = self.numbers(slot, form)
        return None if values is None else tuple(map(int, values))

    def text(self, slot: int) -> str | None:
        """A text; None where it is not stored."""
        if not self.has(slot):
            return None
        first, count = self.content.vector(self._target(slot), 1)
        self.content.charge(count)
        return self.content.data[first : first + count].decode(errors="replace")

    def data(self, slot: int) -> tuple[int, int] | None:
        """Place and number of bytes of a vector of bytes; None where it is not stored."""
        return self.content.vector(self._target(slot), 1) if self.has(slot) else None

    def _place(self, slot: int, width: int) -> int:
        offset = self.content.integer(self._vtable + 4 + 2 * slot, "H")
        if offset < 4 or offset + width > self._inline:
            raise damaged(f"field {slot} does not lie in the table at offset {self._at}")
        return self._at + offset

    def _target(self, slot: int) -> int:
        return self.content.follow(self._place(slot, 4))


def array(content: Content, at: int, count: int, dtype: str) -> Array:
    """`count` elements from a place on, read-only, of the file's own memory where its byte order is the machine's."""
    made = np.dtype(dtype)
    content.span(at, count * made.itemsize)
    found: Array = np.frombuffer(content.data, made.newbyteorder("<"), count, at)
    return found.astype(made, copy=False)
