"""The operator table: what each captured operator becomes on a device, and how large it is there.

Names are ATen names without namespace, overload and in-place mark. The table covers the operators of public vision,
audio and transformer models; whatever is absent is of kind `other`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import cast

from edgeprune.device.ops import Axis, Kind
from edgeprune.graph import Arg, Graph, Node, Ref

_NAMES: dict[Kind, str] = {
    "conv": "conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d",
    "dense": "linear addmm",
    "matmul": "matmul bmm mm baddbmm einsum scaled_dot_product_attention",
    "add": "add sub rsub maximum minimum addcmul where",
    "mul": "mul div",
    "activation": "relu relu6 hardtanh silu hardswish hardsigmoid sigmoid tanh gelu elu selu celu leaky_relu prelu "
    "mish softplus softsign clamp clamp_min clamp_max exp pow rsqrt sqrt neg abs sin cos log log_sigmoid reciprocal",
    "pool": "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d",
    "mean": "mean sum amax amin var std max min argmax linalg_vector_norm norm",
    "concat": "cat concat stack",
    "pad": "pad constant_pad_nd",
    "resize": "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    "softmax": "softmax _softmax log_softmax _log_softmax",
    "norm": "batch_norm layer_norm group_norm instance_norm rms_norm",
    "rnn": "lstm gru rnn_tanh rnn_relu",
    "move": "permute transpose swapaxes t movedim slice select split split_with_sizes chunk tensor_split unbind narrow "
    "index index_select gather roll flip repeat tile repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle "
    "im2col col2im unfold expand",
}
KINDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

# Views, identities and bookkeeping: no runtime executes them.
_FREE = frozenset(
    "dropout feature_dropout alpha_dropout view reshape reshape_as view_as flatten unflatten squeeze unsqueeze "
    "contiguous clone alias detach lift_fresh_copy to type_as expand_as identity getitem "
    "_assert_tensor_metadata".split()
)
_FREE_WHEN_SAME_SHAPE = frozenset(["slice", "pad", "constant_pad_nd", "expand", "repeat", "tile", "narrow"])
FOLDS_BATCH_NORM = frozenset(["conv", "depthwise", "dense"])
FUSES_CLIP = frozenset(["conv", "depthwise", "dense", "add", "mul", "norm"])

_PERMUTES = frozenset(["permute", "transpose", "swapaxes", "t"])
_MOVES = dict.fromkeys(_PERMUTES, "transpose") | dict.fromkeys(("select", "narrow"), "slice")
_MOVES |= dict.fromkeys(("split_with_sizes", "chunk", "tensor_split", "unbind"), "split")
# Of kinds that most operators have the same kernel of.
_USUAL = frozenset(
    "add sub rsub mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d upsample_bilinear2d".split()
)
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Sizes:
    """The numbers of one operator, as in `Op`; `layers` counts stacked recurrent layers."""

    kind: Kind
    in_channels: int
    out_channels: int
    in_positions: int = 1
    out_positions: int = 1
    kernel: int = 1
    groups: int = 1
    stride: int = 1
    in_axis: Axis | None = None
    out_axis: Axis | None = None
    transposed: bool = False
    layers: int = 1
    columns: int = 0
    kernel_rows: int = 0


def clip(node: Node, name: str) -> str:
    """The activation that is only an output range: `relu`, `relu6`, `relu_n1_to_1`; empty for any other operator."""
    if name in ("relu", "relu6"):
        return name
    if name not in ("hardtanh", "clamp", "clamp_min"):
        return ""
    low = argument(node, 1, "min_val" if name == "hardtanh" else "min", -1.0 if name == "hardtanh" else None)
    high = argument(node, 2, "max_val" if name == "hardtanh" else "max", 1.0 if name == "hardtanh" else None)
    ranges: dict[tuple[Arg, Arg], str] = {(0, 6): "relu6", (0, None): "relu", (-1, 1): "relu_n1_to_1"}
    return ranges.get((low, high), "")


def function(node: Node, kind: Kind) -> str:
    """What an operator of its kind does, as `Op.function` names it."""
    name = node.base
    if kind == "pool":
        return "max" if "max" in name else "average"
    if kind == "move":
        strided = name == "slice" and argument(node, 4, "step", 1) != 1
        return "strided" if strided else _MOVES.get(name, name)
    if kind in ("add", "mean", "resize"):
        return "" if name in _USUAL else name
    return {"hardswish": "hard_swish", "sigmoid": "logistic"}.get(name, name) if kind == "activation" else ""


def is_free(node: Node, name: str, source: Node) -> bool:
    """Whether no bytes move: views, identities, slices of everything, permutations that only move axes of size one."""
    if name in _FREE or (name in _FREE_WHEN_SAME_SHAPE and node.shapes[:1] == source.shapes[:1]):
        return True
    if name not in _PERMUTES or len(node.shapes) != 1:
        return False
    before = source.shapes[0]
    order = [axis for axis in _permutation(node, name, len(before)) if before[axis] != 1]
    return order == sorted(order)


def channel_axis(node: Node, name: str, source: tuple[Node, int] | None) -> int:
    """Which axis of a node's first output holds channels; the runtime's layout keeps it innermost."""
    rank = len(node.shapes[0])
    default = 1 if rank >= 4 or rank == 2 else rank - 1
    if source is None or KINDS.get(name) in ("conv", "pool", "resize"):
        return 1 if name != "input" and rank > 1 else default
    if KINDS.get(name) in ("dense", "matmul", "rnn") or name in ("layer_norm", "rms_norm"):
        return rank - 1
    before, axis = source[0].shapes[0], source[1]
    if name in ("batch_norm", "group_norm", "instance_norm"):
        return 1
    if name in _PERMUTES and len(before) == rank:
        return _permutation(node, name, rank).index(axis)
    if axis < rank and axis < len(before) and node.shapes[0][axis] == before[axis]:
        return axis
    if axis == len(before) - 1 and node.shapes[0][-1:] == before[-1:]:
        return rank - 1
    return axis if rank == len(before) else max(default, 0)


def measure(graph: Graph, node: Node, name: str, kind: Kind, source: Node, axes: dict[str, int]) -> Sizes:
    """The sizes of an operator from the shapes at batch one."""
    if kind == "conv":
        return _conv(graph, node, name, source)
    if kind == "dense":
        return _dense(node, source, node.shape[-1])
    if kind == "matmul":
        return _matmul(graph, node, name, source, axes)
    if kind == "rnn":
        return _recurrent(node, name, source)
    axis = axes[node.name]
    channels, positions = _split(node.shapes[0], axis)
    if len(node.shapes) > 1:
        total = sum(prod(shape) for shape in node.shapes)
        channels, positions = (total // positions, positions) if total % positions == 0 else (total, 1)
    _, in_positions = _split(source.shapes[0], axes[source.name])
    if kind == "pool" and positions == 1:
        kind = "mean"
    kernel = 1
    if kind == "pool":
        window = argument(node, 1, "kernel_size")
        rank = len(node.shapes[0]) - 2
        kernel = max(1, in_positions // positions) if name.startswith("adaptive") else _product(window, rank)
    at = (node.name, axis) if node.shapes[0] and len(node.shapes) == 1 else None
    return Sizes(kind, channels, channels, in_positions, positions, kernel=kernel, in_axis=at, out_axis=at)


def argument(node: Node, position: int, name: str, default: Arg = None) -> Arg:
    """An operator's argument by position or by name."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _split(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """(channels, positions) of a shape at batch one."""
    if not shape:
        return 1, 1
    channels = max(shape[axis], 1)
    return channels, max(prod(shape) // channels, 1)


def _product(value: Arg, rank: int) -> int:
    """The product over spatial axes of an int, or a tuple that may have one entry for all axes."""
    if isinstance(value, tuple):
        numbers = [cast(int, entry) for entry in value]
        return prod(numbers) if len(numbers) == rank else numbers[0] ** rank if numbers else 1
    return value**rank if isinstance(value, int) else 1


def _permutation(node: Node, name: str, rank: int) -> list[int]:
    """Output axis -> input axis."""
    if name == "permute":
        return [cast(int, axis) % rank for axis in cast(tuple[Arg, ...], argument(node, 1, "dims"))]
    order = list(range(rank))
    first = cast(int, argument(node, 1, "dim0", 0)) % rank
    second = cast(int, argument(node, 2, "dim1", 1)) % rank
    order[first], order[second] = order[second], order[first]
    return order


def _conv(graph: Graph, node: Node, name: str, source: Node) -> Sizes:
    rank = len(node.shape) - 2
    weight = cast(Ref, argument(node, 1, "weight"))
    kernel = graph.by_name[weight.name].shape[2:]
    transposed = "transpose" in name or (name == "convolution" and argument(node, 6, "transposed") is True)
    place = 8 if name == "convolution" else 6
    groups = cast(int, argument(node, place, "groups", 1))
    cin, cout = source.shapes[0][1], node.shape[1]
    return Sizes(
        kind="depthwise" if groups == cin > 1 else "conv",
        in_channels=cin,
        out_channels=cout,
        in_positions=prod(source.shapes[0][2:]),
        out_positions=prod(node.shape[2:]),
        kernel=prod(kernel),
        groups=groups,
        stride=_product(argument(node, 3, "stride", 1), rank),
        in_axis=(source.name, 1),
        out_axis=(node.name, 1),
        transposed=transposed,
        columns=node.shape[3] if rank == 2 else 0,
        kernel_rows=kernel[0] if rank == 2 else 0,
    )


def _dense(node: Node, source: Node, width: int) -> Sizes:
    rank_in, rank_out = len(source.shapes[0]), len(node.shape)
    cin = source.shapes[0][-1]
    return Sizes(
        kind="dense",
        in_channels=cin,
        out_channels=width,
        in_positions=prod(source.shapes[0]) // cin,
        out_positions=prod(node.shape) // width,
        in_axis=(source.name, rank_in - 1),
        out_axis=(node.name, rank_out - 1),
    )


def _matmul(graph: Graph, node: Node, name: str, source: Node, axes: dict[str, int]) -> Sizes:
    refs = [graph.by_name[ref] for ref in node.refs]
    if name in ("matmul", "mm") and len(refs) == 2 and refs[1].name not in axes and len(refs[1].shape) == 2:
        return _dense(node, source, node.shape[-1])
    width = node.shape[-1] if node.shape else 1
    rows = max(prod(node.shape) // max(width, 1), 1)
    inner = source.shapes[0][-1]
    if name == "einsum":
        inner = _contracted(cast(str, node.args[0]), [n.shapes[0] for n in refs])
    elif name == "scaled_dot_product_attention":  # queries with keys, then weights with values
        inner = 2 * refs[1].shapes[0][-2]
    return Sizes(
        kind="matmul",
        in_channels=max(inner, 1),
        out_channels=width,
        in_positions=max(prod(source.shapes[0]) // max(inner, 1), 1),
        out_positions=rows,
        in_axis=(source.name, len(source.shapes[0]) - 1) if name in ("matmul", "bmm", "mm") else None,
        out_axis=(node.name, len(node.shape) - 1) if node.shape else None,
    )


def _contracted(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """Multiply-accumulates per output element of an einsum; 1 where the equation is not a plain one."""
    left, _, right = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for letters, shape in zip(left.split(","), shapes, strict=False):
        if "." in letters or len(letters) != len(shape):
            return 1
        sizes.update(zip(letters, shape, strict=True))
    return prod(size for letter, size in sizes.items() if letter not in right)


def _recurrent(node: Node, name: str, source: Node) -> Sizes:
    width, steps = node.shapes[0][-1], prod(node.shapes[0][:-1])
    return Sizes(
        kind="rnn",
        in_channels=source.shapes[0][-1],
        out_channels=width,
        in_positions=steps,
        out_positions=steps,
        kernel=_GATES[name],
        groups=2 if argument(node, 7, "bidirectional", False) is True else 1,
        in_axis=(source.name, len(source.shapes[0]) - 1),
        out_axis=(node.name, len(node.shapes[0]) - 1),
        layers=cast(int, argument(node, 4, "num_layers", 1)),
    )
