"""UNIDIRECTIONAL_SEQUENCE_LSTM with int8 values and int16 cells, four gates and nothing else.

Every run starts from zero states, as the reference does after its variables are reset.
"""

from __future__ import annotations

import math

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.errors import UnsupportedError

KINDS = ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
_GATES = range(4)
_INPUT_WEIGHTS, _RECURRENT_WEIGHTS, _BIASES, _OUTPUT_STATE, _CELL_STATE = 1, 5, 12, 18, 19  # positions of inputs
_LEFT_OUT = {
    "a peephole": (9, 10, 11),
    "a projection": (16, 17),
    "layer normalisation": (20, 21, 22, 23),
}
_GATE_SCALE = np.float32(2**-12)
_UNIT = np.float32(2**-15)


def check(model: Model, operator: Operator) -> None:
    """Refuse other cells than the plain one, other number formats, and cell scales without an exact tanh."""
    for what, positions in _LEFT_OUT.items():
        if any(position < len(operator.inputs) and operator.inputs[position] is not None for position in positions):
            raise UnsupportedError(f"it has {what}")
    if operator.inputs[_INPUT_WEIGHTS] is None:
        raise UnsupportedError("its input and forget gates are coupled")
    activation = operator.options.get("fused_activation_function", "TANH")
    if activation != "TANH":
        raise UnsupportedError(f"its activation is {activation}, not TANH")
    if len(operator.intermediates) != 5:
        raise UnsupportedError(f"it has {len(operator.intermediates)} intermediate tensors, 5 tell its scales")
    for position, dtype in ((0, "int8"), (_INPUT_WEIGHTS, "int8"), (_OUTPUT_STATE, "int8"), (_CELL_STATE, "int16")):
        tensor = model.tensor(operator.inputs[position])
        if tensor.dtype != dtype:
            raise UnsupportedError(f"{tensor.name} is {tensor.dtype}, not {dtype}")
    scale = model.tensor(operator.inputs[_CELL_STATE]).scale
    if scale not in [2.0**power for power in range(-15, -8)]:
        raise UnsupportedError(f"its cells have scale {scale:.4g}, not a power of two from 2 ** -15 to 2 ** -9")
    _check_sums(model, operator)


def _check_sums(model: Model, operator: Operator) -> None:
    for first, count, source in ((_INPUT_WEIGHTS, _BIASES, 0), (_RECURRENT_WEIGHTS, None, _OUTPUT_STATE)):
        for gate in _GATES:
            weights = _data(model, operator, first + gate)
            bias = np.abs(_data(model, operator, count + gate)).max() if count else 0
            factor = _factor(model.tensor(operator.inputs[source]), model.tensor(operator.inputs[first + gate]))
            if int(np.abs(weights).sum(1).max() * 255 + bias) << max(factor.shift, 0) >= 2**31 - 2**15:
                raise UnsupportedError(f"sums of gate {gate} rescaled by 2 ** {factor.shift} need more than 32 bits")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One call for the whole sequence. The states live in scratch memory and the output; none is kept."""
    operator = step.operator
    source, result = model.tensor(operator.inputs[0]), model.tensor(step.output)
    inputs, cells = source.shape[2], result.shape[2]
    first = bool(operator.options.get("time_major", False))
    times, batches = source.shape[:2] if first else source.shape[1::-1]
    in_steps, out_steps = (_steps(batches if first else times, size, first) for size in (inputs, cells))
    sizes = np.array([batches, times, inputs, cells, *in_steps, *out_steps], np.int32)
    weights = [
        _data(model, operator, start + gate) for start in (_INPUT_WEIGHTS, _RECURRENT_WEIGHTS) for gate in _GATES
    ]
    constants = (
        Constant("weights", np.concatenate([values.ravel() for values in weights]).astype(np.int8)),
        Constant("biases", _biases(model, operator)),
        Constant("sizes", sizes),
        Constant("numbers", _numbers(model, operator)),
    )
    call = "EP(lstm)({in0}, {out0}, {weights}, {biases}, {sizes}, {numbers}, {scratch});"
    return Lowered(call, ("ep_lstm",), constants, scratch_bytes=11 * cells)


def _steps(inner: int, size: int, time_major: bool) -> tuple[int, int]:
    """Elements from one batch to the next, and from one time to the next."""
    return (size, inner * size) if time_major else (inner * size, size)


def _data(model: Model, operator: Operator, position: int) -> Array:
    data = model.tensor(operator.inputs[position]).data
    assert data is not None
    return data.astype(np.int64)


def _factor(source: Tensor, weights: Tensor) -> FixedPoint:
    """From sums to gates; the reference computes it in float32."""
    with np.errstate(over="ignore"):
        real = np.float32(source.scale) * np.float32(weights.scale) / _GATE_SCALE
    return fixed_point(float(real))


def _biases(model: Model, operator: Operator) -> Array:
    """(8, cells) int32: for inputs and for outputs before, less what the zero points add to the sums."""
    kept = []
    for start, source in ((_INPUT_WEIGHTS, 0), (_RECURRENT_WEIGHTS, _OUTPUT_STATE)):
        zero_point = model.tensor(operator.inputs[source]).zero_point
        for gate in _GATES:
            given = _data(model, operator, _BIASES + gate) if start == _INPUT_WEIGHTS else 0
            kept.append(given - zero_point * _data(model, operator, start + gate).sum(1))
    return np.stack(kept).astype(np.int32)


def _numbers(model: Model, operator: Operator) -> Array:
    """What `ep_lstm.h` lists, int32."""
    found: list[int] = []
    for start, source in ((_INPUT_WEIGHTS, 0), (_RECURRENT_WEIGHTS, _OUTPUT_STATE)):
        for gate in _GATES:
            factor = _factor(model.tensor(operator.inputs[source]), model.tensor(operator.inputs[start + gate]))
            found += [factor.multiplier, factor.shift]
    scale = model.tensor(operator.inputs[_CELL_STATE]).scale
    power = round(math.log2(scale))
    clip = float(operator.options.get("cell_clip", 0.0))
    most = min(int(np.float32(clip) / np.float32(scale)), 2**15 - 1) if clip > 0 else 2**15
    hidden, state = model.tensor(operator.intermediates[4]), model.tensor(operator.inputs[_OUTPUT_STATE])
    factor = fixed_point(float(_UNIT / np.float32(hidden.scale) * _UNIT))
    found += [30 + power, 15 + power, most, factor.multiplier, factor.shift, hidden.zero_point, state.zero_point]
    return np.array(found, np.int32)
