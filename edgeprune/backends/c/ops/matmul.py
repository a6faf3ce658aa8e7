"""BATCH_MATMUL: either operand constant or computed, transposed or not, batches broadcast."""

from __future__ import annotations

from math import prod

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.errors import UnsupportedError

KINDS = ("BATCH_MATMUL",)
_STEP = 255  # the greatest distance of an int8 value from its zero point


def check(model: Model, operator: Operator) -> None:
    """Refuse other formats than int8, scales per channel, and sums that 32 bits may not hold."""
    tensors = [model.tensor(index) for index in (*operator.inputs, *operator.outputs)]
    for tensor in tensors:
        if tensor.dtype != "int8":
            raise UnsupportedError(f"{tensor.name} is {tensor.dtype}, not int8")
        if tensor.quantization is None or len(tensor.quantization.scales) != 1:
            raise UnsupportedError(f"{tensor.name} has not one scale for all its values")
    depth = tensors[0].shape[-2 if operator.options.get("adj_x", False) else -1]
    factor = _factor(*tensors)
    if depth * _STEP**2 << max(factor.shift, 0) >= 2**31:
        raise UnsupportedError(f"sums of {depth} products rescaled by 2 ** {factor.shift} need more than 32 bits")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One call; what is transposed is only walked through in other steps."""
    operator = step.operator
    a, b = (model.tensor(index) for index in operator.inputs)
    result = model.tensor(step.output)
    rows, columns = result.shape[-2:]
    flipped = [bool(operator.options.get(name, False)) for name in ("adj_x", "adj_y")]
    depth = a.shape[-2 if flipped[0] else -1]
    steps = (1, rows) if flipped[0] else (depth, 1), (depth, 1) if flipped[1] else (1, columns)
    factor = _factor(a, b, result)
    offsets = np.stack([_starts(tensor, result.shape[:-2]) for tensor in (a, b)], 1)
    constants = [
        Constant("offsets", offsets.astype(np.int32)),
        Constant("shape", np.array([rows, columns, depth, *steps[0], *steps[1]], np.int32)),
        Constant("factors", np.array([a.zero_point, b.zero_point, result.zero_point, *_pair(factor)], np.int32)),
    ]
    pointers, computed = [], 0
    for name, tensor in (("a", a), ("b", b)):
        if tensor.data is None:
            pointers.append(f"{{in{computed}}}")
            computed += 1
        else:
            pointers.append(f"{{{name}}}")
            constants.append(Constant(name, tensor.data))
    call = f"EP(batch_matmul)({', '.join(pointers)}, {{out0}}, {{offsets}}, {len(offsets)}, {{shape}}, {{factors}});"
    return Lowered(call, ("ep_matmul",), tuple(constants))


def _factor(a: Tensor, b: Tensor, result: Tensor) -> FixedPoint:
    """The reference multiplies the scales of the operands in float32, and divides in float64."""
    return fixed_point(float(np.float32(a.scale) * np.float32(b.scale)) / result.scale)


def _pair(factor: FixedPoint) -> tuple[int, int]:
    return factor.multiplier, factor.shift


def _starts(tensor: Tensor, batches: tuple[int, ...]) -> Array:
    """Where the matrix of each batch of the result starts."""
    own = tensor.shape[:-2]
    starts = np.arange(prod(own)).reshape(own) * prod(tensor.shape[-2:])
    return np.broadcast_to(starts, batches).ravel()
