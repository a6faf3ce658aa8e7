"""What ONNX Runtime makes of a file: its graph after fusion, with the shape and number format of every tensor."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.backends import Array, Inspection
from edgeprune.device.ops import Kind, Op
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    import onnx

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("Add", "Sub", "Sum", "Max", "Min", "QLinearAdd"), "add"),
    **dict.fromkeys(("Mul", "Div", "QLinearMul"), "mul"),
    **dict.fromkeys(("Softmax", "LogSoftmax", "QLinearSoftmax"), "softmax"),
    **dict.fromkeys(("MaxPool", "AveragePool", "QLinearAveragePool"), "pool"),
    **dict.fromkeys(("GlobalAveragePool", "QLinearGlobalAveragePool", "ReduceMean", "QLinearReduceMean"), "mean"),
    **dict.fromkeys(("Concat", "QLinearConcat"), "concat"),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNorm"), "norm"),
    **dict.fromkeys(("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Tanh", "Erf"), "activation"),
    **dict.fromkeys(("Gelu", "Elu", "PRelu", "QLinearSigmoid", "QLinearLeakyRelu", "QuickGelu"), "activation"),
    **dict.fromkeys(("Transpose", "Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "Tile"), "move"),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "Cast"), "quantize"),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "rnn"),
    "Pad": "pad",
    "Resize": "resize",
}
_CONVS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
_DENSE = ("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulIntegerToFloat")
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant", "Dropout")


@dataclass(frozen=True)
class Optimized:
    """What ONNX Runtime really runs, and what the gates look at."""

    ops: tuple[Op, ...]
    inspection: Inspection


def read(path: Path) -> Optimized:
    """Optimise, run once on zeros to learn every shape and number format, and describe.

    Raises:
        UsageError: The file is missing or not an ONNX model.
    """
    graph = _optimized_graph(path)
    values = _run_once(graph)
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    alias: dict[str, str] = {}
    ops: list[Op] = []
    float_ops, layout_ops = [], []
    macs = {"float": 0, "integer": 0}
    for node in graph.graph.node:
        data = [name for name in node.input if name and name not in weights and name in values]
        if node.op_type in _VIEWS:
            if data:
                alias[node.output[0]] = alias.get(data[0], data[0])
            continue
        if not data or node.output[0] not in values:
            continue
        op = _op(node, data, values, weights, alias)
        ops.append(op)
        is_float = values[node.output[0]].dtype.kind == "f" and not node.op_type.startswith("Q")
        macs["float" if is_float else "integer"] += op.macs
        if is_float and op.kind != "quantize":
            float_ops.append(f"{node.op_type} {op.name}")
        if node.op_type == "Transpose":
            layout_ops.append(f"{node.op_type} {op.name}")
    inspection = Inspection(
        input_types=tuple(_type(values[entry.name]) for entry in graph.graph.input),
        output_types=tuple(_type(values[entry.name]) for entry in graph.graph.output),
        integer_macs=macs["integer"],
        float_macs=macs["float"],
        float_ops=tuple(float_ops),
        layout_ops=tuple(layout_ops),
    )
    return Optimized(tuple(ops), inspection)


def _type(value: Array) -> str:
    return str(value.dtype)


def _optimized_graph(path: Path) -> onnx.ModelProto:
    import onnx
    import onnxruntime

    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # One level below the default, whose layout blocks are private to this machine's CPU.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UsageError(
                f"ONNX Runtime cannot load it: {str(error).splitlines()[0][:300]}",
                where=str(path),
                hint="is it a whole .onnx file with its weights inside?",
            ) from error
        return onnx.load(target)


def _run_once(graph: onnx.ModelProto) -> dict[str, Array]:
    """Every activation for an input of zeros; free dimensions count as one."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    known = {output.name for output in probe.graph.output}
    inner = [name for node in probe.graph.node for name in node.output if name and name not in known]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in entry.shape]
        feeds[entry.name] = np.zeros(shape, _NUMPY.get(entry.type, np.float32))
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(names, feeds), strict=True))
    return {**feeds, **{name: value for name, value in values.items() if isinstance(value, np.ndarray)}}


_NUMPY: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def _op(
    node: onnx.NodeProto,
    data: list[str],
    values: dict[str, Array],
    weights: dict[str, tuple[int, ...]],
    alias: dict[str, str],
) -> Op:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    before, after = values[data[0]].shape, values[node.output[0]].shape
    kind: Kind = _KINDS.get(node.op_type, "other")
    in_channels, out_channels, kernel, groups, stride = _width(before), _width(after), 1, 1, 1
    if node.op_type in _CONVS:
        shape = weights[next(n for n in node.input if len(weights.get(n, ())) >= 3)]
        groups = attributes["group"].i if "group" in attributes else 1
        kernel = prod(shape[2:])
        stride = prod(attributes["strides"].ints) if "strides" in attributes else 1
        kind = "depthwise" if groups == in_channels and groups > 1 else "conv"
    elif node.op_type in _DENSE:
        in_channels, out_channels = before[-1], after[-1]
        kind = "dense" if any(len(weights.get(name, ())) == 2 for name in node.input) else "matmul"
    elif kind == "pool":
        kernel = prod(attributes["kernel_shape"].ints) if "kernel_shape" in attributes else 1
        stride = prod(attributes["strides"].ints) if "strides" in attributes else 1
    activation = attributes["activation"].s.decode().lower() if "activation" in attributes else ""
    return Op(
        name=node.output[0].removesuffix("_QuantizeLinear_Output"),
        kind=kind,
        inputs=tuple(alias.get(name, name) for name in data),
        output=node.output[0],
        in_channels=in_channels,
        out_channels=out_channels,
        in_positions=prod(before) // max(in_channels, 1),
        out_positions=prod(after) // max(out_channels, 1),
        kernel=kernel,
        groups=groups,
        stride=stride,
        activation=activation,
        nodes=(node.name,),
    )


def _width(shape: tuple[int, ...]) -> int:
    """Channels: axis 1 of images and sequences of channels, else the last axis."""
    if len(shape) in (3, 4, 5):
        return int(shape[1])
    return int(shape[-1]) if shape else 1
