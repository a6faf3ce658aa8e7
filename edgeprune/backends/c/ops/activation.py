"""Functions of one int8 value: a table of 256 results, or a clamp where that is all they do."""

from __future__ import annotations

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.tables import FUNCTIONS, table
from edgeprune.errors import UnsupportedError

KINDS = tuple(FUNCTIONS)


def check(model: Model, operator: Operator) -> None:
    """Refuse other number formats than int8, and scales that the reference refuses or sums overflow at."""
    tensors = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    for tensor in tensors:
        if tensor.dtype != "int8":
            raise UnsupportedError(f"{tensor.name} is {tensor.dtype}, not int8")
    table(FUNCTIONS[operator.kind], *tensors, operator.options)


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One pass over the elements, in place where the arena lets it."""
    source, result = model.tensor(step.operator.inputs[0]), model.tensor(step.output)
    return applied(table(FUNCTIONS[step.operator.kind], source, result, step.operator.options), source.size)


def applied(results: Array, count: int) -> Lowered:
    """The call for a table of int8 results of int8 values."""
    low, high = int(results.min()), int(results.max())
    stored = np.arange(256, dtype=np.uint8).view(np.int8)
    if np.array_equal(results, np.clip(stored, low, high)):
        call = f"EP(clamp_all)({{in0}}, {{out0}}, {low}, {high}, {count});"
        return Lowered(call, ("ep_table",), overwrites=(0,))
    call = f"EP(look_up)({{in0}}, {{out0}}, {{table}}, {count});"
    return Lowered(call, ("ep_table",), (Constant("table", results, 1),), overwrites=(0,))
