"""Random small int8 networks of any operators, and the check that their library answers as the reference does.

Scales are chosen so that values neither vanish nor saturate, whatever operators meet; else most faults would not show.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from edgeprune.backends import c as backend
from edgeprune.backends.c.lowering import Variant
from edgeprune.backends.c.model import Model, Operator, Option, Quantization, Tensor
from edgeprune.target import load_target
from tests.backends.c.examples import defaults
from tests.backends.c.files import write
from tests.backends.c.harness import CSRC

Shape = tuple[int, ...]

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize=alignment")
_NAME, _MOST = "net", 3000  # elements of a tensor
_BOARDS: dict[Variant, str] = {"dsp": "nucleo-l4r5zi", "mve": "ek-ra8d1"}
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "PRELU": 1, "HARD_SWISH": 1, "SQUEEZE": 1}
_VERSIONS |= {"EXPAND_DIMS": 1, "RESHAPE": 1, "DEPTH_TO_SPACE": 1, "RELU_0_TO_1": 1, "RELU_N1_TO_1": 1, "PADV2": 1}
_UNIT, _SHARE = Quantization((1 / 128,), (0,)), Quantization((1 / 256,), (-128,))


@dataclass
class _Graph:
    """What is there of a network that grows operator by operator."""

    random: np.random.Generator
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)  # activations that may be read

    def some(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def flag(self, share: float = 0.5) -> bool:
        return bool(self.random.random() < share)

    def one_of(self, *choices: str) -> str:
        return str(self.random.choice(choices))

    def shape(self, tensor: int) -> Shape:
        return self.tensors[tensor].shape

    def like(self, tensor: int) -> Quantization:
        found = self.tensors[tensor].quantization
        assert found is not None
        return found

    def reach(self, tensor: int) -> float:
        """About the greatest real magnitude of a tensor."""
        return 128 * self.like(tensor).scale

    def spread(self, reach: float) -> Quantization:
        """A quantisation for values up to about such a magnitude, some of which may saturate."""
        scale = np.float32(reach / 128 * 2.0 ** self.random.uniform(-1, 1))
        return Quantization((float(scale),), (int(self.random.integers(-128, 128)) if self.flag(0.9) else -128,))

    def add(self, shape: Sequence[int], like: Quantization) -> int:
        self.tensors.append(Tensor(f"t{len(self.tensors)}", tuple(map(int, shape)), "int8", like))
        return len(self.tensors) - 1

    def constant(self, values: object, dtype: str = "int32", like: Quantization | None = None) -> int:
        data = np.array(values, dtype)
        self.tensors.append(Tensor(f"k{len(self.tensors)}", data.shape, dtype, like, data))  # type: ignore[arg-type]
        return len(self.tensors) - 1

    def weights(self, shape: Shape, axis: int) -> int:
        per_channel = self.flag(0.7)
        scales = (2.0 ** self.random.uniform(-8, -5, shape[axis] if per_channel else 1)).astype(np.float32)
        like = Quantization(tuple(map(float, scales)), (0,) * len(scales), axis if len(scales) > 1 else 0)
        data = self.random.integers(-127, 128, shape)
        if self.flag(0.2):
            data[self.random.random(shape) < 0.7] = 0
        return self.constant(data, "int8", like)

    def summed(self, source: int, weights: int, terms: int) -> float:
        """About the greatest magnitude of sums of so many products."""
        return self.reach(source) * max(self.like(weights).scales) * 74 * terms**0.5

    def bias(self, source: int, weights: int, channels: int) -> int:
        scales = (self.like(source).scale * np.array(self.like(weights).scales)).astype(np.float32)
        like = Quantization(tuple(map(float, scales)), (0,) * len(scales))
        return self.constant(self.random.integers(-3000, 3000, channels), "int32", like)

    def made(
        self, kind: str, inputs: Sequence[int], shapes: Sequence[Sequence[int]], like: Quantization, **options: Option
    ) -> None:
        """An operator and its outputs."""
        outputs = tuple(self.add(shape, like) for shape in shapes)
        version = _VERSIONS.get(kind, 2)
        self.operators.append(Operator(kind, tuple(inputs), outputs, defaults(kind) | options, version))
        self.alive += [index for index in outputs if self.tensors[index].size <= _MOST]

    def requantized(self, tensor: int, like: Quantization) -> int:
        """The same values at another scale."""
        if self.like(tensor) == like:
            return tensor
        self.made("QUANTIZE", [tensor], [self.shape(tensor)], like)
        return self.operators[-1].outputs[0]

    def partner(self, x: int) -> int:
        """Another tensor of the shape, a constant that broadcasts, or the tensor itself."""
        fitting = [t for t in self.alive if self.shape(t) == self.shape(x) and t != x]
        if fitting and self.flag(0.8):
            return int(self.random.choice(fitting))
        if self.flag(0.8) and self.shape(x):
            shape = tuple(size if self.flag(0.7) else 1 for size in self.shape(x))
            like = self.spread(self.reach(x))
            return self.constant(self.random.integers(-128, 128, shape), "int8", like)
        return x


Grower = Callable[[_Graph, int], bool]  # whether it made something of a tensor


def _conv(g: _Graph, x: int) -> bool:
    if len(g.shape(x)) != 4:
        return False
    batch, height, width, channels = g.shape(x)
    if g.flag(0.3):
        x, height, width = _padded_for(g, x)
    kernel, stride, dilation = [[g.some(1, high) for _ in "hw"] for high in (4, 2, 2 if g.flag(0.3) else 1)]
    if g.flag(0.3):
        kernel = [3, 3]
    padding = g.one_of("SAME", "VALID")
    made = [_window(*sides, padding) for sides in zip((height, width), kernel, stride, dilation)]
    if min(made) < 1:
        return False
    options: dict[str, Option] = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h_factor": dilation[0], "dilation_w_factor": dilation[1]}
    options |= {"fused_activation_function": g.one_of("NONE", "RELU", "RELU6", "RELU_N1_TO_1")}
    if g.flag(0.4):
        multiplier = g.some(1, 2) if g.flag(0.3) else 1
        weights = g.weights((1, *kernel, channels * multiplier), 3)
        like = g.spread(g.summed(x, weights, prod(kernel)))
        bias = [g.bias(x, weights, channels * multiplier)] if g.flag(0.9) else []
        options |= {"depth_multiplier": multiplier}
        g.made("DEPTHWISE_CONV_2D", [x, weights, *bias], [(batch, *made, channels * multiplier)], like, **options)
        return True
    groups = 2 if channels % 2 == 0 and g.flag(0.15) else 1
    outputs = groups * g.some(1, 9)
    weights = g.weights((outputs, *kernel, channels // groups), 0)
    like = g.spread(g.summed(x, weights, prod(kernel) * channels // groups))
    g.made("CONV_2D", [x, weights, g.bias(x, weights, outputs)], [(batch, *made, outputs)], like, **options)
    return True


def _padded_for(g: _Graph, x: int) -> tuple[int, int, int]:
    batch, height, width, channels = g.shape(x)
    edges = [g.some(0, 2) for _ in range(4)]
    shape = (batch, height + edges[0] + edges[1], width + edges[2] + edges[3], channels)
    g.made("PAD", [x, g.constant([[0, 0], edges[:2], edges[2:], [0, 0]])], [shape], g.like(x))
    return g.operators[-1].outputs[0], shape[1], shape[2]


def _window(size: int, window: int, stride: int, dilation: int, padding: str) -> int:
    return -(-size // stride) if padding == "SAME" else (size - (window - 1) * dilation - 1) // stride + 1


def _residual(g: _Graph, x: int) -> bool:
    """A convolution that keeps the shape, and the sum with what it read."""
    if len(g.shape(x)) != 4 or g.tensors[x].size > _MOST:
        return False
    channels, options = g.shape(x)[3], defaults("CONV_2D") | {"stride_h": 1, "stride_w": 1}
    if g.flag(0.3):
        weights = g.weights((1, 3, 3, channels), 3)
        options = defaults("DEPTHWISE_CONV_2D") | {"stride_h": 1, "stride_w": 1, "depth_multiplier": 1}
        like = g.spread(g.summed(x, weights, 9))
        g.made("DEPTHWISE_CONV_2D", [x, weights, g.bias(x, weights, channels)], [g.shape(x)], like, **options)
    else:
        size = g.some(1, 3)
        weights = g.weights((channels, size, size, channels), 0)
        like = g.spread(g.summed(x, weights, size * size * channels))
        g.made("CONV_2D", [x, weights, g.bias(x, weights, channels)], [g.shape(x)], like, **options)
    made = g.operators[-1].outputs[0]
    pair = [made, x] if g.flag() else [x, made]
    like = g.spread(g.reach(x) + g.reach(made))
    g.made("ADD", pair, [g.shape(x)], like, fused_activation_function=g.one_of("NONE", "RELU"))
    if g.flag(0.8):
        g.alive.remove(made)
    return True


def _transpose_conv(g: _Graph, x: int) -> bool:
    if len(g.shape(x)) != 4 or g.shape(x)[0] != 1:
        return False
    _, height, width, channels = g.shape(x)
    kernel, stride, outputs = [g.some(1, 3) for _ in "hw"], [g.some(1, 2) for _ in "hw"], g.some(1, 4)
    padding = g.one_of("SAME", "VALID")
    extra = [(g.some(1, s) if padding == "SAME" else k) for k, s in zip(kernel, stride)]
    made = [(side - 1) * s + more for side, s, more in zip((height, width), stride, extra)]
    weights = g.weights((outputs, *kernel, channels), 0)
    like = g.spread(g.summed(x, weights, channels * 2))
    inputs = [g.constant([1, *made, outputs]), weights, x, g.bias(x, weights, outputs)]
    options: dict[str, Option] = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    g.made("TRANSPOSE_CONV", inputs, [(1, *made, outputs)], like, **options)
    return True


def _dense(g: _Graph, x: int) -> bool:
    *leading, inputs = g.shape(x) or (0,)
    if not inputs or len(g.shape(x)) < 2:
        return False
    outputs, kept = g.some(1, 12), g.flag()
    weights = g.weights((outputs, inputs), 0)
    rows = leading if kept else [prod(leading)]
    like = g.spread(g.summed(x, weights, inputs))
    g.made("FULLY_CONNECTED", [x, weights, g.bias(x, weights, outputs)], [(*rows, outputs)], like,
           keep_num_dims=kept, fused_activation_function=g.one_of("NONE", "RELU", "RELU6"))  # fmt: skip
    return True


def _elementwise(g: _Graph, x: int) -> bool:
    kind = g.one_of("ADD", "SUB", "MUL", "SQUARED_DIFFERENCE")
    other = g.partner(x)
    a, b = g.reach(x), g.reach(other)
    like = g.spread({"MUL": a * b, "SQUARED_DIFFERENCE": (a + b) ** 2 / 2}.get(kind, a + b))
    clamp: dict[str, Option] = {"fused_activation_function": g.one_of("NONE", "RELU", "RELU6")}
    pair = [x, other] if g.flag() else [other, x]
    g.made(kind, pair, [g.shape(x)], like, **(clamp if kind != "SQUARED_DIFFERENCE" else {}))
    return True


def _extreme(g: _Graph, x: int) -> bool:
    other = g.partner(x)
    like = g.like(x)
    if g.tensors[other].data is not None:
        other = g.constant(g.tensors[other].data, "int8", like)
    else:
        other = g.requantized(other, like)
    g.made(g.one_of("MAXIMUM", "MINIMUM"), [x, other], [g.shape(x)], like)
    return True


def _prelu(g: _Graph, x: int) -> bool:
    if not g.shape(x):
        return False
    slopes = g.constant(g.random.integers(-128, 128, g.shape(x)[-1:]), "int8", g.spread(1.0))
    g.made("PRELU", [x, slopes], [g.shape(x)], g.spread(g.reach(x)))
    return True


def _unary(g: _Graph, x: int) -> bool:
    kind = g.one_of("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH",
                    "GELU", "ABS", "QUANTIZE", "EXP", "LOG")  # fmt: skip
    like = {"LOGISTIC": _SHARE, "TANH": _UNIT, "EXP": g.spread(8.0), "LOG": g.spread(8.0)}.get(kind)
    options: dict[str, Option] = {"LEAKY_RELU": {"alpha": 0.1}, "GELU": {"approximate": g.flag()}}.get(kind, {})
    g.made(kind, [x], [g.shape(x)], like or g.spread(g.reach(x)), **options)
    return True


def _pool(g: _Graph, x: int) -> bool:
    if len(g.shape(x)) != 4:
        return False
    batch, *size, channels = g.shape(x)
    window, stride, padding = [g.some(1, 3) for _ in "hw"], [g.some(1, 3) for _ in "hw"], g.one_of("SAME", "VALID")
    if g.flag(0.2):
        window, padding = list(size), "VALID"
    made = [_window(*sides, 1, padding) for sides in zip(size, window, stride)]
    if min(made) < 1:
        return False
    options: dict[str, Option] = {"padding": padding, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"filter_height": window[0], "filter_width": window[1]}
    options |= {"fused_activation_function": g.one_of("NONE", "RELU")}
    kind = g.one_of("AVERAGE_POOL_2D", "MAX_POOL_2D")
    g.made(kind, [x], [(batch, *made, channels)], g.like(x), **options)
    return True


def _reduce(g: _Graph, x: int) -> bool:
    rank = len(g.shape(x))
    if rank < 2:
        return False
    axes = sorted({g.some(0, rank - 1) for _ in range(2)})
    kept = [1 if axis in axes else size for axis, size in enumerate(g.shape(x))]
    keep = g.flag()
    shape = [size for axis, size in enumerate(kept) if keep or axis not in axes]
    kind = g.one_of("MEAN", "MEAN", "REDUCE_MAX", "REDUCE_MIN")
    like = g.spread(g.reach(x)) if kind == "MEAN" else g.like(x)
    g.made(kind, [x, g.constant(axes)], [shape], like, keep_dims=keep)
    return True


def _softmax(g: _Graph, x: int) -> bool:
    if not g.shape(x):
        return False
    g.made("SOFTMAX", [x], [g.shape(x)], _SHARE, beta=1.0)
    return True


def _pad(g: _Graph, x: int) -> bool:
    shape, kind = g.shape(x), g.one_of("PAD", "PADV2", "MIRROR_PAD")
    if not 1 <= len(shape) <= 4:
        return False
    mode = g.one_of("REFLECT", "SYMMETRIC")
    most = [min(2, size - (mode == "REFLECT")) if kind == "MIRROR_PAD" else 2 for size in shape]
    edges = [[g.some(0, many), g.some(0, many)] for many in most]
    inputs = [x, g.constant(edges)]
    if kind == "PADV2":
        inputs.append(g.constant([g.some(-128, 127)], "int8", g.like(x)))
    options: dict[str, Option] = {"mode": mode} if kind == "MIRROR_PAD" else {}
    g.made(kind, inputs, [[size + sum(pair) for size, pair in zip(shape, edges)]], g.like(x), **options)
    return True


def _join(g: _Graph, x: int) -> bool:
    rank = len(g.shape(x))
    if not 1 <= rank <= 4:
        return False
    axis = g.some(0, rank - 1)
    others = [t for t in g.alive if len(g.shape(t)) == rank
              and all(a == b for at, (a, b) in enumerate(zip(g.shape(t), g.shape(x))) if at != axis)]  # fmt: skip
    chosen = [int(t) for t in g.random.choice(others, g.some(1, 3))] if others else [x]
    if g.flag(0.3):
        shape = g.shape(x)
        chosen.append(g.constant(g.random.integers(-128, 128, shape), "int8", g.like(x)))
    joined = [x, *(t if g.tensors[t].data is not None else g.requantized(t, g.like(x)) for t in chosen)]
    if g.flag(0.3) and len({g.shape(t) for t in joined}) == 1:
        shape = (*g.shape(x)[:axis], len(joined), *g.shape(x)[axis:])
        g.made("PACK", joined, [shape], g.like(x), axis=axis, values_count=len(joined))
        return True
    whole = sum(g.shape(t)[axis] for t in joined)
    signed = axis if g.flag() else axis - rank
    g.made("CONCATENATION", joined, [(*g.shape(x)[:axis], whole, *g.shape(x)[axis + 1 :])], g.like(x), axis=signed)
    return True


def _part(g: _Graph, x: int) -> bool:
    shape, rank = g.shape(x), len(g.shape(x))
    if not 2 <= rank <= 4:
        return False
    axis = g.some(0, rank - 1)
    size, (before, after) = shape[axis], (shape[:axis], shape[axis + 1 :])
    kind = g.one_of("SPLIT", "SPLIT_V", "UNPACK", "SLICE", "STRIDED_SLICE")
    if kind == "SPLIT":
        count = next(n for n in (3, 2, 1) if size % n == 0)
        parts = [(*before, size // count, *after)] * count
        g.made(kind, [g.constant(axis), x], parts, g.like(x), num_splits=count)
    elif kind == "SPLIT_V":
        first = g.some(1, size)
        sizes = [first, size - first] if first < size else [size]
        listed = [x, g.constant(sizes), g.constant(axis)]
        g.made(kind, listed, [(*before, part, *after) for part in sizes], g.like(x), num_splits=len(sizes))
    elif kind == "UNPACK" and size <= 4:
        g.made(kind, [x], [(*before, *after)] * size, g.like(x), axis=axis, num=size)
    else:
        starts = [g.some(0, n - 1) for n in shape]
        sizes = [g.some(1, n - at) for at, n in zip(starts, shape)]
        if kind != "STRIDED_SLICE":
            g.made("SLICE", [x, g.constant(starts), g.constant(sizes)], [sizes], g.like(x))
        else:
            steps = [g.some(1, 2) for _ in shape]
            ends = [at + n for at, n in zip(starts, sizes)]
            made = [len(range(*ends)) for ends in zip(starts, ends, steps)]
            g.made(kind, [x, *(g.constant(part) for part in (starts, ends, steps))], [made], g.like(x))
    return True


def _move(g: _Graph, x: int) -> bool:
    shape, rank = g.shape(x), len(g.shape(x))
    if not 1 <= rank <= 4:
        return False
    kind = g.one_of("TRANSPOSE", "REVERSE_V2", "TILE", "GATHER", "BROADCAST_TO")
    axis = g.some(0, rank - 1)
    if kind == "TRANSPOSE":
        order = g.random.permutation(rank).tolist()
        g.made(kind, [x, g.constant(order)], [[shape[at] for at in order]], g.like(x))
    elif kind == "REVERSE_V2":
        g.made(kind, [x, g.constant([axis])], [shape], g.like(x))
    elif kind == "TILE":
        times = [g.some(1, 2) for _ in shape]
        g.made(kind, [x, g.constant(times)], [[size * many for size, many in zip(shape, times)]], g.like(x))
    elif kind == "GATHER":
        picked = g.random.integers(0, shape[axis], g.some(1, 4)).astype(np.int32)
        made = (*shape[:axis], len(picked), *shape[axis + 1 :])
        g.made(kind, [x, g.constant(picked)], [made], g.like(x), axis=axis)
    else:
        made = tuple(3 if size == 1 else size for size in shape)
        g.made(kind, [x, g.constant(made)], [made], g.like(x))
    return True


def _view(g: _Graph, x: int) -> bool:
    shape = g.shape(x)
    kind = g.one_of("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
    if kind == "SQUEEZE":
        kept = [size for size in shape if size != 1]
        g.made(kind, [x], [kept], g.like(x))
    elif kind == "EXPAND_DIMS" and len(shape) < 4:
        axis = g.some(0, len(shape))
        g.made(kind, [x, g.constant(axis)], [(*shape[:axis], 1, *shape[axis:])], g.like(x))
    else:
        size = g.tensors[x].size
        divisors = [n for n in range(1, size + 1) if size % n == 0]
        rows = int(g.random.choice(divisors))
        made = (rows, size // rows) if g.flag() else (1, 1, rows, size // rows)
        g.made("RESHAPE", [x, g.constant(made)], [made], g.like(x))
    return True


def _resize(g: _Graph, x: int) -> bool:
    if len(g.shape(x)) != 4:
        return False
    batch, *_, channels = g.shape(x)
    sizes, choice = (g.some(1, 7), g.some(1, 7)), g.some(0, 2)
    options: dict[str, Option] = {"align_corners": choice == 1, "half_pixel_centers": choice == 2}
    kind = g.one_of("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR")
    g.made(kind, [x, g.constant(sizes)], [(batch, *sizes, channels)], g.like(x), **options)
    return True


def _blocks(g: _Graph, x: int) -> bool:
    if len(g.shape(x)) != 4:
        return False
    batch, height, width, channels = g.shape(x)
    if height % 2 == 0 and width % 2 == 0 and g.flag():
        g.made("SPACE_TO_DEPTH", [x], [(batch, height // 2, width // 2, 4 * channels)], g.like(x), block_size=2)
    elif channels % 4 == 0 and g.flag():
        g.made("DEPTH_TO_SPACE", [x], [(batch, height * 2, width * 2, channels // 4)], g.like(x), block_size=2)
    else:
        edges = [[0, -height % 2], [0, -width % 2]]
        made = (batch * 4, -(-height // 2), -(-width // 2), channels)
        g.made("SPACE_TO_BATCH_ND", [x, g.constant([2, 2]), g.constant(edges)], [made], g.like(x))
        back = g.operators[-1].outputs[0]
        g.made("BATCH_TO_SPACE_ND", [back, g.constant([2, 2]), g.constant(edges)], [g.shape(x)], g.like(x))
    return True


def _matmul(g: _Graph, x: int) -> bool:
    if len(g.shape(x)) not in (2, 3):
        return False
    *leading, rows, inner = g.shape(x)
    columns = g.some(1, 6)
    right = g.constant(g.random.integers(-128, 128, (columns, inner)), "int8", g.spread(1.0))
    adjoint = True
    if g.flag(0.4):
        right, columns = x, rows
    shape = (*leading, rows, columns)
    like = g.spread(g.reach(x) * g.reach(right) * inner**0.5 / 3)
    g.made("BATCH_MATMUL", [x, right], [shape], like, adj_y=adjoint)
    return True


_GROWERS: tuple[Grower, ...] = (
    *4 * (_conv,),
    *3 * (_residual,),
    *2 * (_elementwise,),
    _transpose_conv,
    _dense,
    _extreme,
    _prelu,
    _unary,
    _unary,
    _pool,
    _reduce,
    _softmax,
    _pad,
    _join,
    _join,
    _part,
    _move,
    _view,
    _resize,
    _blocks,
    _matmul,
)


def network(seed: int) -> Model:
    """A network of a few up to some twenty operators; what nothing reads are its outputs, and sometimes more."""
    random = np.random.default_rng(seed)
    g = _Graph(random)
    for _ in range(g.some(1, 2)):
        shape = (1, g.some(3, 9), g.some(3, 9), g.some(1, 9)) if g.flag(0.8) else (g.some(1, 3), g.some(2, 30))
        g.alive.append(g.add(shape, g.spread(4.0)))
    inputs = tuple(g.alive)
    length = g.some(1, 14)
    while len(g.operators) < length:
        x = g.alive[-1] if g.flag(0.6) else int(random.choice(g.alive))
        _GROWERS[g.some(0, len(_GROWERS) - 1)](g, x)
    read = {index for operator in g.operators for index in operator.inputs}
    made = [index for operator in g.operators for index in operator.outputs]
    outputs = [index for index in made if index not in read or g.flag(0.05)]
    return Model(tuple(g.tensors), tuple(g.operators), inputs, tuple(outputs))


def kernels(folder: Path, flags: Sequence[str]) -> list[str]:
    """All kernels compiled once for the libraries of `agrees`."""
    found = []
    for source in sorted(CSRC.glob("*.c")):
        found.append(str(folder / f"{source.stem}.o"))
        command = ["cc", "-std=c99", *flags, f"-DEP_PREFIX={_NAME}_ep", f"-I{CSRC}", "-c", str(source), "-o", found[-1]]
        subprocess.run(command, check=True)
    return found


def said(
    model: Model, folder: Path, objects: Sequence[str], flags: Sequence[str], variant: Variant = "plain", count: int = 3
) -> tuple[int, str]:
    """Status and words of the library's own test, whose answers are the reference's."""
    board = load_target(_BOARDS[variant]) if variant in _BOARDS else None
    backend.convert(write(model, folder / "model.tflite"), folder, _NAME, board, count)
    sources = [folder / "src" / f"{_NAME}.c", folder / "src" / f"{_NAME}_weights.c", folder / "test" / "selftest.c"]
    includes = [f"-I{folder / part}" for part in ("include", "src", "test")]
    command = ["cc", "-std=c99", *flags, *includes, *map(str, sources), *objects, "-o", str(folder / "selftest")]
    subprocess.run(command, check=True)
    done = subprocess.run([str(folder / "selftest")], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
