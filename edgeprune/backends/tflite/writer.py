"""Writes .tflite files from sizes alone, with random weights: for timing, where answers do not matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.backends import Array, Precision
from edgeprune.device.networks import Layer, Network, Shape, shapes
from edgeprune.errors import UnsupportedError, missing_extra

_SCALE = 0.05  # of activations
_WEIGHTS = 32.0  # standard deviation of stored weights, whose largest ones are then near 127, as after training
# Scale and zero point of what a fused activation leaves, so that its range is that of int8 as exporters choose it.
_RANGES = {"": (_SCALE, 0), "relu": (_SCALE, -128), "relu6": (6 / 255, -128)}
_UNIT_SCALE, _UNIT_ZERO = 1 / 256, -128  # what logistic and softmax must answer in
_FUSED = {"": "NONE", "relu": "RELU", "relu6": "RELU6"}
# Operator versions that take int8 (with scales per channel where there are weights).
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 5,
    "BATCH_MATMUL": 2,
    "HARD_SWISH": 1,
    "RESIZE_BILINEAR": 2,
}


def write(network: Network, path: Path, precision: Precision) -> None:
    """Write the network; the same network gives the same bytes.

    Raises:
        MissingExtraError: The schema is not installed.
        UnsupportedError: A layer is of a kind that this writer does not know.
    """
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise missing_extra("tflite", "writing .tflite files") from error
    if unknown := sorted({layer.kind for layer in network.layers} - set(_WRITERS)):
        raise UnsupportedError(f"cannot write layers of kind {', '.join(unknown)}", where=network.name)
    file = _File(schema, precision == "int8", np.random.default_rng(0))
    sizes = shapes(network)
    values = [file.activation(sizes[0])]
    for layer, size in zip(network.layers, sizes[1:], strict=True):
        read = [values[index] for index in layer.inputs]
        values.append(_WRITERS[layer.kind](file, layer, read, [sizes[index] for index in layer.inputs], size))
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(file.model(values[0], values[-1]).Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


@dataclass
class _File:
    """A model being put together."""

    schema: Any
    int8: bool
    random: np.random.Generator
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    scales: dict[int, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.buffers.append(self.schema.BufferT())  # the first one is empty by convention

    def activation(self, shape: Shape, scale: float = _SCALE, zero: int = 0) -> int:
        """A tensor of an image at batch one."""
        index = self._tensor((1, *shape), "INT8" if self.int8 else "FLOAT32", 0)
        if self.int8:
            self._quantize(index, np.array([scale], np.float32), zero)
        self.scales[index] = (scale, zero)
        return index

    def constant(self, values: Array, kind: str) -> int:
        """A tensor with its values."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._tensor(values.shape, kind, len(self.buffers) - 1)

    def weights(self, shape: tuple[int, ...], outputs: int, axis: int, source: int) -> list[int]:
        """Random weights and biases for `outputs` channels along `axis`."""
        deviation = (prod(shape) / outputs) ** -0.5  # answers stay in the range of the input
        if not self.int8:
            values = (self.random.standard_normal(shape) * deviation).astype(np.float32)
            return [self.constant(values, "FLOAT32"), self.constant(np.zeros(outputs, np.float32), "FLOAT32")]
        values = np.clip(np.rint(self.random.standard_normal(shape) * _WEIGHTS), -127, 127).astype(np.int8)
        scales = np.full(outputs, deviation / _WEIGHTS, np.float32)
        weights, biases = self.constant(values, "INT8"), self.constant(np.zeros(outputs, np.int32), "INT32")
        self._quantize(weights, scales, 0, axis)
        self._quantize(biases, (scales * np.float32(self.scales[source][0])).astype(np.float32), 0)
        return [weights, biases]

    def operator(self, name: str, inputs: list[int], output: int, options: str = "", **values: Any) -> int:
        """An operator and its options; returns the output."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(name, len(self.codes))
        operator.inputs, operator.outputs = inputs, [output]
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, options + "T")()
            for key, value in values.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)
        return output

    def model(self, source: int, answer: int) -> Any:
        """The whole file as the schema's objects."""
        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [source], [answer]
        model.version, model.buffers, model.subgraphs = 3, self.buffers, [graph]
        model.operatorCodes = []
        for name in self.codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = getattr(self.schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(name, 2)
            model.operatorCodes.append(code)
        return model

    def _tensor(self, shape: tuple[int, ...], kind: str, buffer: int) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{len(self.tensors)}", list(shape), buffer
        tensor.type = getattr(self.schema.TensorType, kind)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _quantize(self, index: int, scales: Array, zero: int, axis: int = 0) -> None:
        quantization = self.schema.QuantizationParametersT()
        quantization.scale, quantization.quantizedDimension = scales, axis
        quantization.zeroPoint = np.full(scales.shape, zero, np.int64)
        self.tensors[index].quantization = quantization


def _fused(file: _File, layer: Layer) -> int:
    value: int = getattr(file.schema.ActivationFunctionType, _FUSED[layer.activation])
    return value


def _fused_output(file: _File, layer: Layer, after: Shape) -> int:
    return file.activation(after, *_RANGES[layer.activation])


def _window(file: _File, layer: Layer) -> dict[str, Any]:
    return {"padding": file.schema.Padding.SAME, "strideH": layer.stride, "strideW": layer.stride}


def _conv(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    shape = (after[2], layer.kernel, layer.kernel, before[0][2] // layer.groups)
    inputs = [read[0], *file.weights(shape, after[2], 0, read[0])]
    options = {**_window(file, layer), "fusedActivationFunction": _fused(file, layer)}
    options |= {"dilationHFactor": 1, "dilationWFactor": 1}
    return file.operator("CONV_2D", inputs, _fused_output(file, layer, after), "Conv2DOptions", **options)


def _depthwise(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    shape = (1, layer.kernel, layer.kernel, after[2])
    inputs = [read[0], *file.weights(shape, after[2], 3, read[0])]
    options = {**_window(file, layer), "fusedActivationFunction": _fused(file, layer), "depthMultiplier": 1}
    options |= {"dilationHFactor": 1, "dilationWFactor": 1}
    return file.operator(
        "DEPTHWISE_CONV_2D", inputs, _fused_output(file, layer, after), "DepthwiseConv2DOptions", **options
    )


def _dense(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    inputs = [read[0], *file.weights((after[2], before[0][2]), after[2], 0, read[0])]
    options = {"keepNumDims": True, "fusedActivationFunction": _fused(file, layer)}
    return file.operator(
        "FULLY_CONNECTED", inputs, _fused_output(file, layer, after), "FullyConnectedOptions", **options
    )


def _matmul(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    return file.operator("BATCH_MATMUL", read, file.activation(after), "BatchMatMulOptions", adjY=True)


def _pair(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    name, options = {"add": ("ADD", "AddOptions"), "mul": ("MUL", "MulOptions")}[layer.kind]
    output = _fused_output(file, layer, after)
    return file.operator(name, read, output, options, fusedActivationFunction=_fused(file, layer))


def _activation(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    ranges = {"logistic": (_UNIT_SCALE, _UNIT_ZERO), "tanh": (1 / 128, 0)}
    output = file.activation(after, *ranges.get(layer.activation, (_SCALE, 0)))
    options = "HardSwishOptions" if layer.activation == "hard_swish" else ""
    return file.operator(layer.activation.upper(), read, output, options)


def _softmax(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    output = file.activation(after, _UNIT_SCALE, _UNIT_ZERO)
    return file.operator("SOFTMAX", read, output, "SoftmaxOptions", beta=1.0)


def _pool(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    name = {"max": "MAX_POOL_2D", "average": "AVERAGE_POOL_2D"}[layer.activation]
    options = {**_window(file, layer), "filterHeight": layer.kernel, "filterWidth": layer.kernel}
    return file.operator(name, read, file.activation(after, *file.scales[read[0]]), "Pool2DOptions", **options)


def _mean(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    axes = file.constant(np.array([1, 2], np.int32), "INT32")
    return file.operator("MEAN", [read[0], axes], file.activation(after), "ReducerOptions", keepDims=True)


def _concat(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    output = file.activation(after, *file.scales[read[0]])
    return file.operator("CONCATENATION", read, output, "ConcatenationOptions", axis=3)


def _pad(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    edge = layer.kernel // 2
    edges = file.constant(np.array([[0, 0], [edge, edge], [edge, edge], [0, 0]], np.int32), "INT32")
    return file.operator("PAD", [read[0], edges], file.activation(after, *file.scales[read[0]]), "PadOptions")


def _resize(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    size = file.constant(np.array(after[:2], np.int32), "INT32")
    output = file.activation(after, *file.scales[read[0]])
    options = {"alignCorners": False, "halfPixelCenters": True}
    return file.operator("RESIZE_BILINEAR", [read[0], size], output, "ResizeBilinearOptions", **options)


def _move(file: _File, layer: Layer, read: list[int], before: list[Shape], after: Shape) -> int:
    output = file.activation(after, *file.scales[read[0]])

    def numbers(*values: int) -> int:
        return file.constant(np.array(values, np.int32), "INT32")

    if layer.activation == "transpose":
        return file.operator("TRANSPOSE", [read[0], numbers(0, 1, 3, 2)], output, "TransposeOptions")
    if layer.activation == "slice":
        inputs = [read[0], numbers(0, 0, 0, 0), numbers(1, *after)]
        return file.operator("SLICE", inputs, output, "SliceOptions")
    height, width, channels = before[0]
    steps = numbers(1, 1 + (after[0] < height), 1 + (after[1] < width), 1)
    inputs = [read[0], numbers(0, 0, 0, 0), numbers(1, height, width, channels), steps]
    return file.operator("STRIDED_SLICE", inputs, output, "StridedSliceOptions")


_WRITERS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "matmul": _matmul,
    "add": _pair,
    "mul": _pair,
    "activation": _activation,
    "softmax": _softmax,
    "pool": _pool,
    "mean": _mean,
    "concat": _concat,
    "pad": _pad,
    "resize": _resize,
    "move": _move,
}
