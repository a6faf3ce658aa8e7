"""Copies between strided views of tensors, as calls of one kernel.

What only moves values is written as views of the input and the output in numpy, whose offsets and strides then say all
there is to copy: `copy(source.transpose(order), result, ...)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Constant, Lowered
from edgeprune.backends.c.model import Tensor

KERNEL = "ep_layout"


@dataclass(frozen=True)
class Axis:
    """`size` steps of so many bytes in the source and in the target."""

    size: int
    source: int
    target: int


@dataclass(frozen=True)
class Copy:
    """Runs of bytes that are contiguous on both sides, along axes from the outermost to the innermost.

    Attributes:
        source: Placeholder of the pointer that the offset counts bytes from.
    """

    source: str
    source_offset: int
    target: str
    target_offset: int
    axes: tuple[Axis, ...]
    run_bytes: int


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor in memory: an array of its shape that is only there to be viewed, never read or written."""

    pointer: str
    whole: Array

    def offset(self, view: Array) -> int:
        """Bytes from the first element to the view's first."""
        return int(view.ctypes.data - self.whole.ctypes.data)


def place(tensor: Tensor, pointer: str) -> Place:
    """Where a tensor lies, such as at `in0`."""
    return Place(pointer, np.empty(tensor.shape, tensor.dtype))


def copy(source: Array, held: Place, target: Array, to: Place) -> Copy | None:
    """What fills the view `target` of one place with the view `source` of another; None where they are empty.

    Axes of the target go from large steps to small ones, so that it is written in order.
    """
    assert source.shape == target.shape, (source.shape, target.shape)
    if source.size == 0:
        return None
    axes = [Axis(*axis) for axis in zip(source.shape, source.strides, target.strides) if axis[0] > 1]
    axes.sort(key=lambda axis: (-abs(axis.target), -abs(axis.source)))
    merged = _merged(axes)
    run = source.dtype.itemsize
    if merged and merged[-1].source == run == merged[-1].target:
        run *= merged.pop().size
    return Copy(held.pointer, held.offset(source), to.pointer, to.offset(target), tuple(merged), run)


def _merged(axes: list[Axis]) -> list[Axis]:
    """Neighbours that are one axis on both sides, joined."""
    found: list[Axis] = []
    for axis in axes:
        outer = found[-1] if found else None
        if outer and (outer.source, outer.target) == (axis.source * axis.size, axis.target * axis.size):
            found[-1] = Axis(outer.size * axis.size, axis.source, axis.target)
        else:
            found.append(axis)
    return found


def lowered(copies: list[Copy | None], before: str = "", constants: tuple[Constant, ...] = ()) -> Lowered:
    """The copies one after another, after the statements `before`."""
    calls, arrays = [before] if before else [], list(constants)
    for number, made in enumerate(made for made in copies if made is not None):
        source, target = _moved(made.source, made.source_offset), _moved(made.target, made.target_offset)
        if not made.axes:
            calls.append(f"EP(copy)({source}, {target}, {made.run_bytes});")
            continue
        name = f"axes{number}"
        steps = [value for axis in made.axes for value in (axis.size, axis.source, axis.target)]
        arrays.append(Constant(name, np.array(steps, np.int32)))
        calls.append(f"EP(copy_strided)({source}, {target}, {{{name}}}, {len(made.axes)}, {made.run_bytes});")
    return Lowered("\n    ".join(calls), (KERNEL,), tuple(arrays))


def _moved(pointer: str, offset: int) -> str:
    kept = f"(const uint8_t *){{{pointer}}}" if pointer.startswith("in") else f"(uint8_t *){{{pointer}}}"
    return f"{kept} + {offset}" if offset else f"{{{pointer}}}"
