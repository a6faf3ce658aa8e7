"""Channel labels: which positions on which axes are the same channel.

Every axis of every tensor (parameters included) carries either None, an axis that cannot shrink, or an array with one
label per position. A rule per operator says how the labels of its outputs follow from those of its inputs and which
labels must go together (`tie`). What has no rule is frozen and named: nothing is skipped silently, nothing guessed.
After one pass, connected components over all ties are the channels. Time is linear in nodes times channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edgeprune.graph import Arg, Graph, Node, Ref, Shape

Labels = np.ndarray[Any, np.dtype[np.int64]]
Axes = tuple[Labels | None, ...]  # one entry per axis of a tensor


@dataclass
class Labelling:
    """Labels under construction, in one pass over the graph."""

    graph: Graph
    axes: dict[str, tuple[Axes, ...]] = field(default_factory=dict)  # per node, one entry per output
    freezes: list[tuple[Labels, str]] = field(default_factory=list)
    count: int = 0
    _ties: list[tuple[Labels, Labels]] = field(default_factory=list)

    def fresh(self, size: int) -> Labels:
        start, self.count = self.count, self.count + size
        return np.arange(start, self.count)

    def tie(self, a: Labels | None, b: Labels | None, reason: str) -> Labels | None:
        """Make two axes the same channels position by position; an unlabelled one freezes the other."""
        if a is None or b is None:
            self.freeze(a if b is None else b, reason)
            return None
        assert len(a) == len(b), (reason, len(a), len(b))
        self._ties.append((a, b))
        return a

    def freeze(self, labels: Labels | None, reason: str) -> None:
        if labels is not None and len(labels):
            self.freezes.append((labels, reason))

    def of(self, ref: object) -> Axes:
        """The axes of a single-output argument; none for a number."""
        if not isinstance(ref, Ref):
            return ()
        outputs = self.axes[ref.name]
        return outputs[0] if len(outputs) == 1 else ()

    def components(self) -> Labels:
        """Component id per label, numbered by first label, so that order follows the graph."""
        if not self._ties:
            return np.arange(self.count)
        rows = np.concatenate([a for a, _ in self._ties])
        columns = np.concatenate([b for _, b in self._ties])
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(self.count, self.count))
        _, ids = connected_components(links, directed=False)
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse]


Rule = Callable[[Labelling, Node], "tuple[Axes, ...]"]
_RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register the rule of the named operators (overload packets, in-place forms included)."""

    def register(function: Rule) -> Rule:
        for op in ops:
            assert op not in _RULES, op
            _RULES[op] = function
        return function

    return register


def base_op(op: str) -> str:
    """`relu` for `aten.relu_.default`; other names as they are."""
    parts = op.split(".")
    return parts[1].rstrip("_") if parts[0] == "aten" else op


def label(graph: Graph) -> Labelling:
    """Run the rules over the graph in execution order."""
    labelling = Labelling(graph)
    for node in graph.nodes:
        labelling.axes[node.name] = _RULES.get(base_op(node.op), _unknown)(labelling, node)
    return labelling


# Rules -----------------------------------------------------------------------------------------------------------


def _none(node: Node) -> tuple[Axes, ...]:
    return tuple((None,) * len(shape) for shape in node.shapes)


def _unknown(run: Labelling, node: Node) -> tuple[Axes, ...]:
    for name in node.refs:
        for output in run.axes[name]:
            for labels in output:
                run.freeze(labels, f"no rule for {node.op} ({node.name})")
    return _none(node)


@rule("input")
def _input(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return _none(node)


@rule("parameter")
def _parameter(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return (tuple(run.fresh(size) for size in node.shape),)


@rule("output")
def _output(run: Labelling, node: Node) -> tuple[Axes, ...]:
    for name in node.refs:
        for output in run.axes[name]:
            for labels in output:
                run.freeze(labels, "model output")
    return ()


@rule("sym_size", "builtin.mul", "builtin.add", "builtin.sub", "builtin.floordiv", "builtin.eq", "builtin.ge")
def _number(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return _none(node)


@rule(
    *"relu relu6 hardtanh silu hardswish hardsigmoid sigmoid tanh gelu elu leaky_relu mish softplus exp".split(),
    *"neg abs sqrt rsqrt square clamp clamp_min clamp_max dropout feature_dropout alpha_dropout".split(),
    *"clone contiguous detach alias to lift_fresh_copy log sin cos".split(),
)
def _pointwise(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return (run.of(node.args[0]),)


@rule("add", "sub", "mul", "div", "rsub", "maximum", "minimum", "pow")
def _elementwise(run: Labelling, node: Node) -> tuple[Axes, ...]:
    (shape,) = node.shapes
    out: list[Labels | None] = [None] * len(shape)
    seen = [False] * len(shape)  # an operand of full size was met on this axis
    for arg in node.args[:2]:
        if not isinstance(arg, Ref) or not run.graph.by_name[arg.name].shapes:
            continue
        axes, own = run.of(arg), run.graph.by_name[arg.name].shape
        offset = len(shape) - len(own)
        for i, (labels, size) in enumerate(zip(axes, own)):
            j = i + offset
            if size == 1:
                run.freeze(labels, f"broadcast in {node.name}")
                continue
            out[j] = run.tie(out[j], labels, f"meets an axis that cannot shrink in {node.name}") if seen[j] else labels
            seen[j] = True
    return (tuple(out),)


def _spatial(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Batch and channel axes pass; everything after them is spatial."""
    x = run.of(node.args[0])
    spatial = len(node.shape) - 2
    return ((*x[: len(x) - spatial], *(None,) * spatial),)


rule(
    *"max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d".split(),
    *"adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d".split(),
    *"upsample_nearest2d upsample_bilinear2d upsample_bicubic2d".split(),
)(_spatial)


@rule("conv1d", "conv2d", "conv3d")
def _conv(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, weight = run.of(node.args[0]), run.of(node.args[1])
    bias = run.of(node.args[2]) if len(node.args) > 2 else ()
    groups = node.args[6] if len(node.args) > 6 else 1
    assert isinstance(groups, int)
    spatial = len(weight) - 2
    out, cin = weight[0], weight[1]
    assert out is not None and cin is not None
    for labels in weight[2:]:
        run.freeze(labels, "kernel")
    channels = x[-1 - spatial]
    if groups == 1:
        run.tie(cin, channels, "model input")
    elif len(cin) == 1:  # depthwise: output j reads input j // multiplier
        run.freeze(cin, "kernel")
        run.tie(out, None if channels is None else np.repeat(channels, len(out) // groups), "model input")
    else:  # every group keeps the same pattern, so that the groups stay equal
        run.tie(np.tile(cin, groups), channels, "model input")
        run.tie(np.tile(out[: len(out) // groups], groups), out, "grouped convolution")
    if bias:
        run.tie(bias[0], out, "bias")
    return ((None, out, *(None,) * spatial),)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(run: Labelling, node: Node) -> tuple[Axes, ...]:
    groups = node.args[6] if len(node.args) > 6 else 1
    if groups != 1:
        return _unknown(run, node)
    x, weight = run.of(node.args[0]), run.of(node.args[1])
    bias = run.of(node.args[2]) if len(node.args) > 2 else ()
    spatial = len(weight) - 2
    for labels in weight[2:]:
        run.freeze(labels, "kernel")
    run.tie(weight[0], x[-1 - spatial], "model input")
    if bias:
        run.tie(bias[0], weight[1], "bias")
    return ((None, weight[1], *(None,) * spatial),)


@rule("linear")
def _linear(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, weight = run.of(node.args[0]), run.of(node.args[1])
    bias = run.of(node.args[2]) if len(node.args) > 2 else ()
    run.tie(weight[1], x[-1], "model input")
    if bias:
        run.tie(bias[0], weight[0], "bias")
    return ((*x[:-1], weight[0]),)


@rule("batch_norm")
def _batch_norm(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    for arg in node.args[1:5]:
        if isinstance(arg, Ref):
            run.tie(run.of(arg)[0], x[1], "model input")
    return (x,)


@rule("prelu")
def _prelu(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, slope = run.of(node.args[0]), run.of(node.args[1])
    if slope[0] is not None and len(slope[0]) > 1:
        run.tie(slope[0], x[1], "model input")
    else:
        run.freeze(slope[0], "shared slope")
    return (x,)


@rule("mean", "sum", "amax", "amin")
def _reduction(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    dims = node.args[1] if len(node.args) > 1 else None
    listed = dims if isinstance(dims, tuple) else range(len(x)) if dims is None else (dims,)
    reduced = {int(d) % len(x) for d in listed}  # type: ignore[arg-type]
    for d in reduced:
        run.freeze(x[d], f"reduced over channels in {node.name}")
    if len(node.shape) == len(x):
        return (tuple(None if i in reduced else labels for i, labels in enumerate(x)),)
    return (tuple(labels for i, labels in enumerate(x) if i not in reduced),)


@rule("cat", "concat")
def _concat(run: Labelling, node: Node) -> tuple[Axes, ...]:
    parts = node.args[0]
    assert isinstance(parts, tuple)
    dim = int(node.args[1]) if len(node.args) > 1 else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]
    inputs = [(run.of(ref), run.graph.by_name[ref.name].shape) for ref in parts if isinstance(ref, Ref)]
    dim %= len(node.shape)
    out: list[Labels | None] = list(inputs[0][0])
    for axes, _ in inputs[1:]:
        for i, labels in enumerate(axes):
            if i != dim and (out[i] is not None or labels is not None):
                out[i] = run.tie(out[i], labels, f"meets an axis that cannot shrink in {node.name}")
    if any(axes[dim] is not None for axes, _ in inputs):
        pieces = []
        for axes, shape in inputs:
            labels = axes[dim]
            if labels is None:
                labels = run.fresh(shape[dim])
                run.freeze(labels, "model input")
            pieces.append(labels)
        out[dim] = np.concatenate(pieces)
    return (tuple(out),)


@rule("pad", "constant_pad_nd")
def _pad(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    widths = node.args[1]
    assert isinstance(widths, tuple)
    constant = len(node.args) < 3 or node.args[2] == "constant" or isinstance(node.args[2], int | float)
    out: list[Labels | None] = list(x)
    for i in range(len(widths) // 2):
        axis = len(x) - 1 - i
        left, right = widths[2 * i], widths[2 * i + 1]
        labels = out[axis]
        if labels is None or (left == 0 and right == 0):
            continue
        if not (isinstance(left, int) and isinstance(right, int) and left >= 0 and right >= 0 and constant):
            run.freeze(labels, f"cropped or mirrored in {node.name}")
            out[axis] = None
            continue
        # Padded positions are channels of their own: constant, so they can go when what they meet goes.
        out[axis] = np.concatenate([run.fresh(left), labels, run.fresh(right)])
    return (tuple(out),)


@rule("slice")
def _slice(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    axis, start, stop, step = slice_arguments(node, len(x))
    out = list(x)
    labels = x[axis]
    if labels is not None:
        if isinstance(start, int) and isinstance(stop, int) and step == 1:
            out[axis] = labels[start:stop]
        elif len(labels) == node.shape[axis]:
            pass
        else:
            run.freeze(labels, f"strided slice {node.name}")
            out[axis] = None
    return (tuple(out),)


def slice_arguments(node: Node, rank: int) -> tuple[int, object, object, object]:
    """(axis, start, stop, step) of a slice, defaults filled in; start and stop may be run-time numbers."""
    defaults: tuple[Arg, ...] = (0, None, None, 1)
    axis, start, stop, step = (node.args[1:] + defaults[len(node.args) - 1 :])[:4]
    assert isinstance(axis, int)
    return axis % rank, 0 if start is None else start, 2**63 - 1 if stop is None else stop, step


@rule("split", "split_with_sizes", "chunk")
def _split(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    axis = int(node.args[2]) if len(node.args) > 2 else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]
    axis %= len(x)
    outputs, start = [], 0
    for shape in node.shapes:
        out = list(x)
        labels = x[axis]
        if labels is not None:
            out[axis] = labels[start : start + shape[axis]]
        start += shape[axis]
        outputs.append(tuple(out))
    return tuple(outputs)


@rule("builtin.getitem")
def _getitem(run: Labelling, node: Node) -> tuple[Axes, ...]:
    source, index = node.args
    assert isinstance(source, Ref) and isinstance(index, int)
    return (run.axes[source.name][index],)


@rule("permute")
def _permute(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, order = run.of(node.args[0]), node.args[1]
    assert isinstance(order, tuple)
    return (tuple(x[int(d)] for d in order),)  # type: ignore[arg-type]


@rule("transpose", "swapaxes")
def _transpose(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = list(run.of(node.args[0]))
    i, j = int(node.args[1]), int(node.args[2])  # type: ignore[arg-type]
    x[i], x[j] = x[j], x[i]
    return (tuple(x),)


@rule("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view")
def _reshape(run: Labelling, node: Node) -> tuple[Axes, ...]:
    assert isinstance(node.args[0], Ref)
    x, old, new = run.of(node.args[0]), run.graph.by_name[node.args[0].name].shape, node.shape
    out: list[Labels | None] = [None] * len(new)
    sizes = node.args[1] if base_op(node.op) in ("reshape", "view", "_unsafe_view") else None
    for old_axes, new_axes in matching_axes(old, new):
        labels = _merge_and_split(run, node, [x[i] for i in old_axes], old, old_axes, [new[i] for i in new_axes])
        for i, axis_labels in zip(new_axes, labels):
            if axis_labels is not None and isinstance(sizes, tuple) and isinstance(sizes[i], Ref):
                run.freeze(axis_labels, f"size computed at run time in {node.name}")
            out[i] = axis_labels
    return (tuple(out),)


def matching_axes(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes of the two shapes with equal products, left to right; axes of size one stand apart."""
    blocks, i, j = [], 0, 0
    rows = [k for k, size in enumerate(old) if size != 1]
    columns = [k for k, size in enumerate(new) if size != 1]
    while i < len(rows) or j < len(columns):
        a, b = rows[i : i + 1], columns[j : j + 1]
        i, j = i + 1, j + 1
        while prod(old[k] for k in a) != prod(new[k] for k in b):
            if prod(old[k] for k in a) < prod(new[k] for k in b):
                a.append(rows[i])
                i += 1
            else:
                b.append(columns[j])
                j += 1
        blocks.append((a, b))
    return blocks


def _merge_and_split(
    run: Labelling, node: Node, labels: list[Labels | None], old: Shape, old_axes: list[int], new: list[int]
) -> list[Labels | None]:
    """Labels of the new axes of one block of a reshape."""
    labelled = [i for i, axis in enumerate(labels) if axis is not None]
    if not labelled:
        return [None] * len(new)
    if (len(labels) > 1 and len(new) > 1) or len(labelled) > 1:
        for axis in labels:
            run.freeze(axis, f"channels are mixed with other axes in {node.name}")
        return [None] * len(new)
    position = labelled[0]
    channels = labels[position]
    assert channels is not None
    sizes = [old[a] for a in old_axes]
    if len(new) == 1:  # merged: (before, channels, after) -> one axis
        before, after = prod(sizes[:position]), prod(sizes[position + 1 :])
        return [np.tile(np.repeat(channels, after), before)]
    # One axis split into several: the widest keeps the channels, tied over the others.
    keep = int(np.argmax(new))
    grid = np.moveaxis(channels.reshape(new), keep, -1).reshape(-1, new[keep])
    for row in grid[1:]:
        run.tie(grid[0], row, "split axis")
    return [grid[0] if i == keep else None for i in range(len(new))]


@rule("expand", "expand_as")
def _expand(run: Labelling, node: Node) -> tuple[Axes, ...]:
    assert isinstance(node.args[0], Ref)
    x, old, new = run.of(node.args[0]), run.graph.by_name[node.args[0].name].shape, node.shape
    offset = len(new) - len(old)
    sizes = node.args[1] if base_op(node.op) == "expand" else None
    out: list[Labels | None] = [None] * len(new)
    for i, labels in enumerate(x):
        if old[i] != new[i + offset]:
            run.freeze(labels, f"broadcast in {node.name}")
            continue
        out[i + offset] = labels
        if labels is not None and isinstance(sizes, tuple) and isinstance(sizes[i + offset], Ref):
            run.freeze(labels, f"size computed at run time in {node.name}")
    return (tuple(out),)
