"""What each kind of operator takes and gives: how many tensors, of which number formats and ranks, which constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeprune.backends.c.model import DataType, Model, Operator, Quantization
from edgeprune.errors import UnsupportedError, UsageError

Role = Literal["data", "weights", "bias", "values", "state", "absent"]

_INT8: tuple[DataType, ...] = ("int8",)
_ANY: tuple[DataType, ...] = ("int8", "uint8", "int16", "int32", "int64", "bool")
_REQUANTIZED: tuple[DataType, ...] = ("int8", "uint8", "int16", "int32")
_INDEX: tuple[DataType, ...] = ("int32", "int64")


@dataclass(frozen=True)
class Argument:
    """An input.

    Attributes:
        role: `data` is computed or constant; `weights`, `bias` and `values` are constant, of which weights are
            symmetric; a `state` is a variable tensor; an `absent` one is not supported.
        ranks: Least and greatest number of axes.
    """

    role: Role = "data"
    types: tuple[DataType, ...] = _INT8
    ranks: tuple[int, int] = (0, 8)
    optional: bool = False
    channel_axis: int = 0  # of weights that have one scale per channel


@dataclass(frozen=True)
class Signature:
    """A kind of operator.

    Attributes:
        version: The newest that is known, which is the newest that LiteRT's reference kernels run.
        table: Its options table in `options.TABLES`.
        inputs: The last one may be repeated where `repeated`.
        outputs: How many; the name of the option that says it where it varies.
        same: Whether outputs have the number format of the first `data` input.
    """

    version: int
    table: str
    inputs: tuple[Argument, ...]
    outputs: int | str = 1
    repeated: bool = False
    same: bool = True


_X = Argument()
_X4 = Argument(ranks=(4, 4))
_MOVED = Argument(types=_ANY)
_WEIGHTS = Argument("weights", ranks=(4, 4))
_BIAS = Argument("bias", ("int32",), (1, 1), optional=True)
_INDICES = Argument("values", _INDEX, (0, 1))
_INDICES_32 = Argument("values", ("int32",), (0, 1))
_PADDINGS = Argument("values", _INDEX, (2, 2))
_PADDINGS_32 = Argument("values", ("int32",), (2, 2))
_X3 = Argument(ranks=(3, 4))
_SIZES_32 = Argument("values", ("int32",), (1, 1))


def _lstm_inputs() -> tuple[Argument, ...]:
    """Input; weights of input, forget, cell and output gate for inputs, then for outputs before; peepholes; biases;
    projection; states of outputs and cells; layer normalisation."""
    weights, bias = Argument("weights", ranks=(2, 2)), Argument("bias", ("int32",), (1, 1))
    left_out = Argument("absent", optional=True)
    gates = (Argument("weights", ranks=(2, 2), optional=True), weights, weights, weights)
    biases = (Argument("bias", ("int32",), (1, 1), optional=True), bias, bias, bias)
    states = (Argument("state", ranks=(2, 2)), Argument("state", ("int16",), (2, 2)))
    head = (Argument(ranks=(3, 3)), *gates, *gates, *3 * (left_out,), *biases, *2 * (left_out,), *states)
    return (*head, *4 * (left_out,))


SIGNATURES: dict[str, Signature] = {
    "CONV_2D": Signature(8, "Conv2D", (_X4, _WEIGHTS, _BIAS)),
    "DEPTHWISE_CONV_2D": Signature(
        6, "DepthwiseConv2D", (_X4, Argument("weights", ranks=(4, 4), channel_axis=3), _BIAS)
    ),
    "TRANSPOSE_CONV": Signature(5, "TransposeConv", (_INDICES_32, _WEIGHTS, _X4, _BIAS)),
    "FULLY_CONNECTED": Signature(
        14, "FullyConnected", (Argument(ranks=(1, 8)), Argument("weights", ranks=(2, 2)), _BIAS)
    ),
    "BATCH_MATMUL": Signature(4, "BatchMatMul", 2 * (Argument(ranks=(2, 8)),)),
    "ADD": Signature(5, "Add", (_X, _X)),
    "SUB": Signature(5, "Sub", (_X, _X)),
    "MUL": Signature(7, "Mul", (_X, _X)),
    "MAXIMUM": Signature(4, "MaximumMinimum", (_X, _X)),
    "MINIMUM": Signature(4, "MaximumMinimum", (_X, _X)),
    "AVERAGE_POOL_2D": Signature(3, "Pool2D", (_X4,)),
    "MAX_POOL_2D": Signature(3, "Pool2D", (_X4,)),
    "SQUARED_DIFFERENCE": Signature(2, "SquaredDifference", (_X, _X)),
    "PRELU": Signature(1, "", (_X, _X)),
    "MEAN": Signature(3, "Reducer", (_X, _INDICES_32)),
    "REDUCE_MAX": Signature(3, "Reducer", (_X, _INDICES_32)),
    "REDUCE_MIN": Signature(3, "Reducer", (_X, _INDICES_32)),
    "SUM": Signature(2, "Reducer", (_X, _INDICES_32)),
    "SOFTMAX": Signature(3, "Softmax", (Argument(ranks=(1, 8)),)),
    "LOGISTIC": Signature(3, "", (_X,)),
    "TANH": Signature(3, "", (_X,)),
    "RELU": Signature(3, "", (_X,)),
    "RELU6": Signature(3, "", (_X,)),
    "RELU_N1_TO_1": Signature(1, "", (_X,)),
    "RELU_0_TO_1": Signature(1, "", (_X,)),
    "LEAKY_RELU": Signature(2, "LeakyRelu", (_X,)),
    "HARD_SWISH": Signature(1, "HardSwish", (_X,)),
    "GELU": Signature(2, "Gelu", (_X,)),
    "ABS": Signature(3, "Abs", (_X,)),
    "EXP": Signature(2, "Exp", (_X,)),
    "LOG": Signature(2, "", (_X,)),
    "SQRT": Signature(2, "", (_X,)),
    "RSQRT": Signature(3, "", (_X,)),
    "PAD": Signature(6, "Pad", (_MOVED, _PADDINGS)),
    "PADV2": Signature(6, "PadV2", (_MOVED, _PADDINGS, Argument("values", _ANY, (0, 1)))),
    "MIRROR_PAD": Signature(3, "MirrorPad", (_X, _PADDINGS)),
    "RESHAPE": Signature(1, "Reshape", (_MOVED, Argument("values", ("int32",), (0, 1), optional=True))),
    "SQUEEZE": Signature(1, "Squeeze", (_MOVED,)),
    "EXPAND_DIMS": Signature(1, "ExpandDims", (_MOVED, _INDICES)),
    "CONCATENATION": Signature(7, "Concatenation", (_MOVED,), repeated=True),
    "SPLIT": Signature(5, "Split", (_INDICES_32, _MOVED), outputs="num_splits"),
    "SPLIT_V": Signature(3, "SplitV", (_MOVED, _INDICES, _INDICES_32), outputs="num_splits"),
    "SLICE": Signature(8, "Slice", (_MOVED, _INDICES, _INDICES)),
    "STRIDED_SLICE": Signature(4, "StridedSlice", (_MOVED, _INDICES_32, _INDICES_32, _INDICES_32)),
    "TRANSPOSE": Signature(8, "Transpose", (_MOVED, _INDICES_32)),
    "REVERSE_V2": Signature(4, "ReverseV2", (_X, _INDICES_32)),
    "TILE": Signature(2, "Tile", (_X, _INDICES)),
    "BROADCAST_TO": Signature(4, "BroadcastTo", (_X, _INDICES)),
    "SPACE_TO_DEPTH": Signature(2, "SpaceToDepth", (_X4,)),
    "DEPTH_TO_SPACE": Signature(1, "DepthToSpace", (_X4,)),
    "SPACE_TO_BATCH_ND": Signature(4, "SpaceToBatchND", (_X3, _SIZES_32, _PADDINGS_32)),
    "BATCH_TO_SPACE_ND": Signature(4, "BatchToSpaceND", (_X3, _SIZES_32, _PADDINGS_32)),
    "RESIZE_NEAREST_NEIGHBOR": Signature(4, "ResizeNearestNeighbor", (_X4, _INDICES_32)),
    "RESIZE_BILINEAR": Signature(4, "ResizeBilinear", (_X4, _INDICES_32)),
    "QUANTIZE": Signature(6, "Quantize", (Argument(types=_REQUANTIZED),), same=False),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Signature(3, "UnidirectionalSequenceLSTM", _lstm_inputs()),
    "PACK": Signature(5, "Pack", (_MOVED,), repeated=True),
    "UNPACK": Signature(6, "Unpack", (_MOVED,), outputs="num"),
    "GATHER": Signature(8, "Gather", (_MOVED, Argument(types=_INDEX))),
}
_FARTHEST = 2.0**40  # of scales of activations from 1: quotients of three of them are float32 numbers
_BIAS_TOLERANCE = 1e-3  # of float32 scales multiplied by whoever wrote the file
_QUANTIZED = ("int8", "uint8", "int16")


def arguments(operator: Operator) -> tuple[Argument, ...]:
    """What each of its inputs has to be; inputs that may be left out at the end are.

    Raises:
        UsageError: It has too few or too many.
    """
    signature = SIGNATURES[operator.kind]
    count, listed = len(operator.inputs), signature.inputs
    if signature.repeated:
        listed = listed * count
    least = max((i + 1 for i, argument in enumerate(listed) if not argument.optional), default=0) or 1
    if not least <= count <= len(listed):
        raise UsageError(f"it has {count} inputs, not {least}" + (f" to {len(listed)}" if least < len(listed) else ""))
    return listed[:count]


def check_signature(model: Model, operator: Operator) -> None:
    """Hold an operator's tensors against its kind.

    Raises:
        UnsupportedError: A constant that has to be computed, or the other way; a number format, a quantisation, a rank
            that its kind does not take.
        UsageError: Tensors that are missing or too many, quantisation that is missing.
    """
    listed = arguments(operator)
    for position, (index, argument) in enumerate(zip(operator.inputs, listed, strict=True)):
        if index is not None:
            _check_input(model, index, argument, f"input {position}")
        elif not argument.optional:
            raise UsageError(f"its input {position} is left out")
    if not any(
        model.tensors[i].data is None and not model.tensors[i].variable for i in operator.inputs if i is not None
    ):
        raise UnsupportedError("all its inputs are constant", hint="fold constants when converting")
    outputs = SIGNATURES[operator.kind].outputs
    count = outputs if isinstance(outputs, int) else operator.options[outputs]
    if len(operator.outputs) != count:
        raise UsageError(f"it has {len(operator.outputs)} outputs, not {count}")
    _check_formats(model, operator, listed)
    _check_bias(model, operator, listed)


def _check_input(model: Model, index: int, argument: Argument, what: str) -> None:
    tensor = model.tensors[index]
    if argument.role == "absent":
        raise UnsupportedError(f"its {what} is given: peepholes, projection and layer normalisation are not known here")
    if argument.role in ("weights", "bias", "values") and tensor.data is None:
        raise UnsupportedError(f"its {what} ({argument.role}) is computed, not constant")
    if tensor.variable != (argument.role == "state"):
        raise UnsupportedError(f"its {what} ({argument.role}) is {'' if tensor.variable else 'not '}variable")
    if tensor.dtype not in argument.types:
        raise UnsupportedError(f"its {what} ({argument.role}) is {tensor.dtype}, not {' or '.join(argument.types)}")
    least, most = argument.ranks
    if not least <= len(tensor.shape) <= most:
        raise UnsupportedError(f"its {what} ({argument.role}) has shape {tensor.shape}, not {least} to {most} axes")
    if argument.role in ("data", "state"):
        _check_activation(model, index, what)
    elif argument.role == "weights":
        _check_weights(tensor.quantization, argument, what)


def _check_weights(quantization: Quantization | None, argument: Argument, what: str) -> None:
    if quantization is None:
        raise UsageError(f"its {what} (weights) has no scale")
    if any(quantization.zero_points):
        raise UnsupportedError(f"its {what} (weights) is not symmetric: zero points are not all 0")
    axis = argument.channel_axis
    if len(quantization.scales) > 1 and quantization.axis != axis:
        raise UnsupportedError(f"its {what} (weights) has scales along axis {quantization.axis}, not {axis}")


def _check_activation(model: Model, index: int, what: str) -> None:
    """Values of few bits mean something by one scale and zero point."""
    tensor = model.tensors[index]
    if tensor.quantization is None:
        if tensor.dtype in _QUANTIZED:
            raise UsageError(f"its {what} is {tensor.dtype} without a scale")
    elif len(tensor.quantization.scales) > 1:
        raise UnsupportedError(f"its {what} has a scale per channel")
    elif not 1 / _FARTHEST <= tensor.scale <= _FARTHEST:
        raise UnsupportedError(f"its {what} has the scale {tensor.scale:.4g}, which no values are computed at")
    if tensor.size == 0:
        raise UnsupportedError(f"its {what} has no elements: its shape is {tensor.shape}")


def _check_formats(model: Model, operator: Operator, listed: Sequence[Argument]) -> None:
    """Outputs, and inputs that are worked on together, have one number format."""
    signature = SIGNATURES[operator.kind]
    data = [i for i, argument in zip(operator.inputs, listed) if argument.role == "data" and i is not None]
    dtype = model.tensors[data[0]].dtype
    if signature.repeated and any(model.tensors[i].dtype != dtype for i in data):
        raise UsageError("its inputs have different number formats")
    for position, index in enumerate(operator.outputs):
        _check_activation(model, index, f"output {position}")
        found = model.tensors[index].dtype
        if signature.same and found != dtype:
            raise UsageError(f"its output {position} is {found}, its input {dtype}")
        if not signature.same and found not in _REQUANTIZED:
            raise UnsupportedError(f"its output {position} is {found}, not {' or '.join(_REQUANTIZED)}")
    if operator.kind == "PADV2" and model.tensor(operator.inputs[2]).dtype != dtype:
        raise UsageError("its padding value has another number format than its input")


def _check_bias(model: Model, operator: Operator, listed: Sequence[Argument]) -> None:
    """A sum starts at its bias, so the bias counts in steps of input scale times weight scale, whatever is written.

    Those of an LSTM have rules of their own.
    """
    roles = [argument.role for argument in listed]
    if roles.count("weights") != 1 or "bias" not in roles or operator.inputs[roles.index("bias")] is None:
        return
    data, weights, bias = (model.tensor(operator.inputs[roles.index(role)]) for role in ("data", "weights", "bias"))
    channels = weights.shape[listed[roles.index("weights")].channel_axis]
    if bias.shape != (channels,):
        raise UsageError(f"its bias has shape {bias.shape} for {channels} channels")
    if bias.quantization is None:
        return
    assert weights.quantization is not None
    expected = data.scale * np.asarray(weights.quantization.scales, np.float64)
    ratio = np.asarray(bias.quantization.scales, np.float64) / expected
    if not np.allclose(ratio, 1, rtol=0, atol=_BIAS_TOLERANCE):
        off = float(np.max(np.abs(ratio - 1))) * 100
        raise UsageError(f"its bias scale is off by {off:.1f} % from input x weight scale")
