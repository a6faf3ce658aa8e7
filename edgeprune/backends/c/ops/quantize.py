"""QUANTIZE from one integer format to another: a table for 8 bits, a loop that rescales for 16."""

from __future__ import annotations

import numpy as np

from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.ops.activation import applied
from edgeprune.backends.c.tables import ratio, requantized, table
from edgeprune.errors import UnsupportedError

KINDS = ("QUANTIZE",)
_BYTES = ("int8", "uint8")
_KERNELS = {"int8": "requantize_16_to_8", "int16": "requantize_16"}


def check(model: Model, operator: Operator) -> None:
    """Refuse formats that the reference does not convert, those of 32 bits, and scales too far apart."""
    source, result = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    known = (*_BYTES, "int16") if source.dtype in _BYTES else tuple(_KERNELS) if source.dtype == "int16" else ()
    if result.dtype not in known:
        raise UnsupportedError(f"it goes from {source.dtype} to {result.dtype}")
    ratio(source.scale / result.scale)


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One pass over the elements, in place between formats of equal size."""
    source, result = model.tensor(step.operator.inputs[0]), model.tensor(step.output)
    if source.dtype in _BYTES:
        results = table(requantized, source, result, {})
        if (source.dtype, result.dtype) == ("int8", "int8"):
            return applied(results, source.size)
        wide = result.dtype == "int16"
        call = f"EP(look_up{'_16' if wide else ''})({{in0}}, {{out0}}, {{table}}, {source.size});"
        return Lowered(call, ("ep_table",), (Constant("table", results),), overwrites=() if wide else (0,))
    factor = ratio(source.scale / result.scale)
    factors = np.array([source.zero_point, factor.multiplier, factor.shift, result.zero_point], np.int32)
    call = f"EP({_KERNELS[result.dtype]})({{in0}}, {{out0}}, {{factors}}, {source.size});"
    same = result.dtype == source.dtype
    return Lowered(call, ("ep_table",), (Constant("factors", factors),), overwrites=(0,) if same else ())
