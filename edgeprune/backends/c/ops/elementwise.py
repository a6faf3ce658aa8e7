"""Operators on two int8 tensors, value by value, broadcast or not; the kernels are in `csrc/ep_elementwise.c`.

PRELU is one of them: its second tensor is the slope of what is negative.
"""

from __future__ import annotations

from itertools import groupby
from math import prod

import numpy as np

from edgeprune.backends.c.addition import addition, check_addition
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.backends.c.quantized import clamps, refuse_other_formats
from edgeprune.backends.c.structures import members, structure
from edgeprune.errors import UnsupportedError

_KERNELS = {"ADD": "add", "SUB": "subtract", "MUL": "multiply", "MAXIMUM": "maximum", "MINIMUM": "minimum"}
_KERNELS |= {"SQUARED_DIFFERENCE": "squared_difference", "PRELU": "prelu"}
KINDS = tuple(_KERNELS)

_LOOPS = 4  # of the kernels around a run
_LARGEST_LEFT = 14  # products of two int8 values less their zero points are below 2**16
_FINER = 7  # bits that a squared difference is computed with beyond those of its inputs
_LARGEST_RIGHT = 22  # so that the output's zero point can be shifted; a product shifted further is 0


def check(model: Model, operator: Operator) -> None:
    """Refuse other types than int8, and quantisations that cannot be exact.

    Raises:
        UnsupportedError: See there.
    """
    first, second, output = _tensors(model, operator)
    refuse_other_formats(first, second, output)
    _loops(first.shape, second.shape, output.shape)
    if operator.kind in ("ADD", "SUB"):
        check_addition(model, operator)
    elif operator.kind == "MUL":
        clamps(operator, output)
        if _factor(model, operator).shift > _LARGEST_LEFT:
            raise UnsupportedError(f"its products are rescaled by more than 2**{_LARGEST_LEFT}")
    elif operator.kind == "PRELU":
        if max(factor.shift for factor in _slopes(model, operator)) > _LARGEST_LEFT:
            raise UnsupportedError(f"its values are rescaled by more than 2**{_LARGEST_LEFT}")
        if first.shape != output.shape:
            raise UnsupportedError(f"slopes of shape {list(second.shape)} enlarge an input of {list(first.shape)}")
    elif operator.kind == "SQUARED_DIFFERENCE":
        if _squared(model, operator)[2].shift > 1:
            raise UnsupportedError("its squares are rescaled by more than 2")
    elif any((t.scale, t.zero_point) != (output.scale, output.zero_point) for t in (first, second)):
        raise UnsupportedError("its inputs are not quantised as the output")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A call of the operator's kernel; axes next to each other that are broadcast alike are one."""
    operator = step.operator
    check(model, operator)
    first, second, output = _tensors(model, operator)
    loops, run = _loops(first.shape, second.shape, output.shape)
    definitions = structure(
        "broadcast", "broadcast_{step}", [*(members(part) for part in zip(*loops, strict=True)), *run]
    )
    pointers, constants, overwrites = _operands(model, operator)
    arguments = [*pointers, "{out0}", "&broadcast_{step}"]
    if operator.kind in ("ADD", "SUB"):
        assert operator.inputs[0] is not None
        definitions += addition(model, operator, operator.inputs[0]).definition("addition_{step}")
        arguments += ["&addition_{step}"]
    elif operator.kind == "MUL":
        definitions += structure("product", "product_{step}", _product(model, operator))
        arguments += ["&product_{step}"]
    elif operator.kind == "PRELU":
        parts = [value for factor in _slopes(model, operator) for value in (factor.multiplier, factor.shift)]
        zeros = [first.zero_point, second.zero_point]
        definitions += structure("prelu", "prelu_{step}", [*zeros, *parts, output.zero_point])
        arguments += ["&prelu_{step}"]
    elif operator.kind == "SQUARED_DIFFERENCE":
        parts = [value for factor in _squared(model, operator) for value in (factor.multiplier, factor.shift)]
        zeros = [first.zero_point, second.zero_point]
        definitions += structure("squared", "squared_{step}", [*zeros, *parts, output.zero_point])
        arguments += ["&squared_{step}"]
    return Lowered(
        call=f"EP({_KERNELS[operator.kind]})({', '.join(arguments)});",
        kernels=("ep_elementwise",),
        constants=constants,
        definitions=definitions,
        overwrites=overwrites,
    )


def _tensors(model: Model, operator: Operator) -> tuple[Tensor, Tensor, Tensor]:
    return model.tensor(operator.inputs[0]), model.tensor(operator.inputs[1]), model.tensor(operator.outputs[0])


def _operands(model: Model, operator: Operator) -> tuple[list[str], tuple[Constant, ...], tuple[int, ...]]:
    """Pointers to both inputs, those that are constants, and the activations that the output may lie over."""
    pointers, constants, overwrites, position = [], [], [], 0
    output = model.tensor(operator.outputs[0])
    for name, index in zip(("first", "second"), operator.inputs, strict=True):
        tensor = model.tensor(index)
        if tensor.data is not None:
            constants.append(Constant(name, tensor.data))
            pointers.append(f"{{{name}}}")
            continue
        if tensor.size == output.size:
            overwrites.append(position)
        pointers.append(f"{{in{position}}}")
        position += 1
    return pointers, tuple(constants), tuple(overwrites)


def _factor(model: Model, operator: Operator) -> FixedPoint:
    """What a product is rescaled by: scales are multiplied and divided in float32, as the reference does."""
    first, second, output = (np.float32(tensor.scale) for tensor in _tensors(model, operator))
    return fixed_point(float(first * second / output))


def _product(model: Model, operator: Operator) -> list[int]:
    """The members of the C structure `EP(product)`."""
    first, second, output = _tensors(model, operator)
    factor = _factor(model, operator)
    multiplier, left, right = factor.multiplier, max(0, factor.shift), max(0, -factor.shift)
    if right > _LARGEST_RIGHT:
        multiplier, right = 0, 0
    offset = (1 << right >> 1) + (output.zero_point << right)
    offsets = [-first.zero_point, -second.zero_point]
    return [*offsets, 2 << left, multiplier, offset, -1 if right else 0, right, *clamps(operator, output)]


def _slopes(model: Model, operator: Operator) -> tuple[FixedPoint, FixedPoint]:
    """What a value of at least zero is rescaled by, and a negative one times its slope; in float32."""
    first, slope, output = (np.float32(tensor.scale) for tensor in _tensors(model, operator))
    return fixed_point(float(first / output)), fixed_point(float(first * slope / output))


def _squared(model: Model, operator: Operator) -> tuple[FixedPoint, FixedPoint, FixedPoint]:
    """What both tensors, in finer steps, are rescaled by to have one scale, and the square of their difference."""
    first, second, output = (tensor.scale for tensor in _tensors(model, operator))
    twice = 2 * max(first, second)
    square = twice * twice / (2 ** (2 * _FINER) * output)
    return fixed_point(first / twice), fixed_point(second / twice), fixed_point(square)


def _loops(
    first: tuple[int, ...], second: tuple[int, ...], output: tuple[int, ...]
) -> tuple[list[tuple[int, int, int]], tuple[int, int, int]]:
    """Sizes of the loops with both tensors' steps in values, outermost first, and those of the run within."""
    rank = len(output)
    shapes = [(1,) * (rank - len(shape)) + shape for shape in (first, second)]
    if any(len(shape) != rank for shape in shapes) or tuple(map(max, *shapes)) != output:
        raise UnsupportedError(f"{list(first)} and {list(second)} are not broadcast to {list(output)}")
    if any(size not in (1, whole) for shape in shapes for size, whole in zip(shape, output, strict=True)):
        raise UnsupportedError(f"{list(first)} and {list(second)} are not broadcast to {list(output)}")
    axes = []
    for axis, size in enumerate(output):
        if size != 1:
            steps = [prod(shape[axis + 1 :]) if shape[axis] != 1 else 0 for shape in shapes]
            axes.append((size, steps[0], steps[1]))
    merged = []
    for _, group in groupby(axes, lambda item: (item[1] == 0, item[2] == 0)):
        alike = list(group)
        merged.append((prod(size for size, _, _ in alike), *alike[-1][1:]))
    run = merged.pop() if merged else (1, 0, 0)
    if len(merged) > _LOOPS:
        raise UnsupportedError(f"{list(first)} and {list(second)} alternate too often between repeated and not")
    return [(1, 0, 0)] * (_LOOPS - len(merged)) + merged, run
