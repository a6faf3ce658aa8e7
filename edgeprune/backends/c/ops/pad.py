"""Padding: the output is filled and the input copied into it; mirrored borders are copies within the output."""

from __future__ import annotations

import numpy as np

from edgeprune.backends.c.copies import copy, lowered, place
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError

KINDS = ("PAD", "PADV2", "MIRROR_PAD")


def check(model: Model, operator: Operator) -> None:
    """Refuse a padding value at another scale than the output's."""
    result = model.tensor(operator.outputs[0])
    if model.tensor(operator.inputs[0]).quantization != result.quantization:
        raise UnsupportedError("its input and its output have different scales or zero points")
    if operator.kind == "PADV2":
        value = model.tensor(operator.inputs[2])
        if value.data is None:
            raise UnsupportedError("its padding value is computed")
        if value.quantization != result.quantization:
            raise UnsupportedError("its padding value has another scale or zero point than its output")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A fill of everything, then the input in its middle."""
    operator = step.operator
    tensor = model.tensor(operator.inputs[0])
    source, result = place(tensor, "in0"), place(model.tensor(step.output), "out0")
    paddings = model.tensor(operator.inputs[1]).data
    assert paddings is not None
    starts = [int(low) for low in paddings[:, 0]]
    middle = result.whole[tuple(slice(low, low + size) for low, size in zip(starts, tensor.shape, strict=True))]
    copies = [copy(source.whole, source, middle, result)]
    if operator.kind == "MIRROR_PAD":
        skipped = 1 if operator.options["mode"] == "REFLECT" else 0  # the border itself is not repeated
        for axis, low in enumerate(starts):
            view = np.moveaxis(result.whole, axis, 0)
            high = low + tensor.shape[axis]
            for border, mirrored in (
                (view[:low], view[low + skipped : 2 * low + skipped][::-1]),
                (view[high:], view[2 * high - len(view) - skipped : high - skipped][::-1]),
            ):
                copies.append(copy(mirrored, result, border, result))
        return lowered(copies)
    fill = f"EP(fill)({{out0}}, {{value}}, {result.whole.itemsize}, {result.whole.size});"
    return lowered(copies, fill, (Constant("value", _value(model, operator)),))


def _value(model: Model, operator: Operator) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """What is padded with, one element: real zero where nothing is said."""
    result = model.tensor(operator.outputs[0])
    if operator.kind == "PADV2":
        given = model.tensor(operator.inputs[2]).data
        assert given is not None
        return given.reshape(1)
    zero = result.quantization.zero_point if result.quantization is not None else 0
    return np.array([zero], result.dtype)
