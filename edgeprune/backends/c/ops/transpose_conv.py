"""TRANSPOSE_CONV with scales per channel or one for all; the first input, the shape of the result, is not needed."""

from __future__ import annotations

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.backends.c.tables import quantized
from edgeprune.errors import UnsupportedError

KINDS = ("TRANSPOSE_CONV",)
_WEIGHTS, _INPUT, _BIAS = 1, 2, 3
_LIMITS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0, None),
    "RELU_N1_TO_1": (-1, 1),
    "RELU6": (0, 6),
}


def check(model: Model, operator: Operator) -> None:
    """Refuse other formats than int8, computed weights, activations that are no clamps, and sums of over 32 bits."""
    source, weights, result = _ends(model, operator)
    for tensor in (source, weights, result):
        if tensor.dtype != "int8":
            raise UnsupportedError(f"{tensor.name} is {tensor.dtype}, not int8")
    if weights.data is None:
        raise UnsupportedError("its weights are computed")
    activation = operator.options.get("fused_activation_function", "NONE")
    if activation not in _LIMITS:
        raise UnsupportedError(f"its activation is {activation}, not one of {', '.join(_LIMITS)}")
    most = np.abs(weights.data.astype(np.int64)).reshape(weights.shape[0], -1).sum(1) * 255
    for channel, factor in enumerate(_factors(source, weights, result)):
        bound = int(most[channel] + abs(int(_bias(model, operator)[channel])))
        if bound << max(factor.shift, 0) >= 2**31:
            raise UnsupportedError(f"sums of channel {channel} rescaled by 2 ** {factor.shift} need more than 32 bits")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One call that makes the result in order; no scratch memory."""
    operator = step.operator
    source, weights, result = _ends(model, operator)
    assert weights.data is not None
    options = operator.options
    strides = int(options["stride_h"]), int(options["stride_w"])
    pads = [0, 0]
    if options["padding"] == "SAME":
        for i, stride in enumerate(strides):
            covered = (source.shape[i + 1] - 1) * stride + weights.shape[i + 1]
            pads[i] = max(covered - result.shape[i + 1], 0) // 2
    sizes = [*source.shape, *result.shape[1:], *weights.shape[1:3], *strides, *pads]
    sizes += [
        source.zero_point,
        result.zero_point,
        *_clamp(str(options.get("fused_activation_function", "NONE")), result),
    ]
    factors = _factors(source, weights, result)
    pairs = np.array([(factor.multiplier, factor.shift) for factor in factors], np.int64)
    constants = (
        Constant("weights", weights.data),
        Constant("channels", np.column_stack([_bias(model, operator), pairs]).astype(np.int32)),
        Constant("sizes", np.array(sizes, np.int32)),
    )
    call = "EP(transpose_conv)({in0}, {out0}, {weights}, {channels}, {sizes});"
    return Lowered(call, ("ep_transpose_conv",), constants)


def _ends(model: Model, operator: Operator) -> tuple[Tensor, Tensor, Tensor]:
    inputs = operator.inputs
    return model.tensor(inputs[_INPUT]), model.tensor(inputs[_WEIGHTS]), model.tensor(operator.outputs[0])


def _bias(model: Model, operator: Operator) -> Array:
    """(out channels,) int64, zero where there is none."""
    if len(operator.inputs) <= _BIAS or operator.inputs[_BIAS] is None:
        return np.zeros(model.tensor(operator.inputs[_WEIGHTS]).shape[0], np.int64)
    data = model.tensor(operator.inputs[_BIAS]).data
    assert data is not None
    return data.astype(np.int64)


def _factors(source: Tensor, weights: Tensor, result: Tensor) -> list[FixedPoint]:
    """For each output channel; the scales are multiplied and divided in float64."""
    assert weights.quantization is not None
    scales = np.broadcast_to(weights.quantization.scales, weights.shape[:1])
    return [fixed_point(source.scale * float(scale) / result.scale) for scale in scales]


def _clamp(activation: str, result: Tensor) -> tuple[int, int]:
    low, high = _LIMITS[activation]
    lowest = -128 if low is None else max(quantized(low, result), -128)
    return lowest, 127 if high is None else min(quantized(high, result), 127)
