"""CONV_2D of int8 tensors, grouped or not, with the ADD behind it where a step holds one."""

from __future__ import annotations

from edgeprune.backends.c.addition import check_addition
from edgeprune.backends.c.convolution import Window, convolution
from edgeprune.backends.c.lowering import Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.backends.c.quantized import clamps
from edgeprune.backends.c.rows import check_sums, check_weights, rows_of
from edgeprune.errors import UnsupportedError

KINDS = ("CONV_2D",)
PADS = True


def check(model: Model, operator: Operator) -> None:
    """Refuse what cannot be lowered exactly.

    Raises:
        UnsupportedError: The number formats, the weights, the groups or the activation.
    """
    source, weights, bias, output = _tensors(model, operator)
    if (source.dtype, output.dtype) != ("int8", "int8"):
        raise UnsupportedError(f"values of {source.dtype} to {output.dtype} are not supported", hint="int8 ones are")
    check_weights(weights, bias)
    clamps(operator, output)
    check_sums(rows_of(source, weights, bias, output))


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """The convolution, and the addition it may end in, as one call."""
    check(model, step.operator)
    if step.added is not None:
        check_addition(model, step.added)
    source, weights, bias, output = _tensors(model, step.operator)
    groups = source.shape[3] // weights.shape[3]
    rows = rows_of(source, weights, bias, output, groups)
    return convolution(model, step, _window(step.operator, source, weights, output), rows, variant)


def _tensors(model: Model, operator: Operator) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    source, weights, *biases = operator.inputs
    bias = model.tensor(biases[0]) if biases and biases[0] is not None else None
    return model.tensor(source), model.tensor(weights), bias, model.tensor(operator.outputs[0])


def _window(operator: Operator, source: Tensor, weights: Tensor, output: Tensor) -> Window:
    batches, height, width, channels = source.shape
    _, out_height, out_width, _ = output.shape
    _, kernel_height, kernel_width, depth = weights.shape
    stride_y, stride_x = int(operator.options["stride_h"]), int(operator.options["stride_w"])
    dilation_y = int(operator.options.get("dilation_h_factor", 1))
    dilation_x = int(operator.options.get("dilation_w_factor", 1))
    above = _padding(height, out_height, kernel_height, stride_y, dilation_y)
    before = _padding(width, out_width, kernel_width, stride_x, dilation_x)
    return Window(
        batches,
        height,
        width,
        channels,
        depth,
        out_height,
        out_width,
        kernel_height,
        kernel_width,
        stride_y,
        stride_x,
        dilation_y,
        dilation_x,
        above=int(operator.options.get("pad_top", above)),
        before=int(operator.options.get("pad_left", before)),
        zero=source.zero_point,
    )


def _padding(size: int, out_size: int, kernel: int, stride: int, dilation: int) -> int:
    """Values of padding in front; 0 where the padding is VALID, since its windows end inside."""
    return max((out_size - 1) * stride + (kernel - 1) * dilation + 1 - size, 0) // 2
