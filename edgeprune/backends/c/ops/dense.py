"""FULLY_CONNECTED of int8 tensors: a convolution of one-pixel patches, one pixel for each input vector."""

from __future__ import annotations

from edgeprune.backends.c.convolution import Window, convolution
from edgeprune.backends.c.lowering import Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.backends.c.quantized import clamps
from edgeprune.backends.c.rows import check_weights, rows_of
from edgeprune.errors import UnsupportedError

KINDS = ("FULLY_CONNECTED",)


def check(model: Model, operator: Operator) -> None:
    """Refuse what cannot be lowered exactly.

    Raises:
        UnsupportedError: The number formats, the weights, their format or the activation.
    """
    source, weights, bias, output = _tensors(model, operator)
    weights_format = operator.options.get("weights_format", "DEFAULT")
    if weights_format != "DEFAULT":
        raise UnsupportedError(f"the weights format {weights_format} is not supported", hint="DEFAULT is")
    if (source.dtype, output.dtype) != ("int8", "int8"):
        raise UnsupportedError(f"values of {source.dtype} to {output.dtype} are not supported", hint="int8 ones are")
    check_weights(weights, bias)
    clamps(operator, output)


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """The layer as one call."""
    assert step.added is None
    check(model, step.operator)
    source, weights, bias, output = _tensors(model, step.operator)
    rows, depth = weights.shape
    vectors = output.size // rows
    window = Window(1, 1, vectors, depth, depth, 1, vectors, 1, 1, 1, 1, 1, 1, above=0, before=0, zero=0)
    return convolution(model, step, window, rows_of(source, weights, bias, output), variant)


def _tensors(model: Model, operator: Operator) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    source, weights, *biases = operator.inputs
    bias = model.tensor(biases[0]) if biases and biases[0] is not None else None
    return model.tensor(source), model.tensor(weights), bias, model.tensor(operator.outputs[0])
