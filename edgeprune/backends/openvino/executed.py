"""What OpenVINO's CPU plugin makes of a file: the operators it executes and the precision of each."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edgeprune.backends import Inspection
from edgeprune.device.ops import Kind, Op
from edgeprune.errors import UnsupportedError

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("Convolution", "Deconvolution"), "conv"),
    **dict.fromkeys(("FullyConnected",), "dense"),
    **dict.fromkeys(("MatMul",), "matmul"),
    **dict.fromkeys(("Eltwise", "Subgraph"), "add"),
    **dict.fromkeys(("Math",), "activation"),
    **dict.fromkeys(("Pooling", "AdaptivePooling"), "pool"),
    **dict.fromkeys(("Reduce",), "mean"),
    **dict.fromkeys(("Concatenation",), "concat"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "softmax"),
    **dict.fromkeys(("MVN", "NormalizeL2", "RMS"), "norm"),
    **dict.fromkeys(("Transpose", "Reorder", "Split", "StridedSlice", "Gather", "DepthToSpace", "Tile"), "move"),
    **dict.fromkeys(("ShuffleChannels", "Broadcast"), "move"),
    **dict.fromkeys(("RNNSeq", "RNNCell"), "rnn"),
    **dict.fromkeys(("Convert", "FakeQuantize"), "quantize"),
    "Pad": "pad",
    "Interpolate": "resize",
}
_NOT_RUN = ("Input", "Output", "Const", "Reshape")
_INTEGERS = ("u8", "i8")
_NAMES = {"u8": "uint8", "i8": "int8", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Executed:
    """`precision` is int8, fp32, bf16 or fp16: what most multiply-accumulates run in."""

    ops: tuple[Op, ...]
    inspection: Inspection
    precision: str


def read_compiled(compiled: Any, path: Path) -> Executed:
    """The executed graph of a compiled model.

    Raises:
        UnsupportedError: A shape is not known, or a layer's weights cannot be found.
    """
    ops: list[Op] = []
    float_ops, layout_ops = [], []
    macs: dict[str, int] = {}
    alias: dict[str, str] = {}
    constants: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        layer = _text(info["layerType"])
        name = node.get_friendly_name()
        sources = [(entry.get_source_output().get_node(), entry) for entry in node.inputs()]
        data = [source.get_friendly_name() for source, _ in sources if source.get_friendly_name() not in constants]
        if not data and layer != "Input":
            constants.add(name)
        if layer == "Reshape" and data:
            alias[name] = alias.get(data[0], data[0])
        if layer in _NOT_RUN or not data:
            continue
        op = _op(node, layer, sources, tuple(alias.get(entry, entry) for entry in data), info, path)
        ops.append(op)
        precision = _text(info["runtimePrecision"])
        macs[precision] = macs.get(precision, 0) + op.macs
        if precision not in _INTEGERS and op.kind not in ("quantize", "move"):
            float_ops.append(f"{layer} {name}")
        if layer == "Transpose":
            layout_ops.append(f"{layer} {name}")
    inspection = Inspection(
        input_types=tuple(_type(port) for port in compiled.inputs),
        output_types=tuple(_type(port) for port in compiled.outputs),
        integer_macs=sum(count for precision, count in macs.items() if precision in _INTEGERS),
        float_macs=sum(count for precision, count in macs.items() if precision not in _INTEGERS),
        float_ops=tuple(float_ops),
        layout_ops=tuple(layout_ops),
    )
    main = max(macs, key=lambda precision: macs[precision], default="f32")
    spoken = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", **dict.fromkeys(_INTEGERS, "int8")}
    return Executed(tuple(ops), inspection, spoken.get(main, main))


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, "astype") else value)


def _layer(node: Any) -> str:
    return _text(node.get_rt_info()["layerType"])


def _type(port: Any) -> str:
    name = str(port.get_element_type().get_type_name())
    return _NAMES.get(name, name)


def _shape(port: Any, name: str, path: Path) -> tuple[int, ...]:
    partial = port.get_partial_shape()
    if partial.is_dynamic:
        raise UnsupportedError(
            f"{name} has the free shape {partial}", where=str(path), hint="export the model for a fixed batch of one"
        )
    return tuple(int(size) for size in port.get_shape())


def _op(node: Any, layer: str, sources: list[tuple[Any, Any]], inputs: tuple[str, ...], info: Any, path: Path) -> Op:
    name = node.get_friendly_name()
    before, after = _shape(node.inputs()[0], name, path), _shape(node.outputs()[0], name, path)
    weights = [_shape(port, name, path) for source, port in sources[1:] if _layer(source) == "Const"]
    folded = tuple(part for part in _text(info["originalLayersNames"]).split(",") if part)
    kind: Kind = _KINDS.get(layer, "other")
    in_channels, out_channels = _width(before), _width(after)
    kernel, groups, stride = 1, 1, 1
    if kind == "conv":
        shape = next((shape for shape in weights if len(shape) >= len(before)), None)
        if shape is None:
            raise UnsupportedError(f"no weights are found for the layer {name}", where=str(path))
        grouped = len(shape) == len(before) + 1
        groups = shape[0] if grouped else 1
        kernel = prod(shape[3:] if grouped else shape[2:])
        stride = max(1, round(prod(before[2:]) / prod(after[2:])))
        kind = "depthwise" if groups == in_channels and groups > 1 else "conv"
    elif kind in ("dense", "matmul"):
        in_channels, out_channels = before[-1], after[-1]
    elif kind == "pool":
        stride = max(1, round(prod(before[2:]) / prod(after[2:])))
    elif kind == "add" and folded and all("quantiz" in part.lower() for part in folded):
        kind = "quantize"
    return Op(
        name=name,
        kind=kind,
        inputs=inputs,
        output=name,
        in_channels=in_channels,
        out_channels=out_channels,
        in_positions=prod(before) // max(in_channels, 1),
        out_positions=prod(after) // max(out_channels, 1),
        kernel=kernel,
        groups=groups,
        stride=stride,
        nodes=folded or (name,),
    )


def _width(shape: tuple[int, ...]) -> int:
    """Channels: axis 1 of images and sequences of channels, else the last axis."""
    if len(shape) in (3, 4, 5):
        return shape[1]
    return shape[-1] if shape else 1
