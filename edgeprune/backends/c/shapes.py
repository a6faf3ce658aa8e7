"""The shapes that operators make, worked out anew: a file may claim others, and memory is laid out by its claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from edgeprune.backends.c.dimensions import Shape, axis_of, option, shape_of, values_of
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.moved_shapes import MOVES
from edgeprune.errors import UsageError

_LARGEST = 2**15 - 1  # strides, dilations and windows: products of two fit an int32


def check_shapes(model: Model, operator: Operator) -> None:
    """Hold the shapes of an operator's outputs against those that its inputs and options make.

    The operator has passed `check_signature`.

    Raises:
        UnsupportedError: A way to work out a shape that is not known here.
        UsageError: Shapes or options that contradict each other.
    """
    made = _RULES.get(operator.kind, _unchanged)(model, operator)
    for position, (index, shape) in enumerate(zip(operator.outputs, made, strict=True)):
        claimed = model.tensors[index].shape
        if claimed != shape:
            raise UsageError(f"its output {position} has shape {claimed} in the file, its inputs make {shape}")


def _unchanged(model: Model, operator: Operator) -> list[Shape]:
    return [shape_of(model, operator, 0)]


def _size_option(operator: Operator, name: str) -> int:
    """A stride, dilation or window."""
    value = option(operator, name)
    if not 1 <= value <= _LARGEST:
        raise UsageError(f"its {name} {value} is not in [1, {_LARGEST}]")
    return value


def _window(operator: Operator, size: int, window: int, stride: int, dilation: int) -> int:
    """Positions of a window along an axis."""
    reach = (window - 1) * dilation + 1
    made = -(-size // stride) if operator.options["padding"] == "SAME" else (size - reach) // stride + 1
    if made < 1:
        raise UsageError(f"its window of {reach} does not fit into {size} positions")
    return made


def _strides(operator: Operator) -> tuple[int, int]:
    return _size_option(operator, "stride_h"), _size_option(operator, "stride_w")


def _convolved(model: Model, operator: Operator) -> tuple[int, int]:
    (_, height, width, _), kernel = shape_of(model, operator, 0), shape_of(model, operator, 1)
    dilation_h, dilation_w = (_size_option(operator, f"dilation_{axis}_factor") for axis in "hw")
    if 0 in kernel or max(kernel[1:3]) > _LARGEST:
        raise UsageError(f"its weights have shape {kernel}")
    stride_h, stride_w = _strides(operator)
    high = _window(operator, height, kernel[1], stride_h, dilation_h)
    return high, _window(operator, width, kernel[2], stride_w, dilation_w)


def _conv(model: Model, operator: Operator) -> list[Shape]:
    batch, *_, channels = shape_of(model, operator, 0)
    kernel = shape_of(model, operator, 1)
    high, wide = _convolved(model, operator)
    groups = channels // kernel[3]
    if channels % kernel[3] or kernel[0] % groups:
        raise UsageError(f"{channels} channels do not divide among weights of shape {kernel}")
    return [(batch, high, wide, kernel[0])]


def _depthwise(model: Model, operator: Operator) -> list[Shape]:
    batch, *_, channels = shape_of(model, operator, 0)
    kernel, multiplier = shape_of(model, operator, 1), option(operator, "depth_multiplier")
    if kernel[0] != 1 or kernel[3] != channels * multiplier:
        raise UsageError(f"its weights have shape {kernel} for {channels} channels and a multiplier of {multiplier}")
    high, wide = _convolved(model, operator)
    return [(batch, high, wide, kernel[3])]


def _transpose_conv(model: Model, operator: Operator) -> list[Shape]:
    sizes, kernel = tuple(values_of(model, operator, 0)), shape_of(model, operator, 1)
    batch, *positions, channels = shape_of(model, operator, 2)
    if len(sizes) != 4 or min(sizes) < 1 or 0 in kernel or max(kernel[1:3]) > _LARGEST:
        raise UsageError(f"it makes {sizes} with weights of shape {kernel}")
    # It is the gradient of a convolution, which has to lead back from its output to its input.
    back = [
        _window(operator, size, window, stride, 1)
        for size, window, stride in zip(sizes[1:3], kernel[1:3], _strides(operator))
    ]
    if back != positions or kernel[3] != channels or (sizes[0], sizes[3]) != (batch, kernel[0]):
        raise UsageError(f"it makes {sizes} of {(batch, *positions, channels)} with weights of shape {kernel}")
    return [sizes]


def _pool(model: Model, operator: Operator) -> list[Shape]:
    batch, height, width, channels = shape_of(model, operator, 0)
    stride_h, stride_w = _strides(operator)
    high = _window(operator, height, _size_option(operator, "filter_height"), stride_h, 1)
    wide = _window(operator, width, _size_option(operator, "filter_width"), stride_w, 1)
    return [(batch, high, wide, channels)]


def _dense(model: Model, operator: Operator) -> list[Shape]:
    shape, (outputs, inputs) = shape_of(model, operator, 0), shape_of(model, operator, 1)
    if 0 in (outputs, inputs) or prod(shape) % inputs or (operator.options["keep_num_dims"] and shape[-1] != inputs):
        raise UsageError(f"an input of shape {shape} does not fit weights of shape {(outputs, inputs)}")
    return [(*shape[:-1], outputs) if operator.options["keep_num_dims"] else (prod(shape) // inputs, outputs)]


def _batch_matmul(model: Model, operator: Operator) -> list[Shape]:
    left, right = shape_of(model, operator, 0), shape_of(model, operator, 1)
    rows, inner = left[-2:][::-1] if operator.options["adj_x"] else left[-2:]
    other, columns = right[-2:][::-1] if operator.options["adj_y"] else right[-2:]
    if inner != other:
        raise UsageError(f"matrices of shapes {left} and {right} do not multiply")
    return [(*_broadcast(left[:-2], right[:-2]), rows, columns)]


def _elementwise(model: Model, operator: Operator) -> list[Shape]:
    return [_broadcast(shape_of(model, operator, 0), shape_of(model, operator, 1))]


def _broadcast(left: Shape, right: Shape) -> Shape:
    try:
        return np.broadcast_shapes(left, right)
    except ValueError:
        raise UsageError(f"shapes {left} and {right} do not broadcast") from None


def _reduced(model: Model, operator: Operator) -> list[Shape]:
    shape = shape_of(model, operator, 0)
    axes = {axis_of(axis, len(shape)) for axis in values_of(model, operator, 1)}
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    return [tuple(size for axis, size in enumerate(kept) if operator.options["keep_dims"] or axis not in axes)]


def _resized(model: Model, operator: Operator) -> list[Shape]:
    (batch, *_, channels), sizes = shape_of(model, operator, 0), values_of(model, operator, 1)
    if len(sizes) != 2 or min(sizes) < 1:
        raise UsageError(f"it resizes to {sizes}")
    if operator.options["align_corners"] and operator.options["half_pixel_centers"]:
        raise UsageError("it aligns corners and centres at once")
    return [(batch, *sizes, channels)]


def _lstm(model: Model, operator: Operator) -> list[Shape]:
    *leading, inputs = shape_of(model, operator, 0)
    batch = leading[1] if operator.options["time_major"] else leading[0]
    cells = shape_of(model, operator, 2)[0]
    forms: list[tuple[Sequence[int], Shape]] = [
        (range(1, 5), (cells, inputs)),
        (range(5, 9), (cells, cells)),
        (range(12, 16), (cells,)),
        (range(18, 20), (batch, cells)),
    ]
    for positions, shape in forms:
        for position in positions:
            index = operator.inputs[position]
            if index is not None and model.tensors[index].shape != shape:
                raise UsageError(f"its input {position} has shape {model.tensors[index].shape}, not {shape}")
    coupled = {operator.inputs[position] is None for position in (1, 5, 12)}
    if len(coupled) > 1:
        raise UsageError("of its input gate a part is left out")
    if len(operator.intermediates) not in (0, 5):
        raise UsageError(f"it has {len(operator.intermediates)} intermediates, not 5")
    return [(*leading, cells)]


_RULES: dict[str, Callable[[Model, Operator], list[Shape]]] = {
    **MOVES,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU"), _elementwise),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduced),
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), _resized),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
