"""Damaged FlatBuffers, byte by byte: nothing is read that does not lie where it has to."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from edgeprune.backends.c.flatbuffer import Content, Table, array
from edgeprune.errors import UnsupportedError, UsageError


def file(fields: bytes = b"", offsets: tuple[int, ...] = (), rest: bytes = b"") -> bytes:
    """A file of one table: root offset, vtable, table with the fields, then what they lead to."""
    vtable = struct.pack(f"<HH{len(offsets)}H", 4 + 2 * len(offsets), 4 + len(fields), *offsets)
    at = 4 + len(vtable)
    return struct.pack("<I", at) + vtable + struct.pack("<i", len(vtable)) + fields + rest


def root(*arguments: object) -> Table:
    return Content(file(*arguments)).root()  # type: ignore[arg-type]


def test_fields_are_read_by_position_and_default_where_they_are_not_stored() -> None:
    table = root(struct.pack("<ibf", -5, 7, 0.5), (4, 0, 8, 9))
    assert (table.integer(0, "i"), table.integer(1, "i", 3), table.integer(2, "b"), table.number(3, "f")) == (
        -5,
        3,
        7,
        0.5,
    )
    assert table.slots == 4 and table.has(0) and not table.has(1) and not table.has(9)
    assert table.table(9) is None and table.tables(9) == [] and table.numbers(9, "i") is None
    assert table.integers(9) is None and table.text(9) is None and table.data(9) is None


def test_vectors_and_texts_are_read() -> None:
    table = root(struct.pack("<I", 4), (4,), struct.pack("<I", 4) + b"ab\xff\x00")
    assert table.text(0) == "ab\ufffd\x00"
    at, count = table.data(0)  # type: ignore[misc]
    assert array(table.content, at, count, "int8").tolist() == [97, 98, -1, 0]
    assert not array(table.content, at, count, "int8").flags.writeable
    assert array(table.content, at, 2, "int16").dtype == np.dtype("int16")


def test_tables_in_a_vector_are_read() -> None:
    # The vector's offsets lead on to one more table, which shares the vtable.
    rest = struct.pack("<III", 2, 8, 4) + struct.pack("<ii", 26, 11)
    table = root(struct.pack("<I", 4), (4,), rest)
    assert [entry.integer(0, "i") for entry in table.tables(0)] == [11, 11]


@pytest.mark.parametrize("data", [b"", b"\x04", b"\xff\xff\xff\xff" + bytes(8), bytes(8)])
def test_a_root_outside_the_file_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="damaged"):
        Content(data).root()


@pytest.mark.parametrize(
    ("vtable", "distance"),
    [
        (struct.pack("<HH", 2, 4), 4),  # shorter than its own head
        (struct.pack("<HH", 5, 4), 4),  # odd
        (struct.pack("<HH", 4, 3), 4),  # a table shorter than its offset
        (struct.pack("<HH", 4, 400), 4),  # a table that ends behind the file
        (struct.pack("<HH", 400, 4), 4),  # a vtable that ends behind the file
        (struct.pack("<HH", 4, 4), 400),  # a vtable before the file
        (struct.pack("<HH", 4, 4), -400),  # a vtable behind the file
    ],
)
def test_a_table_whose_own_sizes_lie_is_refused(vtable: bytes, distance: int) -> None:
    with pytest.raises(UsageError, match="damaged: (the table at offset 8 has no vtable|.* do not lie)"):
        Content(struct.pack("<I", 8) + vtable + struct.pack("<i", distance)).root()


def test_a_field_outside_its_table_is_refused() -> None:
    for offset in (2, 7, 4000):
        with pytest.raises(UsageError, match="field 0 does not lie in the table at offset 10"):
            root(bytes(4), (offset,)).integer(0, "i")


def test_an_offset_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="the offset at 14 leads to itself"):
        root(struct.pack("<I", 0), (4,)).table(0)
    with pytest.raises(UsageError, match="4 bytes at offset 2147483662 do not lie in its 18 bytes"):
        root(struct.pack("<I", 2**31), (4,)).table(0)


@pytest.mark.parametrize("count", [3, 2**30, 2**32 - 1])
def test_a_vector_longer_than_the_file_is_refused(count: int) -> None:
    table = root(struct.pack("<I", 4), (4,), struct.pack("<Iii", count, 1, 2))
    for read in (table.tables, table.integers, lambda slot: table.numbers(slot, "f")):
        with pytest.raises(UsageError, match="do not lie in its"):
            read(0)
    if count > 8:
        for read in (table.text, table.data):
            with pytest.raises(UsageError, match="do not lie in its"):
                read(0)


def test_a_vector_that_many_fields_share_is_read_a_limited_number_of_times() -> None:
    count = 2**20
    table = root(struct.pack("<I", 4), (4,), struct.pack("<I", count) + bytes(4 * count))
    with pytest.raises(UnsupportedError, match="lists more than 4,194,304 elements"):
        for _ in range(5):
            table.numbers(0, "f")


def test_data_outside_the_file_is_refused() -> None:
    content = Content(bytes(16))
    for at, count in ((-1, 1), (16, 1), (8, 3), (0, 2**40)):
        with pytest.raises(UsageError, match="do not lie in its 16 bytes"):
            array(content, at, count, "int32")
