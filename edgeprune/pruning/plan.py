"""A plan: which channels of each group stay. JSON on disk; `apply` gives the graph it leads to.

Rewriting a graph changes parameter shapes, activation shapes and the constants in arguments that depend on them.
Surgery reads those constants from the rewritten graph, so what the solver costs is what is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.graph import Arg, Graph, Node, Ref, Shape
from edgeprune.pruning.groups import ChannelGroups, Mask
from edgeprune.pruning.labels import base_op, slice_arguments
from edgeprune.values import Value

Scores = np.ndarray[Any, np.dtype[np.float64]]  # (channels,), larger stays


class Plan(Value):
    """Kept channel indices per group name, ascending; a group that is not named keeps all."""

    schema_: Literal["edgeprune.plan/1"] = "edgeprune.plan/1"
    keep: dict[str, tuple[int, ...]]

    def widths(self, groups: ChannelGroups) -> tuple[int, ...]:
        """The width of every group, in order."""
        return tuple(len(self.keep.get(group.name, group.channels)) for group in groups.groups)


def check_plan(plan: Plan, groups: ChannelGroups) -> None:
    """Refuse a plan that does not fit the model.

    Raises:
        UsageError: An unknown group, an index out of range or repeated, an empty group.
    """
    for name, indices in plan.keep.items():
        if name not in groups.by_name:
            raise UsageError(f"the plan names an unknown group {name!r}", hint=did_you_mean(name, groups.by_name))
        width = groups.by_name[name].width
        if not indices:
            raise UsageError(f"the plan keeps no channel of group {name!r}")
        if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= width:
            raise UsageError(f"the plan's indices for group {name!r} must ascend within 0..{width - 1}")


def keeps_all(groups: ChannelGroups, plan: Plan) -> bool:
    """Whether the plan removes nothing."""
    return plan.widths(groups) == tuple(group.width for group in groups.groups)


def apply(plan: Plan, groups: ChannelGroups) -> Graph:
    """The graph after the plan: shapes and size constants rewritten, names unchanged.

    Raises:
        UsageError: The plan does not fit the graph.
    """
    check_plan(plan, groups)
    keep = groups.keep_mask({name: np.array(indices) for name, indices in plan.keep.items()})
    return Graph(tuple(_rewritten(node, groups, keep) for node in groups.graph.nodes))


def kept_positions(groups: ChannelGroups, keep: Mask, node: str, axis: int, output: int = 0) -> Mask | None:
    """Which positions of an axis stay; None where the axis cannot shrink."""
    components = groups.components_at(node, axis, output)
    return None if components is None else keep[components]


def _rewritten(node: Node, groups: ChannelGroups, keep: Mask) -> Node:
    shapes = tuple(_new_shape(groups, keep, node, i) for i in range(len(node.shapes)))
    if shapes == node.shapes and not _reads_channels(node):
        return node
    rewrite = _REWRITES.get(base_op(node.op))
    new = replace(node, shapes=shapes)
    return new if rewrite is None else rewrite(new, node, groups, keep)


def _reads_channels(node: Node) -> bool:
    """A slice can keep its own width while the axis it cuts from shrinks."""
    return base_op(node.op) in _REWRITES


def _new_shape(groups: ChannelGroups, keep: Mask, node: Node, output: int) -> Shape:
    sizes = []
    for axis, size in enumerate(node.shapes[output]):
        mask = kept_positions(groups, keep, node.name, axis, output)
        sizes.append(size if mask is None else int(mask.sum()))
    return tuple(sizes)


def _replace_arg(node: Node, position: int, value: Arg) -> Node:
    return replace(node, args=(*node.args[:position], value, *node.args[position + 1 :]))


def _sizes(position: int) -> Any:
    """Rewrite a list of literal sizes; numbers computed at run time and -1 stay."""

    def rewrite(new: Node, old: Node, groups: ChannelGroups, keep: Mask) -> Node:
        sizes = old.args[position]
        assert isinstance(sizes, tuple)
        first = len(new.shape) - len(sizes)
        changed = tuple(
            new.shape[i + first] if isinstance(size, int) and size > 0 and old.shape[i + first] == size else size
            for i, size in enumerate(sizes)
        )
        return _replace_arg(new, position, changed)

    return rewrite


def _unflatten(new: Node, old: Node, groups: ChannelGroups, keep: Mask) -> Node:
    axis, sizes = old.args[1], old.args[2]
    assert isinstance(axis, int) and isinstance(sizes, tuple)
    axis %= len(old.shape) - len(sizes) + 1
    return _replace_arg(new, 2, tuple(new.shape[axis + i] if size != -1 else -1 for i, size in enumerate(sizes)))


def _conv(new: Node, old: Node, groups: ChannelGroups, keep: Mask) -> Node:
    weight = old.args[1]
    assert isinstance(weight, Ref)
    old_shape = groups.graph.by_name[weight.name].shape
    if len(old.args) <= 6 or old.args[6] == 1 or old_shape[1] != 1:
        return new  # grouped convolutions keep their number of groups
    x = old.args[0]
    assert isinstance(x, Ref)
    mask = kept_positions(groups, keep, x.name, len(groups.graph.by_name[x.name].shape) - len(old_shape) + 1)
    return new if mask is None else _replace_arg(new, 6, int(mask.sum()))


def _pad(new: Node, old: Node, groups: ChannelGroups, keep: Mask) -> Node:
    widths = old.args[1]
    assert isinstance(widths, tuple)
    changed = list(widths)
    for i in range(len(widths) // 2):
        axis = len(old.shape) - 1 - i
        mask = kept_positions(groups, keep, old.name, axis)
        left, right = widths[2 * i], widths[2 * i + 1]
        if mask is not None and isinstance(left, int) and isinstance(right, int):
            changed[2 * i] = int(mask[:left].sum())
            changed[2 * i + 1] = int(mask[len(mask) - right :].sum())
    return _replace_arg(new, 1, tuple(changed))


def _slice(new: Node, old: Node, groups: ChannelGroups, keep: Mask) -> Node:
    x = old.args[0]
    assert isinstance(x, Ref)
    axis, start, stop, _ = slice_arguments(old, len(old.shape))
    mask = kept_positions(groups, keep, x.name, axis)
    if mask is None or not isinstance(start, int) or not isinstance(stop, int):
        return new
    first, last, _ = slice(start, stop).indices(len(mask))
    begin = int(mask[:first].sum())
    end = begin + int(mask[first:last].sum())
    new = _replace_arg(new, 2, begin) if len(old.args) > 2 else new
    return _replace_arg(new, 3, stop if stop > len(mask) else end) if len(old.args) > 3 else new


def _split(new: Node, old: Node, groups: ChannelGroups, keep: Mask) -> Node:
    axis = int(old.args[2]) if len(old.args) > 2 else int(old.kwargs.get("dim", 0))  # type: ignore[arg-type]
    axis %= len(old.shapes[0])
    sizes = tuple(shape[axis] for shape in new.shapes)
    if sizes == tuple(shape[axis] for shape in old.shapes):
        return new
    return replace(new, op="aten.split_with_sizes.default", args=(old.args[0], sizes, axis), kwargs={})


_REWRITES: Mapping[str, Any] = {
    "reshape": _sizes(1),
    "view": _sizes(1),
    "_unsafe_view": _sizes(1),
    "expand": _sizes(1),
    "unflatten": _unflatten,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "slice": _slice,
    "split": _split,
    "chunk": _split,
    "split_with_sizes": _split,
}


def uniform(groups: ChannelGroups, share: float, step: int, scores: Mapping[str, Scores] | None = None) -> Plan:
    """Every group at the same share of its width, rounded to the step; the best-scored channels stay.

    Args:
        share: Above 0, up to 1.
        step: Widths are multiples of it where a group is at least that wide.
        scores: (channels,) per group, larger stays; None keeps the first ones.
    """
    keep = {}
    for group in groups.groups:
        width = aligned(group.width * share, group.width, step)
        score = None if scores is None else scores[group.name]
        keep[group.name] = best_channels(width, group.width, score)
    return Plan(keep=keep)


def aligned(width: float, full: int, step: int) -> int:
    """The multiple of `step` nearest to `width`, at least one step, at most the full width."""
    if full <= step:
        return full
    return min(full, max(step, round(width / step) * step))


def best_channels(width: int, full: int, score: Scores | None) -> tuple[int, ...]:
    """Indices of the `width` best-scored channels, ascending; ties go to the lower index."""
    if score is None:
        return tuple(range(width))
    order = np.argsort(-np.asarray(score, np.float64), kind="stable")
    return tuple(sorted(int(i) for i in order[:width]))
