"""Models of one convolution or fully connected layer, with or without an addition behind, and inputs that reach far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer to be made at random.

    Attributes:
        kernel: (height, width), or empty for a fully connected layer.
        extreme: Weights, inputs and zero points at the ends of their ranges.
        spread: Of the outputs: what one standard deviation of the sums becomes, in stored steps.
    """

    input: Shape
    channels: int
    kernel: Shape = ()
    stride: Shape = (1, 1)
    dilation: Shape = (1, 1)
    padding: str = "SAME"
    activation: str = "NONE"
    groups: int = 1
    per_channel: bool = True
    bias: bool = True
    extreme: bool = False
    spread: float = 50.0
    keep_num_dims: bool = False
    seed: int = 0


def layer_model(layer: Layer, added: str | None = None) -> tuple[Model, list[Array]]:
    """The model and its inputs; `added` is the activation of an addition behind."""
    rng = np.random.default_rng(layer.seed)
    depth = layer.input[-1] // layer.groups
    weights_shape = (layer.channels, *layer.kernel, depth)
    ends = [-127, 127] if layer.extreme else range(-127, 128)
    weights = rng.choice(np.array(ends), weights_shape).astype(np.int8)
    zero_points = rng.choice(np.array([-128, 127] if layer.extreme else range(-128, 128)), 4)
    values = rng.choice(np.array([-128, 127] if layer.extreme else range(-128, 128)), layer.input).astype(np.int8)
    size = int(np.prod(weights_shape[1:]))
    deviation = np.sqrt(size) * (127 * 180 if layer.extreme else 73 * 100)
    scales = rng.uniform(0.3, 1.0, layer.channels if layer.per_channel else 1)
    source = Tensor("source", layer.input, "int8", _quantized(0.02, zero_points[0]))
    held = Tensor("weights", weights_shape, "int8", _per_channel(0.01 * scales), weights)
    output_scale = 0.02 * 0.01 * deviation / layer.spread
    output = Tensor("output", _output_shape(layer), "int8", _quantized(output_scale, zero_points[1]))
    biases = rng.integers(-int(deviation), int(deviation) + 1, layer.channels).astype(np.int32)
    bias = Tensor("bias", (layer.channels,), "int32", _per_channel(0.02 * 0.01 * scales), biases)
    operator = Operator(*_operator(layer), _options(layer))
    if added is None:
        return Model((source, held, bias, output), (operator,), (0,), (3,)), [values]
    summand = Tensor("summand", output.shape, "int8", _quantized(output_scale * rng.uniform(0.3, 3), zero_points[2]))
    total = Tensor("total", output.shape, "int8", _quantized(output_scale * 1.7, zero_points[3]))
    pair = (3, 4) if rng.random() < 0.5 else (4, 3)
    adding = Operator("ADD", pair, (5,), {"fused_activation_function": added})
    others = rng.integers(-128, 128, output.shape).astype(np.int8)
    tensors = (source, held, bias, output, summand, total)
    return Model(tensors, (operator, adding), (0, 4), (5,)), [values, others]


def _quantized(scale: float, zero_point: int) -> Quantization:
    return Quantization((float(np.float32(scale)),), (int(zero_point),))


def _per_channel(scales: Array) -> Quantization:
    return Quantization(tuple(float(scale) for scale in scales.astype(np.float32)), (0,) * scales.size)


def _operator(layer: Layer) -> tuple[str, tuple[int | None, ...], Shape]:
    kind = "CONV_2D" if layer.kernel else "FULLY_CONNECTED"
    return kind, (0, 1, *([2] if layer.bias else [])), (3,)


def _options(layer: Layer) -> dict[str, int | float | bool | str]:
    if not layer.kernel:
        kept = {"keep_num_dims": layer.keep_num_dims, "weights_format": "DEFAULT"}
        return {"fused_activation_function": layer.activation, **kept}
    return {
        "fused_activation_function": layer.activation,
        "padding": layer.padding,
        "stride_h": layer.stride[0],
        "stride_w": layer.stride[1],
        "dilation_h_factor": layer.dilation[0],
        "dilation_w_factor": layer.dilation[1],
    }


def _output_shape(layer: Layer) -> Shape:
    if not layer.kernel:
        leading = layer.input[:-1] if layer.keep_num_dims else (int(np.prod(layer.input[:-1])),)
        return (*leading, layer.channels)
    sizes = []
    for size, kernel, stride, dilation in zip(
        layer.input[1:3], layer.kernel, layer.stride, layer.dilation, strict=True
    ):
        reach = (kernel - 1) * dilation if layer.padding == "VALID" else 0
        sizes.append(-(-(size - reach) // stride))
    return (layer.input[0], *sizes, layer.channels)
