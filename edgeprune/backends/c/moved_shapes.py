"""The shapes that operators make which only move values; see `edgeprune.backends.c.shapes`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from edgeprune.backends.c.dimensions import Shape, axis_of, one_value, option, shape_of, values_of
from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError, UsageError


def _padded(model: Model, operator: Operator) -> list[Shape]:
    shape, paddings = shape_of(model, operator, 0), values_of(model, operator, 1)
    if len(paddings) != 2 * len(shape) or min(paddings, default=0) < 0:
        raise UsageError(f"its paddings {paddings} do not fit shape {shape}")
    if operator.kind == "PADV2":
        one_value(model, operator, 2)
    return [tuple(size + before + after for size, before, after in zip(shape, paddings[::2], paddings[1::2]))]


def _mirrored(model: Model, operator: Operator) -> list[Shape]:
    """A border is mirrored once, with the outermost value or without it."""
    shape, paddings = shape_of(model, operator, 0), values_of(model, operator, 1)
    made = _padded(model, operator)
    most = 1 if operator.options["mode"] == "REFLECT" else 0
    if any(max(paddings[2 * axis : 2 * axis + 2]) > size - most for axis, size in enumerate(shape)):
        raise UsageError(f"its paddings {paddings} reach beyond what shape {shape} has to mirror")
    return made


def _reversed(model: Model, operator: Operator) -> list[Shape]:
    """Axes side by side, which is what the reference can do."""
    shape, axes = shape_of(model, operator, 0), values_of(model, operator, 1)
    placed = sorted(axis_of(axis, len(shape)) for axis in axes)
    if not placed or placed != list(range(placed[0], placed[0] + len(placed))):
        raise UsageError(f"it reverses axes that do not lie side by side: {axes}")
    return [shape]


def _tiled(model: Model, operator: Operator) -> list[Shape]:
    shape, times = shape_of(model, operator, 0), values_of(model, operator, 1)
    if len(times) != len(shape) or min(times, default=1) < 1:
        raise UsageError(f"its repetitions {times} do not fit shape {shape}")
    return [tuple(size * many for size, many in zip(shape, times))]


def _repeated(model: Model, operator: Operator) -> list[Shape]:
    shape, asked = shape_of(model, operator, 0), tuple(values_of(model, operator, 1))
    behind = asked[len(asked) - len(shape) :]
    if len(asked) < len(shape) or any(size not in (1, whole) for size, whole in zip(shape, behind)):
        raise UsageError(f"shape {shape} does not broadcast to {asked}")
    return [asked]


def _block_size(operator: Operator) -> int:
    size = option(operator, "block_size")
    if size < 1:
        raise UsageError(f"its block_size is {size}")
    return size


def _deepened(model: Model, operator: Operator) -> list[Shape]:
    (batch, height, width, channels), size = shape_of(model, operator, 0), _block_size(operator)
    if height % size or width % size:
        raise UsageError(f"{height} x {width} positions do not divide into blocks of {size}")
    return [(batch, height // size, width // size, channels * size * size)]


def _flattened(model: Model, operator: Operator) -> list[Shape]:
    (batch, height, width, channels), size = shape_of(model, operator, 0), _block_size(operator)
    if channels % (size * size):
        raise UsageError(f"{channels} channels do not divide into blocks of {size}")
    return [(batch, height * size, width * size, channels // (size * size))]


def _blocks(model: Model, operator: Operator) -> tuple[list[int], list[int]]:
    """Sizes of a block, and for each axis what is added to its position before and behind, or cropped."""
    shape, sizes, margins = shape_of(model, operator, 0), values_of(model, operator, 1), values_of(model, operator, 2)
    if len(sizes) != len(shape) - 2 or min(sizes) < 1 or len(margins) != 2 * len(sizes) or min(margins) < 0:
        raise UsageError(f"its blocks {sizes} and {margins} do not fit shape {shape}")
    return sizes, [before + after for before, after in zip(margins[::2], margins[1::2])]


def _to_batches(model: Model, operator: Operator) -> list[Shape]:
    (batch, *positions, channels), (sizes, added) = shape_of(model, operator, 0), _blocks(model, operator)
    wide = [position + more for position, more in zip(positions, added)]
    if any(whole % size for whole, size in zip(wide, sizes)):
        raise UsageError(f"{wide} positions do not divide into blocks of {sizes}")
    return [(batch * prod(sizes), *(whole // size for whole, size in zip(wide, sizes)), channels)]


def _from_batches(model: Model, operator: Operator) -> list[Shape]:
    (batch, *positions, channels), (sizes, cropped) = shape_of(model, operator, 0), _blocks(model, operator)
    made = [position * size - less for position, size, less in zip(positions, sizes, cropped)]
    if batch % prod(sizes) or min(made) < 1:
        raise UsageError(f"{batch} batches of {positions} positions do not make blocks of {sizes}")
    return [(batch // prod(sizes), *made, channels)]


def _reshaped(model: Model, operator: Operator) -> list[Shape]:
    shape, claimed = shape_of(model, operator, 0), model.tensors[operator.outputs[0]].shape
    if prod(claimed) != prod(shape):
        raise UsageError(f"shape {shape} cannot become {claimed}")
    if len(operator.inputs) > 1 and operator.inputs[1] is not None:
        asked = values_of(model, operator, 1)
        if len(asked) != len(claimed) or any(ask not in (size, -1) for ask, size in zip(asked, claimed)):
            raise UsageError(f"it is to make {asked} but has {claimed} in the file")
    return [claimed]


def _squeezed(model: Model, operator: Operator) -> list[Shape]:
    shape, claimed = shape_of(model, operator, 0), model.tensors[operator.outputs[0]].shape
    if [size for size in shape if size != 1] != [size for size in claimed if size != 1] or len(claimed) > len(shape):
        raise UsageError(f"shape {shape} cannot become {claimed} by leaving out ones")
    return [claimed]


def _expanded(model: Model, operator: Operator) -> list[Shape]:
    shape = shape_of(model, operator, 0)
    axis = axis_of(one_value(model, operator, 1), len(shape) + 1)
    return [(*shape[:axis], 1, *shape[axis:])]


def _concatenated(model: Model, operator: Operator) -> list[Shape]:
    shapes = [shape_of(model, operator, position) for position in range(len(operator.inputs))]
    axis = axis_of(option(operator, "axis"), len(shapes[0]))
    if len({(*shape[:axis], *shape[axis + 1 :], len(shape)) for shape in shapes}) > 1:
        raise UsageError(f"shapes {', '.join(map(str, shapes[:8]))} do not join along axis {axis}")
    return [(*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])]


def _packed(model: Model, operator: Operator) -> list[Shape]:
    shapes = {shape_of(model, operator, position) for position in range(len(operator.inputs))}
    if len(shapes) > 1 or option(operator, "values_count") != len(operator.inputs):
        raise UsageError(f"it packs {len(operator.inputs)} tensors of {len(shapes)} different shapes")
    (shape,) = shapes
    axis = axis_of(option(operator, "axis"), len(shape) + 1)
    return [(*shape[:axis], len(operator.inputs), *shape[axis:])]


def _unpacked(model: Model, operator: Operator) -> list[Shape]:
    shape = shape_of(model, operator, 0)
    axis = axis_of(option(operator, "axis"), len(shape))
    if shape[axis] != len(operator.outputs):
        raise UsageError(f"it unpacks {shape[axis]} tensors into {len(operator.outputs)}")
    return [(*shape[:axis], *shape[axis + 1 :])] * len(operator.outputs)


def _split(model: Model, operator: Operator) -> list[Shape]:
    count = len(operator.outputs)
    shape = shape_of(model, operator, 1)
    axis = axis_of(one_value(model, operator, 0), len(shape))
    if count == 0 or shape[axis] % count:
        raise UsageError(f"shape {shape} does not split into {count} along axis {axis}")
    return [(*shape[:axis], shape[axis] // count, *shape[axis + 1 :])] * count


def _split_by_sizes(model: Model, operator: Operator) -> list[Shape]:
    shape, sizes = shape_of(model, operator, 0), values_of(model, operator, 1)
    axis = axis_of(one_value(model, operator, 2), len(shape))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(size for size in sizes if size != -1)
    if len(sizes) != len(operator.outputs) or min(sizes, default=0) < 0 or sum(sizes) != shape[axis]:
        raise UsageError(f"shape {shape} does not split into {sizes} along axis {axis}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _sliced(model: Model, operator: Operator) -> list[Shape]:
    shape, begins, sizes = shape_of(model, operator, 0), values_of(model, operator, 1), values_of(model, operator, 2)
    if not len(shape) == len(begins) == len(sizes):
        raise UsageError(f"its slice {begins}, {sizes} has not the axes of shape {shape}")
    made = tuple(size - begin if asked == -1 else asked for size, begin, asked in zip(shape, begins, sizes))
    if any(begin < 0 or part < 0 or begin + part > size for size, begin, part in zip(shape, begins, made)):
        raise UsageError(f"its slice {begins}, {sizes} does not lie in shape {shape}")
    return [made]


def _strided(model: Model, operator: Operator) -> list[Shape]:
    shape = shape_of(model, operator, 0)
    parts = [values_of(model, operator, position) for position in (1, 2, 3)]
    for name in ("ellipsis_mask", "new_axis_mask", "offset"):
        if operator.options[name]:
            raise UnsupportedError(f"its option {name} is not known here")
    if any(len(part) != len(shape) for part in parts) or 0 in parts[2]:
        raise UsageError(f"its slice {parts} does not fit shape {shape}")
    open_begin, open_end, single = (option(operator, f"{name}_mask") for name in ("begin", "end", "shrink_axis"))
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
    shape, order = shape_of(model, operator, 0), values_of(model, operator, 1)
    axes = [axis_of(axis, len(shape)) for axis in order]
    if sorted(axes) != list(range(len(shape))):
        raise UsageError(f"{order} does not order the axes of shape {shape}")
    return [tuple(shape[axis] for axis in axes)]


def _gathered(model: Model, operator: Operator) -> list[Shape]:
    shape, indices = shape_of(model, operator, 0), model.tensor(operator.inputs[1])
    axis, batches = axis_of(option(operator, "axis"), len(shape)), option(operator, "batch_dims")
    if not 0 <= batches <= min(axis, len(indices.shape)) or shape[:batches] != indices.shape[:batches]:
        raise UsageError(f"{batches} batch axes do not fit shapes {shape} and {indices.shape}")
    if indices.data is not None and indices.size and not 0 <= indices.data.min() <= indices.data.max() < shape[axis]:
        raise UsageError(f"its indices do not lie in an axis of {shape[axis]}")
    return [(*shape[:axis], *indices.shape[batches:], *shape[axis + 1 :])]


MOVES: dict[str, Callable[[Model, Operator], list[Shape]]] = {
    **dict.fromkeys(("PAD", "PADV2"), _padded),
    "MIRROR_PAD": _mirrored,
    "REVERSE_V2": _reversed,
    "TILE": _tiled,
    "BROADCAST_TO": _repeated,
    "SPACE_TO_DEPTH": _deepened,
    "DEPTH_TO_SPACE": _flattened,
    "SPACE_TO_BATCH_ND": _to_batches,
    "BATCH_TO_SPACE_ND": _from_batches,
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
    "GATHER": _gathered,
}
