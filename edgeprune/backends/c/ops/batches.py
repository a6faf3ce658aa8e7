"""SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND, which stand around dilated convolutions: a copy for each place in a block.

A batch of the small side holds every other position of the image, shifted by its place in the block.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.copies import Copy, copy, lowered, place
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError

KINDS = ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")

_MOST_COPIES = 64


def check(model: Model, operator: Operator) -> None:
    """Refuse blocks that would need many copies, and a change of scale, which the reference does not make."""
    source, result = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    if source.quantization != result.quantization:
        raise UnsupportedError("its input and its output have different scales or zero points")
    sizes, _ = _blocks(model, operator)
    if prod(sizes) > _MOST_COPIES:
        raise UnsupportedError(f"its blocks have {prod(sizes)} places, {_MOST_COPIES} at most")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A fill where there is padding, then the copies."""
    operator = step.operator
    check(model, operator)
    source, result = place(model.tensor(operator.inputs[0]), "in0"), place(model.tensor(step.output), "out0")
    sizes, starts = _blocks(model, operator)
    copies: list[Copy | None] = []
    for number, at in enumerate(product(*map(range, sizes))):
        if operator.kind == "SPACE_TO_BATCH_ND":
            image, batches = _pair(source.whole, result.whole, sizes, starts, at, number)
            copies.append(copy(image, source, batches, result))
        else:
            image, batches = _pair(result.whole, source.whole, sizes, starts, at, number)
            copies.append(copy(batches, source, image, result))
    tensor = model.tensor(step.output)
    if operator.kind == "BATCH_TO_SPACE_ND" or tensor.size == model.tensor(operator.inputs[0]).size:
        return lowered(copies)
    zero = Constant("value", np.array([tensor.zero_point], np.int8))
    return lowered(copies, f"EP(fill)({{out0}}, {{value}}, 1, {tensor.size});", (zero,))


def _blocks(model: Model, operator: Operator) -> tuple[list[int], list[int]]:
    """Sizes of a block, and how far the image begins behind the first block: by padding, or by what is cropped."""
    sizes, margins = (model.tensor(operator.inputs[position]).data for position in (1, 2))
    assert sizes is not None and margins is not None
    return [int(size) for size in sizes], [int(before) for before, _ in margins]


def _pair(
    image: Array, batches: Array, sizes: list[int], starts: list[int], at: tuple[int, ...], number: int
) -> tuple[Array, Array]:
    """Views of the image and of the batches that hold the same values: those of one place in every block."""
    count = image.shape[0]
    large: list[slice] = [slice(None)]
    small: list[slice] = [slice(number * count, (number + 1) * count)]
    for axis, (size, start, offset) in enumerate(zip(sizes, starts, at, strict=True), 1):
        first = -((offset - start) // size)  # of the blocks, whose place lies in the image
        first = max(first, 0)
        begin = first * size + offset - start
        places = max(0, min(batches.shape[axis] - first, -((begin - image.shape[axis]) // size)))
        large.append(slice(begin, begin + places * size, size) if places else slice(0, 0))
        small.append(slice(first, first + places))
    return image[tuple(large)], batches[tuple(small)]
