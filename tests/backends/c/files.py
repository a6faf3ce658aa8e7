"""Writes a `Model` as a .tflite file, so that tests can make files with any operator and any quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.backends.c.model import Model, Operator, Tensor

_ENUMERATIONS = {
    "padding": schema.Padding,
    "fused_activation_function": schema.ActivationFunctionType,
    "weights_format": schema.FullyConnectedOptionsWeightsFormat,
    "quantized_bias_type": schema.TensorType,
    "mode": schema.MirrorPadMode,
}
# Options tables whose name does not follow from the operator's.
_OPTIONS = {
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "CONV_2D": "Conv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "PADV2": "PadV2Options",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REVERSE_V2": "ReverseV2Options",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions",
}


def write(model: Model, path: Path) -> Path:
    """The file; returns its path."""
    graph, root = schema.SubGraphT(), schema.ModelT()
    root.buffers = [schema.BufferT()]  # the first one is empty by convention
    graph.tensors = [_tensor(tensor, root.buffers) for tensor in model.tensors]
    root.operatorCodes, graph.operators = [], []
    codes: dict[tuple[str, int], int] = {}
    for operator in model.operators:
        index = codes.setdefault((operator.kind, operator.version), len(codes))
        graph.operators.append(_operator(operator, index))
    for kind, version in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        root.operatorCodes.append(code)
    graph.inputs, graph.outputs = list(model.inputs), list(model.outputs)
    root.version, root.subgraphs = 3, [graph]
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(root.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    written = schema.TensorT()
    written.name, written.shape = tensor.name.encode(), list(tensor.shape)
    written.type = getattr(schema.TensorType, tensor.dtype.upper())
    written.hasRank = True
    written.isVariable = tensor.variable
    written.buffer = 0
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        buffers.append(buffer)
        written.buffer = len(buffers) - 1
    if tensor.quantization is not None:
        written.quantization = schema.QuantizationParametersT()
        written.quantization.scale = np.array(tensor.quantization.scales, np.float32)
        written.quantization.zeroPoint = np.array(tensor.quantization.zero_points, np.int64)
        written.quantization.quantizedDimension = tensor.quantization.axis
    return written


def _operator(operator: Operator, code: int) -> Any:
    written = schema.OperatorT()
    written.opcodeIndex = code
    written.inputs = [-1 if index is None else index for index in operator.inputs]
    written.outputs = list(operator.outputs)
    written.intermediates = list(operator.intermediates) or None
    name = _OPTIONS.get(operator.kind, "".join(word.title() for word in operator.kind.split("_")) + "Options")
    if hasattr(schema.BuiltinOptions, name):
        written.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        written.builtinOptions = getattr(schema, f"{name}T")()
        for key, value in operator.options.items():
            field = "".join(word.title() if i else word for i, word in enumerate(key.split("_")))
            assert hasattr(written.builtinOptions, field), f"{name} has no {field}"
            enumeration = _ENUMERATIONS.get(key)
            setattr(written.builtinOptions, field, getattr(enumeration, str(value)) if enumeration else value)
    return written
