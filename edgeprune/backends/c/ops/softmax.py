"""SOFTMAX over the innermost axis; the exponential of every difference that counts comes from a table."""

from __future__ import annotations

import math

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.exponential import exponential
from edgeprune.backends.c.fixed_point import fixed_point
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError

KINDS = ("SOFTMAX",)
_INTEGER_BITS = 5  # of a difference times beta
_MOST_DEPTH = 4095  # sums have 12 integer bits


def check(model: Model, operator: Operator) -> None:
    """Refuse what 32-bit sums do not hold, and results at other scales than the specification's."""
    source, result = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    if (source.dtype, result.dtype) != ("int8", "int8"):
        raise UnsupportedError(f"it goes from {source.dtype} to {result.dtype}, not from int8 to int8")
    if (result.scale, result.zero_point) != (1 / 256, -128):
        raise UnsupportedError(
            f"its output has scale {result.scale:.4g} and zero point {result.zero_point}, not 1/256 and -128"
        )
    if source.shape[-1] > _MOST_DEPTH:
        raise UnsupportedError(f"its rows have {source.shape[-1]} values, {_MOST_DEPTH} at most")
    if _factor(source.scale, float(operator.options["beta"])) < 1:
        raise UnsupportedError(f"its beta times its input scale is below 2 ** -{31 - _INTEGER_BITS}")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """Rows in place, where the arena lets it."""
    source = model.tensor(step.operator.inputs[0])
    table = exponentials(source.scale, float(step.operator.options["beta"]))
    depth = source.shape[-1]
    call = f"EP(softmax)({{in0}}, {{out0}}, {{exponentials}}, {table.size}, {source.size // depth}, {depth});"
    return Lowered(call, ("ep_softmax",), (Constant("exponentials", table),), overwrites=(0,))


def exponentials(scale: float, beta: float) -> Array:
    """exp(-beta * scale * n) with 31 fraction bits, int32 (count,), for the n from 0 that count in a sum."""
    factor = fixed_point(_factor(scale, beta))
    radius = math.floor((2**_INTEGER_BITS - 1) * 2.0 ** (31 - _INTEGER_BITS - factor.shift))
    differences = -np.arange(min(radius, 255) + 1, dtype=np.int64)
    scaled = ((differences << factor.shift) * factor.multiplier + (1 << 30)) >> 31
    return exponential(scaled, _INTEGER_BITS).astype(np.int32)


def _factor(scale: float, beta: float) -> float:
    """Of a difference, to have 31 bits of which `_INTEGER_BITS` are integer ones."""
    return min(beta * scale * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1)
