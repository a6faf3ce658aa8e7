"""Operators that rearrange axes: reshapes, permutations, broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from edgeprune.graph import Node, Ref, Shape
from edgeprune.pruning.labels import Axes, Labelling, Labels, Rule, frozen_by, rule
from edgeprune.pruning.rewrites import Shrinking, argument, rewrite, sizes_at, with_arg

_SIZED = ("reshape", "view", "_unsafe_view")


@rule("permute")
def _permute(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, order = run.of(node.args[0]), node.args[1]
    assert isinstance(order, tuple)
    return (tuple(x[int(d)] for d in order),)  # type: ignore[arg-type]


@rule("transpose", "swapaxes", "t", "numpy_T", "mT", "swapdims")
def _transpose(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = list(run.of(node.args[0]))
    if len(node.args) < 3:
        return (tuple(x[::-1] if node.base != "mT" else (*x[:-2], x[-1], x[-2])),)
    i, j = int(node.args[1]), int(node.args[2])  # type: ignore[arg-type]
    x[i], x[j] = x[j], x[i]
    return (tuple(x),)


@rule("movedim", "moveaxis")
def _movedim(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    pairs = [dims if isinstance(dims, tuple) else (dims,) for dims in node.args[1:3]]
    source, target = ([int(d) % len(x) for d in dims] for dims in pairs)  # type: ignore[arg-type]
    moved = dict(zip(target, source))
    rest = iter(i for i in range(len(x)) if i not in source)
    return (tuple(x[moved[i]] if i in moved else x[next(rest)] for i in range(len(x))),)


@rule(*_SIZED, "flatten", "unflatten", "squeeze", "unsqueeze", "reshape_as", "view_as", "ravel")
def _reshape(run: Labelling, node: Node) -> tuple[Axes, ...]:
    assert isinstance(node.args[0], Ref)
    x, old, new = run.of(node.args[0]), run.shape(node.args[0]), node.shape
    if prod(old) != prod(new):  # a view as another type
        return frozen_by(run, node, f"no rule for {node.op} ({node.name})")
    try:
        blocks = matching_axes(old, new)
    except IndexError:  # no elements: the sizes do not tell which axes go together
        return frozen_by(run, node, f"reshaped while empty in {node.name}")
    out: list[Labels | None] = [None] * len(new)
    sizes = node.args[1] if node.base in _SIZED else None
    picked = _picked(run, node) if run.by_head and len(new) > len(old) else frozenset()
    covered: set[int] = set()
    for old_axes, new_axes in blocks:
        covered.update(old_axes)
        block = [x[i] for i in old_axes], [old[i] for i in old_axes], [new[i] for i in new_axes]
        apart = frozenset(k for k, i in enumerate(new_axes) if i in picked)
        for i, labels in zip(new_axes, _regrouped(run, node, *block, apart)):
            if labels is not None and isinstance(sizes, tuple) and isinstance(sizes[i], Ref):
                run.freeze(labels, f"size computed at run time in {node.name}")
            out[i] = labels
    run.freeze_all([labels for i, labels in enumerate(x) if i not in covered], "single channel")
    if node.base in ("reshape_as", "view_as"):
        other = run.of(node.args[1])
        for i, labels in enumerate(out):
            if labels is not None or other[i] is not None:
                out[i] = run.tie(labels, other[i], f"meets an axis that cannot shrink in {node.name}")
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


def _in_place(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return (run.of(node.args[0]),)


def _picked(run: Labelling, node: Node) -> frozenset[int]:
    """The new axes of a reshape from which single positions are picked later on: parts such as q, k and v, no heads."""
    probe = Labelling(run.graph)
    marks = [probe.fresh(size) for size in node.shape]
    owner = np.repeat(np.arange(len(marks)), node.shape)
    probe.axes[node.name] = (tuple(marks),)
    found: set[int] = set()
    todo = [node.name]
    while todo:
        source = todo.pop()
        for user in run.graph.users[source]:
            axes = probe.of(Ref(source))
            if user.base in ("select", "unbind") and user.args[0] == Ref(source):
                mark = axes[int(argument(user, 1, "dim", 0))]  # type: ignore[arg-type]
                found.update(() if mark is None else owner[mark[:1]].tolist())
            elif user.base in _MOVES:
                probe.axes[user.name] = _MOVES[user.base](probe, user)
                todo.append(user.name)
    return frozenset(found)


_MOVES: dict[str, Rule] = {
    **dict.fromkeys(("permute",), _permute),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    **dict.fromkeys(("squeeze", "unsqueeze"), _reshape),
    **dict.fromkeys(("contiguous", "clone"), _in_place),
}


def _regrouped(
    run: Labelling,
    node: Node,
    labels: Sequence[Labels | None],
    old: Sequence[int],
    new: Sequence[int],
    apart: frozenset[int],
) -> list[Labels | None]:
    """Labels of the new axes of one block of a reshape; those `apart` are no heads."""
    labelled = [i for i, axis in enumerate(labels) if axis is not None]
    if not labelled:
        return [None] * len(new)
    # Of several, one can still shrink: a weight's channels stand before its kernel.
    position = labelled[0] if node.name in run.constant else max(labelled, key=lambda i: old[i])
    run.freeze_all([labels[i] for i in labelled if i != position], f"merged with another axis in {node.name}")
    channels = labels[position]
    assert channels is not None
    before, after = prod(old[:position]), prod(old[position + 1 :])
    return split_axis(run, np.tile(np.repeat(channels, after), before), new, apart)


def split_axis(
    run: Labelling, labels: Labels, sizes: Sequence[int], apart: frozenset[int] = frozenset()
) -> list[Labels | None]:
    """Labels of the axes that one axis is split into.

    Where labels differ along one new axis alone, it gets them. Where they differ along several, one axis keeps the
    channels and they are tied over the others: the widest (positions inside every head), or with `by_head` the one
    outside it (whole heads) unless that is kept `apart`.
    """
    grid = labels.reshape(tuple(sizes))
    varying = [i for i, n in enumerate(sizes) if n > 1 and (grid != grid.take([0], i)).any()]
    if not varying:
        run.freeze(labels, "single channel")
        return [None] * len(sizes)
    keep = max(varying, key=lambda i: (sizes[i], i))
    outside = [i for i in varying[:-1] if i not in apart]
    if run.by_head and keep == varying[-1] and outside:
        keep = outside[-1]
    row = run.tie_rows(np.moveaxis(grid, keep, -1).reshape(-1, sizes[keep]))
    return [row if i == keep else None for i in range(len(sizes))]


rewrite(*_SIZED)(sizes_at(1))


@rewrite("unflatten")
def _unflatten(new: Node, old: Node, shrinking: Shrinking) -> Node:
    axis, sizes = old.args[1], old.args[2]
    assert isinstance(axis, int) and isinstance(sizes, tuple)
    axis %= len(old.shape) - len(sizes) + 1
    return with_arg(new, 2, tuple(new.shape[axis + i] if size != -1 else -1 for i, size in enumerate(sizes)))


@rule("expand", "broadcast_to", "expand_as")
def _expand(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """A broadcast position is a copy: copies may go as what they meet goes."""
    x, old, new = run.of(node.args[0]), run.shape(node.args[0]), node.shape
    like = node.base == "expand_as"
    other = run.of(node.args[1]) if like else (None,) * len(new)
    sizes = node.args[1] if isinstance(node.args[1], tuple) else None
    offset = len(new) - len(old)
    out: list[Labels | None] = []
    for i, size in enumerate(new):
        labels = x[i - offset] if i >= offset else None
        broadcast = i < offset or old[i - offset] != size
        if broadcast:
            run.freeze(labels, f"broadcast in {node.name}")
            literal = sizes is not None and isinstance(sizes[i], int)
            labels = other[i] if like else run.fresh(size) if literal and size > 1 else None
        elif like and (labels is not None or other[i] is not None) and size > 1:
            labels = run.tie(labels, other[i], f"meets an axis that cannot shrink in {node.name}")
        elif labels is not None and sizes is not None and isinstance(sizes[i], Ref):
            run.freeze(labels, f"size computed at run time in {node.name}")
        out.append(labels)
    return (tuple(out),)


rewrite("expand", "broadcast_to")(sizes_at(1))


@rule("repeat", "tile")
def _repeat(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Copies of a whole axis; copies of a single position may go as what they meet goes."""
    x, old, counts = run.of(node.args[0]), run.shape(node.args[0]), node.args[1]
    assert isinstance(counts, tuple)
    offset = len(node.shape) - len(old)
    out: list[Labels | None] = []
    for i, size in enumerate(node.shape):
        labels = x[i - offset] if i >= offset else None
        if (i < offset or old[i - offset] == 1) and size > 1 and len(counts) == len(node.shape):
            run.freeze(labels, f"broadcast in {node.name}")
            out.append(run.fresh(size) if isinstance(counts[i], int) else None)
        else:
            out.append(None if labels is None else np.tile(labels, size // len(labels)))
    return (tuple(out),)


@rewrite("repeat", "tile")
def _counts(new: Node, old: Node, shrinking: Shrinking) -> Node:
    source, counts = old.args[0], old.args[1]
    assert isinstance(source, Ref) and isinstance(counts, tuple)
    before = shrinking.graph.by_name[source.name].shape
    offset = len(old.shape) - len(before)
    if len(counts) != len(old.shape):
        return new
    single = [i < offset or before[i - offset] == 1 for i in range(len(old.shape))]
    changed = (new.shape[i] if single[i] and isinstance(n, int) else n for i, n in enumerate(counts))
    return with_arg(new, 1, tuple(changed))


@rule("repeat_interleave")
def _repeat_interleave(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, old = list(run.of(node.args[0])), run.shape(node.args[0])
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim")
    if not isinstance(dim, int) or not isinstance(node.args[1], int):
        return frozen_by(run, node, f"no rule for {node.op} ({node.name})")
    labels = x[dim]
    x[dim] = None if labels is None else np.repeat(labels, node.shape[dim] // old[dim])
    return (tuple(x),)


@rule("pixel_shuffle")
def _pixel_shuffle(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    run.freeze_all(x[-2:], f"rearranged in {node.name}")
    channels = x[-3]
    out = None if channels is None else run.tie_rows(channels.reshape(node.shape[-3], -1).T)
    return ((*x[:-3], out, None, None),)


@rule("pixel_unshuffle")
def _pixel_unshuffle(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    run.freeze_all(x[-2:], f"rearranged in {node.name}")
    channels = x[-3]
    return ((*x[:-3], None if channels is None else np.repeat(channels, node.shape[-3] // len(channels)), None, None),)


@rule("channel_shuffle")
def _channel_shuffle(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, groups = list(run.of(node.args[0])), node.args[1]
    assert isinstance(groups, int)
    if x[1] is not None:
        grid = x[1].reshape(groups, -1)
        run.tie_rows(grid)
        x[1] = grid.T.reshape(-1)
    return (tuple(x),)


@rule("im2col")
def _im2col(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """(n, c, h, w) -> (n, c * kernel positions, patches)."""
    x = run.of(node.args[0])
    run.freeze_all(x[-2:], f"rearranged in {node.name}")
    channels = x[-3]
    return ((*x[:-3], None if channels is None else np.repeat(channels, node.shape[-2] // len(channels)), None),)


@rule("col2im")
def _col2im(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    run.freeze(x[-1], f"rearranged in {node.name}")
    columns = x[-2]
    out = None if columns is None else run.tie_rows(columns.reshape(node.shape[-3], -1).T)
    return ((*x[:-2], out, None, None),)


@rule("unfold")
def _unfold(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Windows along one axis, as a new last axis."""
    x, dim = list(run.of(node.args[0])), node.args[1]
    assert isinstance(dim, int)
    run.freeze(x[dim], f"windowed in {node.name}")
    x[dim] = None
    return ((*x, None),)


@rule("view_as_complex", "view_as_real")
def _complex(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    if node.base == "view_as_real":
        return ((*x, None),)
    run.freeze(x[-1], "real and imaginary part")
    return (x[:-1],)
