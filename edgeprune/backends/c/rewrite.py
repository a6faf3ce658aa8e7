"""Changes of a model that change no answer: padding moves into the convolutions that alone read it.

PyTorch pads strided convolutions on both sides, TensorFlow more on one, so converters write a PAD before them. It
writes zero points around a copy of the image; a convolution that treats what lies outside its input as the zero point
sums up the same, without the copy. Such a convolution has `padding` EXPLICIT and options `pad_top`, `pad_bottom`,
`pad_left` and `pad_right`, in pixels. Only lowerings that say `PADS = True` are given any.
"""

from __future__ import annotations

from dataclasses import replace

from edgeprune.backends.c import lowering
from edgeprune.backends.c.model import Model, Operator


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
