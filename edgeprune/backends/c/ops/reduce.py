"""MEAN, SUM, REDUCE_MAX and REDUCE_MIN over constant axes; the kernels are in `csrc/ep_reduce.c`.

A mean is not a sum divided: the reference divides the multiplier instead, after it has shifted it to the left by as
many bits as the number of terms has, and so do we. Of int8 sums LiteRT's reference kernel leaves memory unset; SUM
follows its other built-in kernel, which rescales the sum once.
"""

from __future__ import annotations

from itertools import groupby
from math import prod

from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point
from edgeprune.backends.c.lowering import Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.quantized import refuse_other_formats
from edgeprune.backends.c.structures import members, structure
from edgeprune.errors import UnsupportedError

_EXTREMES = ("REDUCE_MAX", "REDUCE_MIN")
KINDS = ("MEAN", "SUM", *_EXTREMES)

_LOOPS = 3  # of the kernel over kept axes, and over reduced ones


def check(model: Model, operator: Operator) -> None:
    """Refuse other types than int8, computed axes, and sums that overflow.

    Raises:
        UnsupportedError: See there.
    """
    source, output = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    refuse_other_formats(source, output)
    if model.tensor(operator.inputs[1]).data is None:
        raise UnsupportedError("its axes are computed, not constant")
    _loops(model, operator)
    if operator.kind in _EXTREMES:
        if (source.scale, source.zero_point) != (output.scale, output.zero_point):
            raise UnsupportedError("the output is not quantised as the input")
        return
    if 255 * _terms(model, operator) * 2 ** max(0, _factor(model, operator).shift) >= 2**31:
        raise UnsupportedError("its sums can exceed 32 bits")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A call of the kernel; axes next to each other that are both kept or both reduced are one."""
    operator = step.operator
    check(model, operator)
    source, output = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    kept, reduced, inner = _loops(model, operator)
    loops = [members(part) for sizes in (kept, reduced) for part in zip(*sizes, strict=True)]
    values: list[int | str] = [*loops, inner]
    if operator.kind in _EXTREMES:
        kernel = "greatest" if operator.kind == "REDUCE_MAX" else "least"
        values += [0, 0, 0, 0]
    else:
        kernel, factor = "reduce", _factor(model, operator)
        values += [-source.zero_point * _terms(model, operator), factor.multiplier, factor.shift, output.zero_point]
    return Lowered(
        call=f"EP({kernel})({{in0}}, {{out0}}, &reduction_{{step}});",
        kernels=("ep_reduce",),
        definitions=structure("reduction", "reduction_{step}", values),
    )


def _axes(model: Model, operator: Operator) -> set[int]:
    axes = model.tensor(operator.inputs[1]).data
    assert axes is not None
    rank = len(model.tensor(operator.inputs[0]).shape)
    return {int(axis) % rank for axis in axes.ravel()}


def _terms(model: Model, operator: Operator) -> int:
    shape = model.tensor(operator.inputs[0]).shape
    return prod(shape[axis] for axis in _axes(model, operator))


def _factor(model: Model, operator: Operator) -> FixedPoint:
    """What the sum is rescaled by; see the module's docstring for the mean."""
    factor = fixed_point(model.tensor(operator.inputs[0]).scale / model.tensor(operator.outputs[0]).scale)
    if operator.kind == "SUM":
        return factor
    terms = _terms(model, operator)
    shift = min(terms.bit_length() - 1, 32, 31 + factor.shift)
    return FixedPoint((factor.multiplier << shift) // terms, factor.shift - shift)


def _loops(model: Model, operator: Operator) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
    """Sizes and steps in values of the loops over kept axes and over reduced ones, and the size of the inner axis."""
    shape, axes = model.tensor(operator.inputs[0]).shape, _axes(model, operator)
    loops: list[tuple[bool, int, int]] = []
    numbered = [(axis in axes, size, prod(shape[axis + 1 :])) for axis, size in enumerate(shape) if size != 1]
    for is_reduced, group in groupby(numbered, lambda item: item[0]):
        sizes = list(group)
        loops.append((is_reduced, prod(size for _, size, _ in sizes), sizes[-1][2]))
    inner = loops.pop()[1] if loops and not loops[-1][0] else 1
    kept = [(size, at) for is_reduced, size, at in loops if not is_reduced]
    reduced = [(size, at) for is_reduced, size, at in loops if is_reduced]
    if max(len(kept), len(reduced)) > _LOOPS:
        raise UnsupportedError(f"axes {sorted(axes)} of {list(shape)} alternate too often between kept and reduced")
    return [(1, 0)] * (_LOOPS - len(kept)) + kept, [(1, 0)] * (_LOOPS - len(reduced)) + reduced, inner
