"""The shapes that operators make, worked out anew: a file may claim others, and memory is laid out by its claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError, UsageError

Shape = tuple[int, ...]

_MOST_VALUES = 256
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
    return [_shape(model, operator, 0)]


def _shape(model: Model, operator: Operator, position: int) -> Shape:
    return model.tensor(operator.inputs[position]).shape


def _values(model: Model, operator: Operator, position: int) -> list[int]:
    """A constant as a flat list of whole numbers."""
    data = model.tensor(operator.inputs[position]).data
    assert data is not None
    if data.size > _MOST_VALUES:
        raise UsageError(f"its input {position} lists {data.size} sizes or axes")
    return [int(value) for value in data.ravel()]


def _one_value(model: Model, operator: Operator, position: int) -> int:
    values = _values(model, operator, position)
    if len(values) != 1:
        raise UsageError(f"its input {position} holds {len(values)} numbers, not one")
    return values[0]


def _option(operator: Operator, name: str) -> int:
    return int(operator.options[name])


def _size_option(operator: Operator, name: str) -> int:
    """A stride, dilation or window."""
    value = _option(operator, name)
    if not 1 <= value <= _LARGEST:
        raise UsageError(f"its {name} {value} is not in [1, {_LARGEST}]")
    return value


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise UsageError(f"its axis {axis} is not one of {rank}")
    return axis % rank


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
    (_, height, width, _), kernel = _shape(model, operator, 0), _shape(model, operator, 1)
    dilation_h, dilation_w = (_size_option(operator, f"dilation_{axis}_factor") for axis in "hw")
    if 0 in kernel or max(kernel[1:3]) > _LARGEST:
        raise UsageError(f"its weights have shape {kernel}")
    stride_h, stride_w = _strides(operator)
    high = _window(operator, height, kernel[1], stride_h, dilation_h)
    return high, _window(operator, width, kernel[2], stride_w, dilation_w)


def _conv(model: Model, operator: Operator) -> list[Shape]:
    batch, *_, channels = _shape(model, operator, 0)
    kernel = _shape(model, operator, 1)
    high, wide = _convolved(model, operator)
    groups = channels // kernel[3]
    if channels % kernel[3] or kernel[0] % groups:
        raise UsageError(f"{channels} channels do not divide among weights of shape {kernel}")
    return [(batch, high, wide, kernel[0])]


def _depthwise(model: Model, operator: Operator) -> list[Shape]:
    batch, *_, channels = _shape(model, operator, 0)
    kernel, multiplier = _shape(model, operator, 1), _option(operator, "depth_multiplier")
    if kernel[0] != 1 or kernel[3] != channels * multiplier:
        raise UsageError(f"its weights have shape {kernel} for {channels} channels and a multiplier of {multiplier}")
    high, wide = _convolved(model, operator)
    return [(batch, high, wide, kernel[3])]


def _transpose_conv(model: Model, operator: Operator) -> list[Shape]:
    sizes, kernel = tuple(_values(model, operator, 0)), _shape(model, operator, 1)
    batch, *positions, channels = _shape(model, operator, 2)
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
    batch, height, width, channels = _shape(model, operator, 0)
    stride_h, stride_w = _strides(operator)
    high = _window(operator, height, _size_option(operator, "filter_height"), stride_h, 1)
    wide = _window(operator, width, _size_option(operator, "filter_width"), stride_w, 1)
    return [(batch, high, wide, channels)]


def _dense(model: Model, operator: Operator) -> list[Shape]:
    shape, (outputs, inputs) = _shape(model, operator, 0), _shape(model, operator, 1)
    if 0 in (outputs, inputs) or prod(shape) % inputs or (operator.options["keep_num_dims"] and shape[-1] != inputs):
        raise UsageError(f"an input of shape {shape} does not fit weights of shape {(outputs, inputs)}")
    return [(*shape[:-1], outputs) if operator.options["keep_num_dims"] else (prod(shape) // inputs, outputs)]


def _batch_matmul(model: Model, operator: Operator) -> list[Shape]:
    left, right = _shape(model, operator, 0), _shape(model, operator, 1)
    rows, inner = left[-2:][::-1] if operator.options["adj_x"] else left[-2:]
    other, columns = right[-2:][::-1] if operator.options["adj_y"] else right[-2:]
    if inner != other:
        raise UsageError(f"matrices of shapes {left} and {right} do not multiply")
    return [(*_broadcast(left[:-2], right[:-2]), rows, columns)]


def _elementwise(model: Model, operator: Operator) -> list[Shape]:
    return [_broadcast(_shape(model, operator, 0), _shape(model, operator, 1))]


def _broadcast(left: Shape, right: Shape) -> Shape:
    try:
        return np.broadcast_shapes(left, right)
    except ValueError:
        raise UsageError(f"shapes {left} and {right} do not broadcast") from None


def _reduced(model: Model, operator: Operator) -> list[Shape]:
    shape = _shape(model, operator, 0)
    axes = {_axis(axis, len(shape)) for axis in _values(model, operator, 1)}
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    return [tuple(size for axis, size in enumerate(kept) if operator.options["keep_dims"] or axis not in axes)]


def _padded(model: Model, operator: Operator) -> list[Shape]:
    shape, paddings = _shape(model, operator, 0), _values(model, operator, 1)
    if len(paddings) != 2 * len(shape) or min(paddings, default=0) < 0:
        raise UsageError(f"its paddings {paddings} do not fit shape {shape}")
    if operator.kind == "PADV2":
        _one_value(model, operator, 2)
    return [tuple(size + before + after for size, before, after in zip(shape, paddings[::2], paddings[1::2]))]


def _reshaped(model: Model, operator: Operator) -> list[Shape]:
    shape, claimed = _shape(model, operator, 0), model.tensors[operator.outputs[0]].shape
    if prod(claimed) != prod(shape):
        raise UsageError(f"shape {shape} cannot become {claimed}")
    if len(operator.inputs) > 1 and operator.inputs[1] is not None:
        asked = _values(model, operator, 1)
        if len(asked) != len(claimed) or any(ask not in (size, -1) for ask, size in zip(asked, claimed)):
            raise UsageError(f"it is to make {asked} but has {claimed} in the file")
    return [claimed]


def _squeezed(model: Model, operator: Operator) -> list[Shape]:
    shape, claimed = _shape(model, operator, 0), model.tensors[operator.outputs[0]].shape
    if [size for size in shape if size != 1] != [size for size in claimed if size != 1] or len(claimed) > len(shape):
        raise UsageError(f"shape {shape} cannot become {claimed} by leaving out ones")
    return [claimed]


def _expanded(model: Model, operator: Operator) -> list[Shape]:
    shape = _shape(model, operator, 0)
    axis = _axis(_one_value(model, operator, 1), len(shape) + 1)
    return [(*shape[:axis], 1, *shape[axis:])]


def _concatenated(model: Model, operator: Operator) -> list[Shape]:
    shapes = [_shape(model, operator, position) for position in range(len(operator.inputs))]
    axis = _axis(_option(operator, "axis"), len(shapes[0]))
    if len({(*shape[:axis], *shape[axis + 1 :], len(shape)) for shape in shapes}) > 1:
        raise UsageError(f"shapes {', '.join(map(str, shapes[:8]))} do not join along axis {axis}")
    return [(*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])]


def _packed(model: Model, operator: Operator) -> list[Shape]:
    shapes = {_shape(model, operator, position) for position in range(len(operator.inputs))}
    if len(shapes) > 1 or _option(operator, "values_count") != len(operator.inputs):
        raise UsageError(f"it packs {len(operator.inputs)} tensors of {len(shapes)} different shapes")
    (shape,) = shapes
    axis = _axis(_option(operator, "axis"), len(shape) + 1)
    return [(*shape[:axis], len(operator.inputs), *shape[axis:])]


def _unpacked(model: Model, operator: Operator) -> list[Shape]:
    shape = _shape(model, operator, 0)
    axis = _axis(_option(operator, "axis"), len(shape))
    if shape[axis] != len(operator.outputs):
        raise UsageError(f"it unpacks {shape[axis]} tensors into {len(operator.outputs)}")
    return [(*shape[:axis], *shape[axis + 1 :])] * len(operator.outputs)


def _split(model: Model, operator: Operator) -> list[Shape]:
    count = len(operator.outputs)
    shape = _shape(model, operator, 1)
    axis = _axis(_one_value(model, operator, 0), len(shape))
    if count == 0 or shape[axis] % count:
        raise UsageError(f"shape {shape} does not split into {count} along axis {axis}")
    return [(*shape[:axis], shape[axis] // count, *shape[axis + 1 :])] * count


def _split_by_sizes(model: Model, operator: Operator) -> list[Shape]:
    shape, sizes = _shape(model, operator, 0), _values(model, operator, 1)
    axis = _axis(_one_value(model, operator, 2), len(shape))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(size for size in sizes if size != -1)
    if len(sizes) != len(operator.outputs) or min(sizes, default=0) < 0 or sum(sizes) != shape[axis]:
        raise UsageError(f"shape {shape} does not split into {sizes} along axis {axis}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _sliced(model: Model, operator: Operator) -> list[Shape]:
    shape, begins, sizes = _shape(model, operator, 0), _values(model, operator, 1), _values(model, operator, 2)
    if not len(shape) == len(begins) == len(sizes):
        raise UsageError(f"its slice {begins}, {sizes} has not the axes of shape {shape}")
    made = tuple(size - begin if asked == -1 else asked for size, begin, asked in zip(shape, begins, sizes))
    if any(begin < 0 or part < 0 or begin + part > size for size, begin, part in zip(shape, begins, made)):
        raise UsageError(f"its slice {begins}, {sizes} does not lie in shape {shape}")
    return [made]


def _strided(model: Model, operator: Operator) -> list[Shape]:
    shape = _shape(model, operator, 0)
    parts = [_values(model, operator, position) for position in (1, 2, 3)]
    for name in ("ellipsis_mask", "new_axis_mask", "offset"):
        if operator.options[name]:
            raise UnsupportedError(f"its option {name} is not known here")
    if any(len(part) != len(shape) for part in parts) or 0 in parts[2]:
        raise UsageError(f"its slice {parts} does not fit shape {shape}")
    open_begin, open_end, single = (_option(operator, f"{name}_mask") for name in ("begin", "end", "shrink_axis"))
    made: list[int] = []
    for axis, (size, begin, end, stride) in enumerate(zip(shape, *parts)):
        bit = 1 << axis
        if single & bit:
            if not -size <= begin < size or stride < 0:
                raise UsageError(f"its slice takes index {begin} of an axis of {size}")
            continue
        ends = slice(None if open_begin & bit else begin, None if open_end & bit else end, stride)
        made.append(len(range(*ends.indices(size))))
    return [tuple(made)]


def _transposed(model: Model, operator: Operator) -> list[Shape]:
    shape, order = _shape(model, operator, 0), _values(model, operator, 1)
    axes = [_axis(axis, len(shape)) for axis in order]
    if sorted(axes) != list(range(len(shape))):
        raise UsageError(f"{order} does not order the axes of shape {shape}")
    return [tuple(shape[axis] for axis in axes)]


def _resized(model: Model, operator: Operator) -> list[Shape]:
    (batch, *_, channels), sizes = _shape(model, operator, 0), _values(model, operator, 1)
    if len(sizes) != 2 or min(sizes) < 1:
        raise UsageError(f"it resizes to {sizes}")
    if operator.options["align_corners"] and operator.options["half_pixel_centers"]:
        raise UsageError("it aligns corners and centres at once")
    return [(batch, *sizes, channels)]


def _gathered(model: Model, operator: Operator) -> list[Shape]:
    shape, indices = _shape(model, operator, 0), model.tensor(operator.inputs[1])
    axis, batches = _axis(_option(operator, "axis"), len(shape)), _option(operator, "batch_dims")
    if not 0 <= batches <= min(axis, len(indices.shape)) or shape[:batches] != indices.shape[:batches]:
        raise UsageError(f"{batches} batch axes do not fit shapes {shape} and {indices.shape}")
    if indices.data is not None and indices.size and not 0 <= indices.data.min() <= indices.data.max() < shape[axis]:
        raise UsageError(f"its indices do not lie in an axis of {shape[axis]}")
    return [(*shape[:axis], *indices.shape[batches:], *shape[axis + 1 :])]


def _lstm(model: Model, operator: Operator) -> list[Shape]:
    *leading, inputs = _shape(model, operator, 0)
    batch = leading[1] if operator.options["time_major"] else leading[0]
    cells = _shape(model, operator, 2)[0]
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
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"), _elementwise),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    **dict.fromkeys(("MEAN", "SUM"), _reduced),
    **dict.fromkeys(("PAD", "PADV2"), _padded),
    "RESHAPE": _reshaped,
    "SQUEEZE": _squeezed,
    "EXPAND_DIMS": _expanded,
    "CONCATENATION": _concatenated,
    "PACK": _packed,
    "UNPACK": _unpacked,
    "SPLIT": _split,
    "SPLIT_V": _split_by_sizes,
    "SLICE": _sliced,
    "STRIDED_SLICE": _strided,
    "TRANSPOSE": _transposed,
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), _resized),
    "GATHER": _gathered,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
