"""The tensors of a .tflite file, each checked by itself: shape, number format, quantisation, constant data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import get_args

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.flatbuffer import Content, Table, array, damaged
from edgeprune.backends.c.model import DataType, Quantization, Tensor
from edgeprune.errors import EdgepruneError, UnsupportedError

_MOST_AXES = 8
_MOST_BYTES = 2**28  # of a tensor, and of all constants: offsets fit an int32, and nothing of a small model comes near
_ZERO_POINTS = {"int8": (-128, 127), "uint8": (0, 255)}  # of other types: zero


@dataclass(frozen=True)
class _Place:
    """Where constant data lies in the file."""

    at: int
    count: int


def read_tensors(content: Content, tables: Sequence[Table], types: Sequence[str], buffers: list[Table]) -> list[Tensor]:
    """All tensors of a subgraph.

    Args:
        types: Names of their number formats in the schema's `TensorType`.
        buffers: The model's buffers, which hold constant data.

    Raises:
        UnsupportedError: Sparse, stored elsewhere, of a number format or quantisation that is not known, of no known
            shape, or too large.
        UsageError: Sizes, scales or offsets that contradict each other.
    """
    places = [_place(content, table, index) for index, table in enumerate(buffers)]
    tensors: list[Tensor] = []
    constant_bytes = 0
    for index, (table, kind) in enumerate(zip(tables, types, strict=True)):
        name = table.text(3) or ""
        try:
            tensor = _tensor(content, table, name, kind, places)
            constant_bytes += tensor.data.nbytes if tensor.data is not None else 0
            if constant_bytes > _MOST_BYTES:
                raise UnsupportedError(f"the constants up to here take more than {_MOST_BYTES:,} bytes")
        except EdgepruneError as error:
            error.where = f"tensor {index} {name[:80]!r}"
            raise
        tensors.append(tensor)
    return tensors


def _place(content: Content, buffer: Table, index: int) -> _Place | None:
    """In the flatbuffer, or behind it where the buffer names an offset; None where there is no data."""
    inside, offset, size = buffer.data(0), buffer.integer(1, "Q"), buffer.integer(2, "Q")
    behind = offset > 1 or size > 1  # 0 and 1 stand for none
    if inside and inside[1] and behind:
        raise damaged(f"buffer {index} lies both in the flatbuffer and behind it")
    if behind:
        content.span(offset, size)
    at, count = (offset, size) if behind else inside or (0, 0)
    if index == 0 and count:
        raise damaged("buffer 0, which stands for no data, holds data")
    return _Place(at, count) if count else None


def _tensor(content: Content, table: Table, name: str, kind: str, places: Sequence[_Place | None]) -> Tensor:
    _refuse_foreign(table)
    dtype = _dtype(kind)
    shape = _shape(table)
    number = table.integer(2, "I")
    if number >= len(places):
        raise damaged(f"it lies in buffer {number} of {len(places)}")
    place, variable = places[number], bool(table.integer(5, "?"))
    if place is not None and variable:
        raise damaged("it is both constant and variable")
    # Without its empty axes too: nothing makes an array whose other sizes overflow.
    if prod(size or 1 for size in shape) * np.dtype(dtype).itemsize > _MOST_BYTES:
        raise UnsupportedError(f"of shape {shape} it takes more than {_MOST_BYTES:,} bytes")
    data = None if place is None else _data(content, place, kind, shape)
    if 0 in shape and data is None and not variable:
        data = np.zeros(shape, dtype)  # such as the shape of a scalar: nothing is stored for it
    elif place is None and not table.has(8) and not shape:
        raise UnsupportedError("its rank is not known", hint="convert with fixed shapes")
    return Tensor(name, shape, dtype, _quantization(table.table(4), dtype, shape), data, variable)


def _refuse_foreign(table: Table) -> None:
    if table.has(6):
        raise UnsupportedError("it is stored sparse", hint="convert without sparse storage")
    if table.has(9):
        raise UnsupportedError("it holds a variant, not numbers")
    if table.integer(10, "I") != 0:
        raise UnsupportedError("its data lies in another file", hint="convert to one file")


def _dtype(kind: str) -> DataType:
    if kind == "INT4":
        return "int8"
    for known in get_args(DataType):
        if kind.lower() == known:
            dtype: DataType = known
            return dtype
    raise UnsupportedError(f"its number format {kind} is not known here")


def _shape(table: Table) -> tuple[int, ...]:
    shape = table.integers(0) or ()
    if len(shape) > _MOST_AXES:
        raise UnsupportedError(f"it has {len(shape)} axes, more than {_MOST_AXES}")
    if any(size < 0 for size in shape):
        raise damaged(f"a size in its shape {shape} is negative")
    signature = table.integers(7)
    if not signature:
        return shape
    # Converters leave the batch open and write shapes for a batch of one, which is what is run.
    open_batch = signature[0] == -1 and shape[:1] == (1,)
    if signature != shape and not (open_batch and signature[1:] == shape[1:]):
        raise UnsupportedError(
            f"its shape is open: {signature}, now {shape}", hint="convert with a fixed input shape and a batch of one"
        )
    return shape


def _data(content: Content, place: _Place, kind: str, shape: tuple[int, ...]) -> Array:
    size = prod(shape)
    dtype = _dtype(kind)
    needed = (size + 1) // 2 if kind == "INT4" else size * np.dtype(dtype).itemsize
    if place.count != needed:
        raise damaged(f"{place.count} bytes are stored for {needed} of shape {shape} in {kind}")
    if kind == "INT4":
        # The even elements lie in the low halves; either half is a two's complement of four bits.
        packed = array(content, place.at, needed, "int8")
        halves = np.stack([np.left_shift(packed, 4) >> 4, packed >> 4], axis=-1)
        return halves.reshape(-1)[:size].reshape(shape)
    if kind == "BOOL":
        return array(content, place.at, size, "uint8").astype(bool).reshape(shape)
    return array(content, place.at, size, dtype).reshape(shape)


def _quantization(table: Table | None, dtype: DataType, shape: tuple[int, ...]) -> Quantization | None:
    if table is None:
        return None
    if table.integer(4, "B") != 0 or table.has(5):
        raise UnsupportedError("its quantisation is of a kind of its own, such as blockwise")
    scales, zero_points = table.numbers(2, "f"), table.integers(3, "q") or ()
    if not scales:
        return None
    if len(zero_points) != len(scales):
        raise damaged(f"it has {len(scales)} scales but {len(zero_points)} zero points")
    for scale in scales:
        if not (math.isfinite(scale) and scale > 0):
            raise damaged(f"its scale {scale} is not positive and finite")
    low, high = _ZERO_POINTS.get(dtype, (0, 0))
    for zero_point in zero_points:
        if not low <= zero_point <= high:
            raise damaged(f"its zero point {zero_point} is not in [{low}, {high}]")
    axis = table.integer(6, "i")
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise damaged(f"it has {len(scales)} scales along axis {axis} of shape {shape}")
    # One scale is one for all, whatever axis is written beside it.
    return Quantization(scales, zero_points, axis if len(scales) > 1 else 0)
