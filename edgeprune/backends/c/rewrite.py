"""Changes of a model that change no answer: convolutions pad themselves, and channels without weights have easy sums.

PyTorch pads strided convolutions on both sides, TensorFlow more on one, so converters write a PAD before them. It
writes zero points around a copy of the image; a convolution that treats what lies outside its input as the zero point
sums up the same, without the copy. Such a convolution has `padding` EXPLICIT and options `pad_top`, `pad_bottom`,
`pad_left` and `pad_right`, in pixels. Only lowerings that say `PADS = True` are given any.

A channel whose weights are all zero answers one value, whatever it reads. Training leaves such channels behind, and
converters give them scales so small, and biases so large, that kernels which save on the width of their sums could not
compute the layer. Another scale and bias give the same value.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c import lowering
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point, rescale
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor

_FILTER_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
_STEP = 512  # what one step of the output is worth in the bias of a channel without weights


def rewritten(model: Model) -> Model:
    """The model after all rewrites; every operator stays at its position, tensors keep their indices."""
    return settle_empty_channels(absorb_padding(model))


def absorb_padding(model: Model) -> Model:
    """The model with what can be padded by a convolution; every operator stays at its position.

    A PAD that nothing reads any more stays as well: it is not needed, so no step is made of it.
    """
    pads = {operator.outputs[0]: operator for operator in model.operators if _is_spatial(model, operator)}
    return replace(model, operators=tuple(_padding(model, operator, pads) for operator in model.operators))


def _is_spatial(model: Model, operator: Operator) -> bool:
    """Whether it pads rows and columns of an image with its zero point, for one reader only."""
    if operator.kind != "PAD" or len(operator.inputs) != 2:
        return False
    source, result = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    edges = model.tensor(operator.inputs[1]).data
    if source.data is not None or edges is None or len(source.shape) != 4 or source.quantization is None:
        return False
    if (source.dtype, source.quantization) != (result.dtype, result.quantization):
        return False
    alone = len(model.readers[operator.outputs[0]]) == 1 and operator.outputs[0] not in model.outputs
    return alone and not edges[[0, 3]].any()


def _padding(model: Model, operator: Operator, pads: dict[int, Operator]) -> Operator:
    """A convolution with the PAD before it, where it may be; else the operator as it is."""
    pad = pads.get(-1 if operator.inputs[0] is None else operator.inputs[0]) if operator.inputs else None
    known = lowering.lowerings().get(operator.kind)
    if pad is None or not getattr(known, "PADS", False) or operator.options.get("padding") != "VALID":
        return operator
    edges = model.tensor(pad.inputs[1]).data
    assert edges is not None
    (top, bottom), (left, right) = edges[1].tolist(), edges[2].tolist()
    sides = {"pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right}
    options = {**operator.options, "padding": "EXPLICIT", **sides}
    return replace(operator, inputs=(pad.inputs[0], *operator.inputs[1:]), options=options)


def settle_empty_channels(model: Model) -> Model:
    """The model with convolutions whose channels without weights have a bias and a scale of ordinary size."""
    tensors, operators = list(model.tensors), list(model.operators)
    for position, operator in enumerate(operators):
        axis = _FILTER_AXES.get(operator.kind)
        if axis is None or len(operator.inputs) < 3 or None in operator.inputs:
            continue
        settled = _settled(model, operator, axis)
        if settled is not None:
            operators[position] = replace(operator, inputs=(operator.inputs[0], len(tensors), len(tensors) + 1))
            tensors += settled
    return replace(model, tensors=tuple(tensors), operators=tuple(operators))


def _settled(model: Model, operator: Operator, axis: int) -> tuple[Tensor, Tensor] | None:
    """Weights and bias with the changes; None where there are none to make."""
    source, weights, bias = (model.tensor(index) for index in operator.inputs)
    output = model.tensor(operator.outputs[0])
    if weights.data is None or bias.data is None or weights.quantization is None or bias.quantization is None:
        return None
    if bias.dtype != "int32" or (source.dtype, output.dtype) != ("int8", "int8"):
        return None
    scales = np.array(weights.quantization.scales)
    empty = ~np.any(np.moveaxis(weights.data, axis, 0).reshape(weights.shape[axis], -1), axis=1)
    if len(scales) != len(empty) or not empty.any():
        return None
    values = bias.data.ravel().astype(np.int64)
    factors = [fixed_point(source.scale * scale / output.scale) for scale in scales.tolist()]
    empty &= np.array([_stays_in_32_bits(value, factor) for value, factor in zip(values.tolist(), factors)])
    for channel in np.flatnonzero(empty).tolist():
        answer = int(rescale(values[[channel]], factors[channel])[0]) + output.zero_point
        values[channel] = (min(max(answer, -128), 127) - output.zero_point) * _STEP
        scales[channel] = np.float32(output.scale / source.scale / _STEP)
    biases = values.astype(np.int32).reshape(bias.shape)
    bias_scales = (scales * source.scale).astype(np.float32)
    return _scaled(weights, weights.data, scales, axis), _scaled(bias, biases, bias_scales, 0)


def _stays_in_32_bits(value: int, factor: FixedPoint) -> bool:
    """Whether the left shift of a rescaling keeps a value's bits."""
    return abs(value) << max(factor.shift, 0) < 2**31


def _scaled(tensor: Tensor, data: Array, scales: Array, axis: int) -> Tensor:
    """A constant with other values and scales."""
    quantization = Quantization(tuple(scales.tolist()), (0,) * len(scales), axis)
    return replace(tensor, data=data, quantization=quantization)
