"""Reads a .tflite file with the schema alone: its operators, number formats, and what contradicts the format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.backends import Inspection
from edgeprune.device.ops import Kind, Op
from edgeprune.errors import UsageError, missing_extra

_GATES = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 4, "LSTM": 4}
_KINDS: dict[str, Kind] = {
    "CONV_2D": "conv",
    "CONV_3D": "conv",
    "TRANSPOSE_CONV": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "dense",
    "BATCH_MATMUL": "matmul",
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), "mean"),
    "CONCATENATION": "concat",
    "SOFTMAX": "softmax",
    "LOG_SOFTMAX": "softmax",
    **dict.fromkeys(("ADD", "SUB", "ADD_N", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"), "add"),
    **dict.fromkeys(("MUL", "DIV"), "mul"),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), "pool"),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), "pad"),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), "resize"),
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "HARD_SWISH", "LOGISTIC", "TANH"), "activation"),
    **dict.fromkeys(("LEAKY_RELU", "PRELU", "ELU", "GELU", "ABS", "EXP", "LOG", "SQRT", "RSQRT"), "activation"),
    **dict.fromkeys(("TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "GATHER", "TILE", "PACK"), "move"),
    **dict.fromkeys(("UNPACK", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "BROADCAST_TO", "REVERSE_V2"), "move"),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), "move"),
    **dict.fromkeys(("QUANTIZE", "DEQUANTIZE", "CAST"), "quantize"),
    **dict.fromkeys(("UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "LSTM"), "rnn"),
}
# As in `Op.function`, where that is not the operator's name.
_FUNCTIONS = {
    **dict.fromkeys(("ADD", "SUB", "ADD_N", "MEAN", "SUM", "RESIZE_BILINEAR"), ""),
    **dict.fromkeys(("SPLIT", "SPLIT_V", "UNPACK"), "split"),
    "MAX_POOL_2D": "max",
    "AVERAGE_POOL_2D": "average",
}
_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")
_NO_TENSOR = -1


@dataclass(frozen=True)
class Contents:
    """The file's fused operators, and what the gates look at."""

    ops: tuple[Op, ...]
    inspection: Inspection


@dataclass(frozen=True)
class _Names:
    """Enumeration values of the schema back to their names."""

    operators: dict[int, str]
    types: dict[int, str]
    activations: dict[int, str]


def read(path: Path) -> Contents:
    """Everything the cost models and the gates need to know of the file's first subgraph.

    Raises:
        MissingExtraError: The schema is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    model, names = _parse(path)
    graph = model.subgraphs[0]
    tensors = graph.tensors
    alias: dict[int, int] = {}
    ops: list[Op] = []
    float_ops, layout_ops, faults = [], [], []
    macs = {True: 0, False: 0}
    for position, operator in enumerate(graph.operators):
        kind_name = _operator_name(model, operator, names)
        inputs = [int(i) for i in operator.inputs if i != _NO_TENSOR]
        activations = [i for i in inputs if not _is_constant(model, tensors[i])]
        if kind_name in _VIEWS and activations:
            alias[int(operator.outputs[0])] = alias.get(activations[0], activations[0])
            continue
        op = _op(kind_name, position, operator, activations or inputs, tensors, alias, names)
        op = replace(op, function=_function(model, kind_name, op.kind, inputs))
        ops.append(op)
        is_float = names.types[tensors[operator.outputs[0]].type] in _FLOATS
        macs[is_float] += op.macs
        if is_float and kind_name != "DEQUANTIZE":
            float_ops.append(f"{kind_name} {op.name}")
        if kind_name == "TRANSPOSE":
            layout_ops.append(f"{kind_name} {op.name}")
        if fault := _bias_fault(kind_name, op.name, inputs, tensors):
            faults.append(fault)
    inspection = Inspection(
        input_types=tuple(names.types[tensors[i].type].lower() for i in graph.inputs),
        output_types=tuple(names.types[tensors[i].type].lower() for i in graph.outputs),
        integer_macs=macs[False],
        float_macs=macs[True],
        float_ops=tuple(float_ops),
        layout_ops=tuple(layout_ops),
        faults=tuple(faults),
    )
    return Contents(tuple(ops), inspection)


def _parse(path: Path) -> tuple[Any, _Names]:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise missing_extra("tflite", "reading .tflite files") from error
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise UsageError("not a TFLite model: its identifier is missing", where=str(path))
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        if not model.subgraphs or model.subgraphs[0].operators is None:
            raise ValueError("it holds no operators")
    except Exception as error:
        raise UsageError(f"the TFLite model is damaged: {error}", where=str(path)) from error
    names = _Names(
        operators=_inverse(schema.BuiltinOperator),
        types=_inverse(schema.TensorType),
        activations=_inverse(schema.ActivationFunctionType),
    )
    return model, names


def _inverse(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _operator_name(model: Any, operator: Any, names: _Names) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    # Old files keep the code in the one-byte field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if code.customCode is not None:
        return str(code.customCode.decode(errors="replace"))
    return names.operators.get(number, f"OPERATOR_{number}")


def _is_constant(model: Any, tensor: Any) -> bool:
    """Weights lie in a buffer, or after the flatbuffer at the offset that the buffer names."""
    buffer = model.buffers[tensor.buffer]
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.size > 1


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def _tensor_name(index: int) -> str:
    return f"t{index}"


def _op(
    kind_name: str,
    position: int,
    operator: Any,
    activations: list[int],
    tensors: Any,
    alias: dict[int, int],
    names: _Names,
) -> Op:
    kind: Kind = _KINDS.get(kind_name, "other")
    before, after = _shape(tensors[activations[0]]), _shape(tensors[operator.outputs[0]])
    in_channels, out_channels = _last(before), _last(after)
    options = operator.builtinOptions
    kernel, groups, rows = 1, 1, 0
    if kind in ("conv", "depthwise"):
        weight = _shape(tensors[operator.inputs[1]])
        kernel, rows = weight[1] * weight[2], weight[1]
        groups = in_channels if kind == "depthwise" else max(1, in_channels // weight[3])
    elif kind == "dense":
        in_channels = _shape(tensors[operator.inputs[1]])[-1]
    elif kind == "rnn":
        kernel = _GATES.get(kind_name, 1)
    elif kind == "pool":
        kernel = options.filterHeight * options.filterWidth
    fused = getattr(options, "fusedActivationFunction", 0)
    return Op(
        name=f"{kind_name.lower()}_{position}",
        kind=kind,
        inputs=tuple(_tensor_name(alias.get(i, i)) for i in activations),
        output=_tensor_name(int(operator.outputs[0])),
        in_channels=in_channels,
        out_channels=out_channels,
        in_positions=prod(before) // max(in_channels, 1),
        out_positions=prod(after) // max(out_channels, 1),
        kernel=kernel,
        groups=groups,
        stride=getattr(options, "strideH", 1) * getattr(options, "strideW", 1),
        activation="" if not fused else names.activations[fused].lower(),
        nodes=(_decoded(tensors[operator.outputs[0]].name),),
        transposed=kind_name == "TRANSPOSE_CONV",
        columns=after[2] if rows and len(after) == 4 else 0,
        kernel_rows=rows,
    )


def _function(model: Any, kind_name: str, kind: Kind, inputs: list[int]) -> str:
    """As in `Op.function`."""
    if kind_name == "STRIDED_SLICE":
        steps = model.buffers[model.subgraphs[0].tensors[inputs[3]].buffer].data if len(inputs) > 3 else None
        return "strided" if steps is not None and np.any(np.asarray(steps).view(np.int32) != 1) else "slice"
    named = kind in ("activation", "pool", "move", "add", "mean", "resize")
    return _FUNCTIONS.get(kind_name, kind_name.lower()) if named else ""


def _last(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


def _decoded(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else (name or "")


def _bias_fault(kind_name: str, name: str, inputs: list[int], tensors: Any) -> str:
    """The runtime assumes bias scale = input scale × weight scale and never reads the file's own."""
    if kind_name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") or len(inputs) < 3:
        return ""
    scales = [_scales(tensors[i]) for i in inputs[:3]]
    if any(scale is None for scale in scales):
        return ""
    activation, weight, bias = (np.asarray(scale, np.float64) for scale in scales)
    if np.allclose(bias, activation * weight, rtol=1e-3):
        return ""
    ratio = float(np.max(np.abs(bias / (activation * weight) - 1)))
    return f"{kind_name} {name}: its bias scale is off by {ratio * 100:.1f} % from input × weight scale"


def _scales(tensor: Any) -> Any:
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
        return None
    return quantization.scale
