"""Operators that take parts of tensors or put tensors side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeprune.graph import Node, Ref
from edgeprune.pruning.labels import Axes, Labelling, Labels, frozen_by, rule
from edgeprune.pruning.rewrites import Shrinking, argument, rewrite, with_arg
from edgeprune.pruning.rules.pointwise import broadcast, operand

_SPLITS = ("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "unbind")


def _dim(node: Node, position: int, rank: int, default: int = 0) -> int:
    dim = argument(node, position, "dim", default)
    assert isinstance(dim, int)
    return dim % rank


@rule("getitem")
def _getitem(run: Labelling, node: Node) -> tuple[Axes, ...]:
    source, index = node.args
    assert isinstance(source, Ref) and isinstance(index, int)
    outputs = run.axes[source.name]
    return (outputs[index],) if outputs else ()


@rule("cat", "concat", "concatenate")
def _concat(run: Labelling, node: Node) -> tuple[Axes, ...]:
    parts = node.args[0]
    assert isinstance(parts, tuple)
    dim = _dim(node, 1, len(node.shape))
    inputs = [(run.of(ref), run.shape(ref)) for ref in parts if len(run.shape(ref)) == len(node.shape)]
    others = [
        ([None if i == dim else a for i, a in enumerate(axes)], [1 if i == dim else n for i, n in enumerate(shape)])
        for axes, shape in inputs
    ]
    shape = tuple(1 if i == dim else n for i, n in enumerate(node.shape))
    out = list(broadcast(run, [(tuple(axes), tuple(sizes)) for axes, sizes in others], shape, node.name))
    if any(axes[dim] is not None for axes, _ in inputs):
        pieces = []
        for axes, own in inputs:
            labels = axes[dim]
            if labels is None:
                labels = run.fresh(own[dim])
                run.freeze(labels, "model input")
            pieces.append(labels)
        out[dim] = np.concatenate(pieces)
    return (tuple(out),)


@rule("stack")
def _stack(run: Labelling, node: Node) -> tuple[Axes, ...]:
    parts = node.args[0]
    assert isinstance(parts, tuple)
    dim = _dim(node, 1, len(node.shape))
    shape = tuple(n for i, n in enumerate(node.shape) if i != dim)
    out = broadcast(run, [operand(run, ref) for ref in parts], shape, node.name)
    return ((*out[:dim], None, *out[dim:]),)


@rule("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def _pad(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    widths = node.args[1]
    assert isinstance(widths, tuple)
    constant = node.base in ("pad", "constant_pad_nd") and (
        len(node.args) < 3 or node.args[2] == "constant" or isinstance(node.args[2], int | float)
    )
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


@rewrite("pad", "constant_pad_nd")
def _pad_widths(new: Node, old: Node, shrinking: Shrinking) -> Node:
    widths = old.args[1]
    assert isinstance(widths, tuple)
    changed = list(widths)
    for i in range(len(widths) // 2):
        axis = len(old.shape) - 1 - i
        mask = shrinking.mask(old.name, axis)
        left, right = widths[2 * i], widths[2 * i + 1]
        if mask is not None and isinstance(left, int) and isinstance(right, int):
            changed[2 * i] = int(mask[:left].sum())
            changed[2 * i + 1] = int(mask[len(mask) - right :].sum())
    return with_arg(new, 1, tuple(changed))


@rule("slice", "narrow")
def _slice(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, shape = list(run.of(node.args[0])), run.shape(node.args[0])
    axis, start, stop, step = slice_arguments(node, len(x))
    labels = x[axis]
    if labels is None or shape[axis] == node.shape[axis]:
        return (tuple(x),)
    if isinstance(start, int) and isinstance(stop, int) and step == 1:
        x[axis] = labels[start:stop]
    elif (
        isinstance(start, int)
        and isinstance(stop, int)
        and isinstance(step, int)
        and _in_blocks(start, stop, step, len(labels))
    ):
        run.tie_rows(labels.reshape(-1, step).T)  # whole blocks go, so the stride still fits
        x[axis] = labels[start:stop:step]
    else:
        run.freeze(labels, f"cut at run time or with a stride in {node.name}")
        x[axis] = None
    return (tuple(x),)


def _in_blocks(start: int, stop: int, step: int, size: int) -> bool:
    return 0 <= start < step and size % step == 0 and stop >= size


def slice_arguments(node: Node, rank: int) -> tuple[int, object, object, object]:
    """(axis, start, stop, step) of a slice, defaults filled in; start and stop may be run-time numbers."""
    axis, start = argument(node, 1, "dim", 0), argument(node, 2, "start")
    stop, step = argument(node, 3, "end"), argument(node, 4, "step", 1)
    assert isinstance(axis, int)
    if node.base == "narrow":
        length = argument(node, 3, "length")
        stop = start + length if isinstance(start, int) and isinstance(length, int) else length
        return axis % rank, start, stop, 1
    return axis % rank, 0 if start is None else start, 2**63 - 1 if stop is None else stop, step


@rewrite("slice", "narrow")
def _slice_bounds(new: Node, old: Node, shrinking: Shrinking) -> Node:
    x = old.args[0]
    assert isinstance(x, Ref)
    axis, start, stop, step = slice_arguments(old, len(old.shape))
    mask = shrinking.mask(x, axis)
    if mask is None or mask.all() or not isinstance(start, int) or not isinstance(stop, int) or step != 1:
        return new
    first, last, _ = slice(start, stop).indices(len(mask))
    begin = int(mask[:first].sum())
    end = begin + int(mask[first:last].sum())
    if old.base == "narrow":
        return with_arg(with_arg(new, 2, begin), 3, end - begin)
    new = with_arg(new, 2, begin) if len(old.args) > 2 else new
    return with_arg(new, 3, stop if stop > len(mask) else end) if len(old.args) > 3 else new


@rule("select")
def _select(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, index = list(run.of(node.args[0])), node.args[2]
    dim = _dim(node, 1, len(x))
    labels = x.pop(dim)
    if labels is not None:
        one = [int(index) % len(labels)] if isinstance(index, int) else slice(None)
        run.freeze(labels[one], f"selected in {node.name}")
    return (tuple(x),)


@rewrite("select")
def _selected(new: Node, old: Node, shrinking: Shrinking) -> Node:
    x, index = old.args[0], old.args[2]
    assert isinstance(x, Ref)
    mask = shrinking.mask(x, _dim(old, 1, len(shrinking.graph.by_name[x.name].shape)))
    if mask is None or mask.all() or not isinstance(index, int):
        return new
    return with_arg(new, 2, int(mask[: index % len(mask)].sum()))


@rule(*_SPLITS)
def _split(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    unbind = node.base == "unbind"
    axis = _dim(node, 1 if unbind else 2, len(x))
    labels = x[axis]
    if unbind:
        run.freeze(labels, f"taken apart in {node.name}")
        return ((*x[:axis], *x[axis + 1 :]),) * len(node.shapes)
    outputs, start = [], 0
    for shape in node.shapes:
        end = start + shape[axis]
        outputs.append((*x[:axis], None if labels is None else labels[start:end], *x[axis + 1 :]))
        start = end
    return tuple(outputs)


@rewrite(*(op for op in _SPLITS if op != "unbind"))
def _split_sizes(new: Node, old: Node, shrinking: Shrinking) -> Node:
    axis = _dim(old, 2, len(old.shapes[0]))
    sizes = tuple(shape[axis] for shape in new.shapes)
    if sizes == tuple(shape[axis] for shape in old.shapes):
        return new
    return replace(new, op="aten.split_with_sizes.default", args=(old.args[0], sizes, axis), kwargs={})


@rule("index", "index_select")
def _index(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Tensors of positions, one per indexed axis. A channel axis is followed where the positions are constant."""
    x, shape = run.of(node.args[0]), run.shape(node.args[0])
    if node.base == "index_select":
        dim = _dim(node, 1, len(x))
        indices: tuple[object, ...] = (*(None,) * dim, node.args[2])
    else:
        assert isinstance(node.args[1], tuple)
        indices = node.args[1]
    indexed = [i for i, ref in enumerate(indices) if isinstance(ref, Ref)]
    ranks = [len(run.shape(indices[i])) for i in indexed]
    if len(node.shape) != len(x) - len(indexed) + max(ranks, default=0):  # a mask of truth values
        return frozen_by(run, node, f"no rule for {node.op} with a mask ({node.name})")
    for i in indexed:
        own = run.of(indices[i])
        if len(indexed) > 1 or x[i] is None or not own or run.is_parameter(node.args[0]):
            run.freeze_all((x[i], *own), f"index in {node.name}")
    taken: list[Labels | None] = [None] * max(ranks, default=0)
    if len(indexed) == 1 and x[indexed[0]] is not None and not run.is_parameter(node.args[0]):
        taken = _taken(run, node, indexed[0], indices[indexed[0]], len(taken))
    rest = [labels for i, labels in enumerate(x) if i not in indexed]
    place = indexed[0] if indexed == list(range(indexed[0], indexed[-1] + 1)) else 0
    assert len(shape) == len(x)
    return ((*rest[:place], *taken, *rest[place:]),)


def _taken(run: Labelling, node: Node, axis: int, ref: object, rank: int) -> list[Labels | None]:
    """Labels of the positions that a constant list picks; the list is renumbered when positions before them go."""
    assert isinstance(ref, Ref) and isinstance(node.args[0], Ref)
    x, positions = run.of(node.args[0])[axis], run.graph.by_name[ref.name].value
    assert x is not None
    if rank != 1 or not positions:
        run.freeze_all((x, *run.of(ref)), f"index in {node.name}")
        return [None] * rank
    if ref.name in run.renumbered:  # one list for two tensors: both must lose the same positions
        name, other = run.renumbered[ref.name]
        known = run.axes[name][0][other]
        if known is None or len(known) != len(x):
            run.freeze_all((x, known, *run.of(ref)), f"index in {node.name}")
            return [None]
        run.tie(known, x, f"index in {node.name}")
    run.renumbered[ref.name] = (node.args[0].name, axis)
    picked = x[np.array(positions) % len(x)]
    run.tie(run.of(ref)[0], picked, f"index in {node.name}")
    return [picked]


@rule("gather", "take_along_dim")
def _gather(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Positions that depend on data, along one axis; on the others the two tensors are the same channels."""
    x, index = list(run.of(node.args[0])), list(run.of(node.args[2]))
    dim = _dim(node, 1, len(x))
    run.freeze_all((x[dim], index[dim]), f"index in {node.name}")
    x[dim] = index[dim] = None
    shapes = [list(run.shape(node.args[0])), list(run.shape(node.args[2]))]
    for sizes in shapes:
        sizes[dim] = 1
    shape = tuple(1 if i == dim else n for i, n in enumerate(node.shape))
    if shapes[0] != shapes[1]:
        return frozen_by(run, node, f"no rule for {node.op} on a part ({node.name})")
    return (broadcast(run, [(tuple(x), shape), (tuple(index), shape)], shape, node.name),)


@rule("roll")
def _roll(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, dims = list(run.of(node.args[0])), argument(node, 2, "dims", ())
    listed = dims if isinstance(dims, tuple) and dims else range(len(x))
    for d in listed:
        assert isinstance(d, int)
        run.freeze(x[d], f"rolled over channels in {node.name}")
        x[d] = None
    return (tuple(x),)


@rule("flip")
def _flip(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, dims = list(run.of(node.args[0])), node.args[1]
    assert isinstance(dims, tuple)
    for d in dims:
        assert isinstance(d, int)
        labels = x[d]
        x[d] = None if labels is None else labels[::-1]
    return (tuple(x),)
