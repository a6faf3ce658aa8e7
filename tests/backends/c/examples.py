"""Random models that a reader has to accept: one operator of each kind, and small networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.model import Model, Operator, Option, Quantization, Tensor
from edgeprune.backends.c.options import TABLES
from edgeprune.backends.c.signatures import SIGNATURES

Random = np.random.Generator
Shape = tuple[int, ...]

KINDS = sorted(SIGNATURES)
_PROBABILITIES = Quantization((1 / 256,), (-128,))
_UNIT = Quantization((1 / 128,), (0,))


@dataclass
class _Builder:
    """Tensors collected while a model is put together; methods return indices."""

    random: Random
    tensors: list[Tensor] = field(default_factory=list)

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def quantization(self) -> Quantization:
        scale = float(np.float32(2.0 ** self.random.uniform(-6, 0)))
        return Quantization((scale,), (int(self.random.integers(-128, 128)),))

    def data(self, *shape: int, like: Quantization | None = None) -> int:
        return self.add(Tensor(f"data {len(self.tensors)}", shape, "int8", like or self.quantization()))

    def values(self, *values: Any, dtype: Any = "int32") -> int:
        array = np.array(values, dtype)
        return self.add(Tensor("values", array.shape, dtype, None, array))

    def scalar(self, value: int) -> int:
        return self.add(Tensor("scalar", (), "int32", None, np.array(value, np.int32)))

    def weights(self, shape: Shape, axis: int, per_channel: bool) -> int:
        scales = 2.0 ** self.random.uniform(-9, -5, shape[axis] if per_channel else 1)
        stored = tuple(map(float, scales.astype(np.float32)))
        quantization = Quantization(stored, (0,) * len(stored), axis if len(stored) > 1 else 0)
        data = self.random.integers(-127, 128, shape, np.int8)
        return self.add(Tensor("weights", shape, "int8", quantization, data))

    def bias(self, data: int, weights: int, channels: int) -> int:
        scales = self.tensors[data].scale * np.array(self.tensors[weights].quantization.scales)  # type: ignore[union-attr]
        quantization = Quantization(tuple(map(float, scales.astype(np.float32))), (0,) * len(scales))
        values = self.random.integers(-1000, 1000, channels, np.int32)
        return self.add(Tensor("bias", (channels,), "int32", quantization, values))

    def some(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def sizes(self, rank: int) -> Shape:
        return tuple(self.some(1, 5) for _ in range(rank))

    def axis(self, rank: int) -> int:
        return self.some(-rank, rank - 1)

    def flag(self) -> bool:
        return bool(self.random.integers(2))

    def padding(self) -> str:
        return "SAME" if self.flag() else "VALID"


@dataclass(frozen=True)
class _Made:
    """What a recipe puts together: inputs, shapes of outputs (their quantisation, where it has to be some), options."""

    inputs: list[int | None]
    outputs: list[Shape]
    options: Mapping[str, Option] = field(default_factory=dict)
    like: Quantization | None = None


def example(kind: str, random: Random) -> Model:
    """A model of one operator of a kind; all its options are filled in."""
    builder = _Builder(random)
    made = _RECIPES.get(kind, _unary)(builder, kind)
    quantization = {"LOGISTIC": _PROBABILITIES, "SOFTMAX": _PROBABILITIES, "TANH": _UNIT}.get(kind, made.like)
    outputs = tuple(builder.data(*shape, like=quantization) for shape in made.outputs)
    inputs = [i for i in made.inputs if i is not None]
    taken = tuple(i for i in inputs if builder.tensors[i].data is None and not builder.tensors[i].variable)
    options = defaults(kind) | made.options
    version = 1 if kind == "PADV2" else min(SIGNATURES[kind].version, 2)
    operator = Operator(kind, tuple(made.inputs), outputs, options, _VERSIONS.get(kind, version))
    return Model(tuple(builder.tensors), (operator,), tuple(dict.fromkeys(taken)), outputs)


def network(random: Random, length: int = 6) -> Model:
    """A chain of convolutions and what lies between them, with a residual addition."""
    builder = _Builder(random)
    channels = builder.some(1, 6)
    current = first = builder.data(1, builder.some(4, 9), builder.some(4, 9), channels)
    operators = []
    for _ in range(length):
        shape = builder.tensors[current].shape
        made = _NETWORK[builder.some(0, len(_NETWORK) - 1)](builder, current, shape)
        operators.append(made)
        current = made.outputs[0]
    return Model(tuple(builder.tensors), tuple(operators), (first,), (current,))


def defaults(kind: str) -> dict[str, Option]:
    """Options of a kind as they are where a file does not store them."""
    found: dict[str, Option] = {}
    for option in TABLES.get(SIGNATURES[kind].table, ()):
        if option.form is not None:
            names = {"Padding": "SAME", "TensorType": "FLOAT32"}
            named = option.known[0] if option.known else names.get(option.enumeration, "")
            found[option.name] = named if option.enumeration else option.default
    return found


_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "UNIDIRECTIONAL_SEQUENCE_LSTM": 3}


def _unary(builder: _Builder, kind: str) -> _Made:
    shape = builder.sizes(builder.some(1, 4))
    options: dict[str, Option] = {"SOFTMAX": {"beta": 1.0}, "LEAKY_RELU": {"alpha": 0.125}}.get(kind, {})
    like = Quantization((builder.quantization().scale,), (-128,)) if kind in ("SQRT", "RSQRT") else None
    return _Made([builder.data(*shape, like=like)], [shape], options)


def _window(builder: _Builder, size: int, window: int, stride: int, dilation: int, padding: str) -> int:
    return -(-size // stride) if padding == "SAME" else (size - (window - 1) * dilation - 1) // stride + 1


def _conv(builder: _Builder, kind: str) -> _Made:
    depthwise = kind == "DEPTHWISE_CONV_2D"
    batch, groups, padding = builder.some(1, 2), 1 if depthwise else builder.some(1, 2), builder.padding()
    inputs = groups * builder.some(1, 4)
    multiplier = builder.some(1, 3)
    outputs = inputs * multiplier if depthwise else groups * builder.some(1, 4)
    kernel, stride, dilation = [[builder.some(1, high) for _ in "hw"] for high in (3, 2, 2)]
    size = [builder.some(5, 8) for _ in "hw"]
    data = builder.data(batch, *size, inputs)
    shape = (1, *kernel, outputs) if depthwise else (outputs, *kernel, inputs // groups)
    weights = builder.weights(shape, 3 if depthwise else 0, True)
    # LiteRT runs no plain convolution without a bias.
    bias = [builder.bias(data, weights, outputs)] if not depthwise or builder.flag() else []
    made = [_window(builder, *sides, padding) for sides in zip(size, kernel, stride, dilation)]
    options: dict[str, Option] = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h_factor": dilation[0], "dilation_w_factor": dilation[1]}
    options |= {"fused_activation_function": str(builder.random.choice(["NONE", "RELU", "RELU6"]))}
    options |= {"depth_multiplier": multiplier} if depthwise else {}
    return _Made([data, weights, *bias], [(batch, *made, outputs)], options)


def _transpose_conv(builder: _Builder, kind: str) -> _Made:
    size, kernel, stride = [[builder.some(1, high) for _ in "hw"] for high in (5, 3, 2)]
    inputs, outputs, padding = builder.some(1, 4), builder.some(1, 4), builder.padding()
    made = [
        (side - 1) * step + (builder.some(1, step) if padding == "SAME" else window)
        for side, window, step in zip(size, kernel, stride)
    ]
    weights = builder.weights((outputs, *kernel, inputs), 0, True)
    data = builder.data(1, *size, inputs)
    options: dict[str, Option] = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    bias = builder.bias(data, weights, outputs)
    return _Made([builder.values(1, *made, outputs), weights, data, bias], [(1, *made, outputs)], options)


def _dense(builder: _Builder, kind: str) -> _Made:
    kept, (*leading, inputs) = builder.flag(), builder.sizes(builder.some(1, 3))
    outputs = builder.some(1, 5)
    data, weights = builder.data(*leading, inputs), builder.weights((outputs, inputs), 0, False)
    rows = (*leading,) if kept else (int(np.prod(leading, dtype=int)),)
    bias = builder.bias(data, weights, outputs)
    return _Made([data, weights, bias], [(*rows, outputs)], {"keep_num_dims": kept})


def _batch_matmul(builder: _Builder, kind: str) -> _Made:
    leading, (rows, inner, columns) = builder.sizes(builder.some(0, 2)), builder.sizes(3)
    adj_x, adj_y = builder.flag(), builder.flag()
    left = (inner, rows) if adj_x else (rows, inner)
    right = (columns, inner) if adj_y else (inner, columns)
    options = {"adj_x": adj_x, "adj_y": adj_y}
    return _Made([builder.data(*leading, *left), builder.data(*right)], [(*leading, rows, columns)], options)


def _elementwise(builder: _Builder, kind: str) -> _Made:
    shape = builder.sizes(builder.some(1, 4))
    other = tuple(size if builder.flag() else 1 for size in shape)[builder.some(0, len(shape) - 1) :]
    like = builder.quantization()
    inputs: list[int | None] = [builder.data(*shape, like=like), builder.data(*other, like=like)]
    return _Made(inputs if kind == "PRELU" or builder.flag() else inputs[::-1], [shape], like=like)


def _pool(builder: _Builder, kind: str) -> _Made:
    size, window, stride = [[builder.some(low, high) for _ in "hw"] for low, high in ((3, 6), (1, 3), (1, 3))]
    padding, like, channels = builder.padding(), builder.quantization(), builder.some(1, 4)
    made = [_window(builder, *sides, 1, padding) for sides in zip(size, window, stride)]
    options: dict[str, Option] = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"filter_height": window[0], "filter_width": window[1]}
    return _Made([builder.data(1, *size, channels, like=like)], [(1, *made, channels)], options, like)


def _reduced(builder: _Builder, kind: str) -> _Made:
    shape, keep = builder.sizes(4), builder.flag()
    axes = sorted({builder.axis(4) % 4 for _ in range(2)})
    made = [1 if axis in axes else size for axis, size in enumerate(shape)]
    output = tuple(size for axis, size in enumerate(made) if keep or axis not in axes)
    like = builder.quantization() if kind in ("REDUCE_MAX", "REDUCE_MIN") else None
    return _Made([builder.data(*shape, like=like), builder.values(*axes)], [output], {"keep_dims": keep}, like)


def _padded(builder: _Builder, kind: str) -> _Made:
    shape, like = builder.sizes(builder.some(1, 4)), builder.quantization()
    if kind == "MIRROR_PAD":
        return _mirrored(builder, shape, like)
    paddings = builder.random.integers(0, 3, (len(shape), 2), np.int32)
    inputs: list[int | None] = [builder.data(*shape, like=like), builder.values(*paddings)]
    if kind == "PADV2":
        value = builder.random.integers(-128, 128, (1,), np.int8)
        inputs.append(builder.add(Tensor("value", (1,), "int8", like, value)))
    return _Made(inputs, [tuple(size + sum(pair) for size, pair in zip(shape, paddings.tolist()))], like=like)


def _mirrored(builder: _Builder, shape: Shape, like: Quantization) -> _Made:
    mode = "REFLECT" if builder.flag() else "SYMMETRIC"
    most = [size - (mode == "REFLECT") for size in shape]
    paddings = [[builder.some(0, many) for _ in range(2)] for many in most]
    made = tuple(size + sum(pair) for size, pair in zip(shape, paddings))
    return _Made([builder.data(*shape, like=like), builder.values(*paddings)], [made], {"mode": mode}, like)


def _repeated(builder: _Builder, kind: str) -> _Made:
    shape, like = builder.sizes(builder.some(1, 4)), builder.quantization()
    if kind == "REVERSE_V2":
        axes = sorted({builder.axis(len(shape)) % len(shape)})
        return _Made([builder.data(*shape, like=like), builder.values(*axes)], [shape], like=like)
    if kind == "TILE":
        times = [builder.some(1, 3) for _ in shape]
        made = tuple(size * many for size, many in zip(shape, times))
        return _Made([builder.data(*shape, like=like), builder.values(*times)], [made], like=like)
    narrow = tuple(size if builder.flag() else 1 for size in shape)[builder.some(0, len(shape) - 1) :]
    return _Made([builder.data(*narrow, like=like), builder.values(*shape)], [shape], like=like)


def _blocks(builder: _Builder, kind: str) -> _Made:
    (batch, height, width, channels), size, like = builder.sizes(4), builder.some(1, 3), builder.quantization()
    deep, wide = (batch, height, width, channels * size**2), (batch, height * size, width * size, channels)
    ends = (wide, deep) if kind == "SPACE_TO_DEPTH" else (deep, wide)
    return _Made([builder.data(*ends[0], like=like)], [ends[1]], {"block_size": size}, like)


def _batches(builder: _Builder, kind: str) -> _Made:
    batch, channels, like, rank = builder.some(1, 2), builder.some(1, 4), builder.quantization(), builder.some(1, 2)
    sizes, places = [builder.some(1, 3) for _ in range(rank)], [builder.some(2, 4) for _ in range(rank)]
    margins = [[builder.some(0, size - 1), builder.some(0, size - 1)] for size in sizes]
    image = tuple(size * many - sum(pair) for size, many, pair in zip(sizes, places, margins))
    large, small = (batch, *image, channels), (batch * int(np.prod(sizes)), *places, channels)
    ends = (large, small) if kind == "SPACE_TO_BATCH_ND" else (small, large)
    inputs = [builder.data(*ends[0], like=like), builder.values(*sizes), builder.values(*margins)]
    return _Made([*inputs], [ends[1]], like=like)


def _viewed(builder: _Builder, kind: str) -> _Made:
    shape, like = builder.sizes(3), builder.quantization()
    if kind == "SQUEEZE":
        return _Made([builder.data(1, *shape, 1, like=like)], [tuple(s for s in shape if s > 1)], like=like)
    if kind == "EXPAND_DIMS":
        axis = builder.some(0, 3)
        output = (*shape[:axis], 1, *shape[axis:])
        return _Made([builder.data(*shape, like=like), builder.values(axis)], [output], like=like)
    asked = builder.values(shape[0] * shape[1], -1)
    return _Made([builder.data(*shape, like=like), asked], [(shape[0] * shape[1], shape[2])], like=like)


def _joined(builder: _Builder, kind: str) -> _Made:
    shape, like, count = builder.sizes(3), builder.quantization(), builder.some(1, 4)
    if kind == "PACK":
        axis = builder.some(0, 3)
        inputs: list[int | None] = [builder.data(*shape, like=like) for _ in range(count)]
        return _Made(inputs, [(*shape[:axis], count, *shape[axis:])], {"axis": axis, "values_count": count}, like)
    axis = builder.axis(3)
    parts = [(*shape[: axis % 3], builder.some(1, 4), *shape[axis % 3 + 1 :]) for _ in range(count)]
    joined = (*shape[: axis % 3], sum(part[axis] for part in parts), *shape[axis % 3 + 1 :])
    return _Made([builder.data(*part, like=like) for part in parts], [joined], {"axis": axis}, like)


def _parted(builder: _Builder, kind: str) -> _Made:
    shape, like, axis, count = builder.sizes(3), builder.quantization(), builder.axis(3), builder.some(1, 4)
    before, after = shape[: axis % 3], shape[axis % 3 + 1 :]
    if kind == "UNPACK":
        data = builder.data(*before, count, *after, like=like)
        return _Made([data], [(*before, *after)] * count, {"axis": axis, "num": count}, like)
    sizes = [shape[axis]] * count if kind == "SPLIT" else [builder.some(1, 3) for _ in range(count)]
    data = builder.data(*before, sum(sizes), *after, like=like)
    where = builder.scalar(axis)
    listed = [*sizes[:-1], -1 if builder.flag() else sizes[-1]]
    inputs: list[int | None] = [where, data] if kind == "SPLIT" else [data, builder.values(*listed), where]
    return _Made(inputs, [(*before, size, *after) for size in sizes], {"num_splits": count}, like)


def _sliced(builder: _Builder, kind: str) -> _Made:
    shape, like = builder.sizes(3), builder.quantization()
    begins = [builder.some(0, size - 1) for size in shape]
    sizes = [builder.some(1, size - begin) for size, begin in zip(shape, begins)]
    data = builder.data(*shape, like=like)
    if kind == "SLICE":
        asked = [-1 if begin + part == size else part for size, begin, part in zip(shape, begins, sizes)]
        dtype = "int64" if builder.flag() else "int32"
        inputs = [data, builder.values(*begins, dtype=dtype), builder.values(*asked, dtype=dtype)]
        return _Made([*inputs], [tuple(sizes)], like=like)
    strides, masks = [builder.some(1, 2) for _ in shape], [builder.some(0, 7) for _ in range(3)]
    ends = [begin + part for begin, part in zip(begins, sizes)]
    kept = []
    for axis, (size, begin, end, stride) in enumerate(zip(shape, begins, ends, strides)):
        begin, end = (0 if masks[0] >> axis & 1 else begin), (size if masks[1] >> axis & 1 else end)
        if not masks[2] >> axis & 1:
            kept.append(len(range(begin, end, stride)))
    # LiteRT starts a single index at the axis' start where its begin is open; both then give one position.
    options = {"begin_mask": masks[0], "end_mask": masks[1], "shrink_axis_mask": masks[2]}
    inputs = [data, *(builder.values(*part) for part in (begins, ends, strides))]
    return _Made([*inputs], [tuple(kept)], options, like)


def _transposed(builder: _Builder, kind: str) -> _Made:
    shape, like = builder.sizes(builder.some(1, 5)), builder.quantization()
    order = builder.random.permutation(len(shape)).tolist()
    output = tuple(shape[axis] for axis in order)
    return _Made([builder.data(*shape, like=like), builder.values(*order)], [output], like=like)


def _resized(builder: _Builder, kind: str) -> _Made:
    (batch, *size, channels), like, choice = builder.sizes(4), builder.quantization(), builder.some(0, 2)
    asked = builder.sizes(2)
    options = {"align_corners": choice == 1, "half_pixel_centers": choice == 2}
    data = builder.data(batch, *size, channels, like=like)
    return _Made([data, builder.values(*asked)], [(batch, *asked, channels)], options, like)


def _gathered(builder: _Builder, kind: str) -> _Made:
    shape, like, axis = builder.sizes(3), builder.quantization(), builder.axis(3)
    indices = builder.random.integers(0, shape[axis], builder.sizes(builder.some(1, 2)))
    made = builder.add(Tensor("indices", indices.shape, "int32", None, indices.astype(np.int32)))
    output = (*shape[: axis % 3], *indices.shape, *shape[axis % 3 + 1 :])
    return _Made([builder.data(*shape, like=like), made], [output], {"axis": axis}, like)


def _lstm(builder: _Builder, kind: str) -> _Made:
    steps, batch, inputs, cells = builder.sizes(4)
    time_major, like = builder.flag(), Quantization((1 / 128,), (0,))
    leading = (steps, batch) if time_major else (batch, steps)
    data = builder.data(*leading, inputs)
    listed: list[int | None] = [data]
    listed += [builder.weights((cells, inputs), 0, False) for _ in range(4)]
    listed += [builder.weights((cells, cells), 0, False) for _ in range(4)]
    listed += [None] * 3 + [builder.bias(data, 1 + gate, cells) for gate in range(4)] + [None] * 2
    listed.append(builder.add(Tensor("outputs before", (batch, cells), "int8", like, None, True)))
    cell = Quantization((2.0**-11,), (0,))
    listed.append(builder.add(Tensor("cells before", (batch, cells), "int16", cell, None, True)))
    return _Made([*listed, *[None] * 4], [(*leading, cells)], {"time_major": time_major, "cell_clip": 0.5}, like)


_RECIPES: dict[str, Callable[[_Builder, str], _Made]] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _conv),
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU"), _elementwise),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduced),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _padded),
    **dict.fromkeys(("REVERSE_V2", "TILE", "BROADCAST_TO"), _repeated),
    **dict.fromkeys(("SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), _blocks),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), _batches),
    **dict.fromkeys(("SQUEEZE", "EXPAND_DIMS", "RESHAPE"), _viewed),
    **dict.fromkeys(("CONCATENATION", "PACK"), _joined),
    **dict.fromkeys(("SPLIT", "SPLIT_V", "UNPACK"), _parted),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), _sliced),
    "TRANSPOSE": _transposed,
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), _resized),
    "GATHER": _gathered,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}


def _link_conv(builder: _Builder, current: int, shape: Shape) -> Operator:
    outputs = builder.some(1, 6)
    weights = builder.weights((outputs, 3, 3, shape[3]), 0, True)
    bias = builder.bias(current, weights, outputs)
    made = builder.data(*shape[:3], outputs)
    options = defaults("CONV_2D") | {"stride_h": 1, "stride_w": 1, "fused_activation_function": "RELU"}
    return Operator("CONV_2D", (current, weights, bias), (made,), options, 3)


def _link_add(builder: _Builder, current: int, shape: Shape) -> Operator:
    made = builder.data(*shape)
    return Operator("ADD", (current, current), (made,), defaults("ADD"), 2)


def _link_pool(builder: _Builder, current: int, shape: Shape) -> Operator:
    made = builder.data(*shape, like=builder.tensors[current].quantization)
    sizes = dict.fromkeys(("stride_h", "stride_w"), 1) | dict.fromkeys(("filter_height", "filter_width"), 2)
    return Operator("MAX_POOL_2D", (current,), (made,), defaults("MAX_POOL_2D") | sizes, 2)


def _link_relu(builder: _Builder, current: int, shape: Shape) -> Operator:
    return Operator("RELU6", (current,), (builder.data(*shape),), {}, 2)


_NETWORK = (_link_conv, _link_add, _link_pool, _link_relu)


def same_array(left: Array | None, right: Array | None) -> bool:
    """Whether two constants are equal in type, shape and values."""
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())


def same_model(left: Model, right: Model) -> bool:
    """Whether two models are equal but for the hash of the file."""
    tensors = [
        replace(one, data=None).__dict__ == replace(other, data=None).__dict__ and same_array(one.data, other.data)
        for one, other in zip(left.tensors, right.tensors)
    ]
    sides = [(model.operators, model.inputs, model.outputs, len(model.tensors)) for model in (left, right)]
    return sides[0] == sides[1] and all(tensors)
