"""Operators that move values from where they are to where they are wanted: strided copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.copies import Copy, Place, copy, lowered, place
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError

KINDS: tuple[str, ...] = ("TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK", "PACK", "CONCATENATION")
KINDS += ("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "REVERSE_V2", "TILE", "BROADCAST_TO")
_JOINED = ("PACK", "CONCATENATION")
_PARTED = ("SPLIT", "SPLIT_V", "UNPACK")


def check(model: Model, operator: Operator) -> None:
    """Refuse joining tensors of different scales, which the reference does not requantise, and activations."""
    if operator.kind not in _JOINED:
        return
    result = model.tensor(operator.outputs[0])
    if operator.options.get("fused_activation_function", "NONE") != "NONE":
        raise UnsupportedError(f"its activation {operator.options['fused_activation_function']} is fused")
    for index in operator.inputs:
        source = model.tensor(index)
        if source.quantization != result.quantization and source.dtype != "bool":
            raise UnsupportedError(f"the scale or zero point of {source.name} is not that of its output")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A copy for each input or output."""
    operator = step.operator
    results = [place(model.tensor(index), f"out{at}") for at, index in enumerate(operator.outputs)]
    if operator.kind in _JOINED:
        return _joined(model, operator, results[0])
    data = 1 if operator.kind == "SPLIT" else 0
    source = place(model.tensor(operator.inputs[data]), "in0")
    if operator.kind in _PARTED:
        return lowered([copy(view, source, to.whole, to) for view, to in zip(_parts(model, operator, source), results)])
    view, target = _views(model, operator, source.whole, results[0].whole)
    return lowered([copy(view, source, target, results[0])])


def _joined(model: Model, operator: Operator, result: Place) -> Lowered:
    """Inputs side by side; constant ones too, which the call names by their position."""
    axis = int(operator.options["axis"])
    copies: list[Copy | None] = []
    constants, start, computed = [], 0, 0
    for position, index in enumerate(operator.inputs):
        tensor = model.tensor(index)
        if tensor.data is None:
            source, computed = place(tensor, f"in{computed}"), computed + 1
        else:
            source = place(tensor, f"joined{position}")
            constants.append(Constant(f"joined{position}", tensor.data))
        if operator.kind == "PACK":
            target = np.moveaxis(result.whole, axis, 0)[position]
        else:
            size = tensor.shape[axis]
            target = np.moveaxis(np.moveaxis(result.whole, axis, 0)[start : start + size], 0, axis)
            start += size
        copies.append(copy(source.whole, source, target, result))
    return lowered(copies, constants=tuple(constants))


def _parts(model: Model, operator: Operator, source: Place) -> list[Array]:
    """Views of the input, one for each output."""
    if operator.kind == "UNPACK":
        return list(np.moveaxis(source.whole, int(operator.options["axis"]), 0))
    axis = _values(model, operator, 0 if operator.kind == "SPLIT" else 2)[0]
    sizes = [model.tensor(index).shape[axis] for index in operator.outputs]
    return np.split(source.whole, np.cumsum(sizes)[:-1], axis)


def _views(model: Model, operator: Operator, source: Array, result: Array) -> tuple[Array, Array]:
    """Views of the input and the output that have the same values in the same places."""
    if operator.kind == "TRANSPOSE":
        return source.transpose(_values(model, operator, 1)), result
    if operator.kind == "SLICE":
        starts = _values(model, operator, 1)
        return source[tuple(slice(at, at + size) for at, size in zip(starts, result.shape, strict=True))], result
    if operator.kind == "STRIDED_SLICE":
        view: Array = source[_selection(model, operator)]
        return view, result
    if operator.kind == "REVERSE_V2":
        return np.flip(source, tuple(_values(model, operator, 1))), result
    if operator.kind == "BROADCAST_TO":
        return np.broadcast_to(source, result.shape), result
    if operator.kind == "TILE":
        return _tiled(source, result)
    if operator.kind == "SPACE_TO_DEPTH":
        return _blocks(source, result.shape[1:3]), result.reshape(*result.shape[:3], *_block(source, result), -1)
    return source.reshape(*source.shape[:3], *_block(result, source), -1), _blocks(result, source.shape[1:3])


def _tiled(source: Array, result: Array) -> tuple[Array, Array]:
    """Both with two axes for each: the repetition, and the place within; axes that are not repeated have one."""
    apart: list[int] = []
    together: list[int] = []
    for size, whole in zip(source.shape, result.shape, strict=True):
        apart += [1, size] if whole != size else [size]
        together += [whole // size, size] if whole != size else [size]
    return np.broadcast_to(source.reshape(apart), together), result.reshape(together)


def _block(large: Array, small: Array) -> tuple[int, int]:
    return large.shape[1] // small.shape[1], large.shape[2] // small.shape[2]


def _blocks(image: Array, tiles: tuple[int, ...]) -> Array:
    """(n, h, w, c) as (n, h / b, w / b, b, b, c)."""
    n, height, width, channels = image.shape
    split = image.reshape(n, tiles[0], height // tiles[0], tiles[1], width // tiles[1], channels)
    return split.transpose(0, 1, 3, 2, 4, 5)


def _selection(model: Model, operator: Operator) -> tuple[Any, ...]:
    """The index of a strided slice, which means in numpy what its masks say bit by bit."""
    begins, ends, steps = (_values(model, operator, position) for position in (1, 2, 3))

    def masked(name: str, axis: int) -> bool:
        return bool(int(operator.options.get(f"{name}_mask", 0)) >> axis & 1)

    index: list[Any] = []
    for axis, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if masked("ellipsis", axis):
            index.append(Ellipsis)
        elif masked("new_axis", axis):
            index.append(None)
        elif masked("shrink_axis", axis):
            index.append(begin)
        else:
            last = begin + end if operator.options.get("offset", False) else end
            index.append(slice(None if masked("begin", axis) else begin, None if masked("end", axis) else last, step))
    return tuple(index) if Ellipsis in index else (*index, Ellipsis)  # a view, even of one element


def _values(model: Model, operator: Operator, position: int) -> list[int]:
    """A constant input that holds whole numbers."""
    data = model.tensor(operator.inputs[position]).data
    assert data is not None
    return [int(value) for value in data.ravel()]
