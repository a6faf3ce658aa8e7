"""A plan: which channels of each group stay. JSON on disk; `apply` gives the graph it leads to.

Rewriting a graph changes parameter shapes, activation shapes and the constants in arguments that depend on them.
Surgery reads those constants from the rewritten graph, so what the solver costs is what is built. A group that keeps
no channel takes its block with it (`edgeprune.pruning.blocks`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Literal

import numpy as np

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.graph import Graph, Node, Shape
from edgeprune.pruning.blocks import Remains, without
from edgeprune.pruning.groups import ChannelGroup, ChannelGroups
from edgeprune.pruning.rewrites import REWRITES, Shrinking
from edgeprune.values import Value

Scores = np.ndarray[Any, np.dtype[np.float64]]  # (channels,), larger stays


class Plan(Value):
    """Kept channel indices per group name, ascending; a group that is not named keeps all.

    None at all removes a group with everything that works on it alone.

    Attributes:
        by_head: The channels are whole attention heads and whole groups where an axis is split into those.
    """

    schema_: Literal["edgeprune.plan/1"] = "edgeprune.plan/1"
    keep: dict[str, tuple[int, ...]]
    by_head: bool = False

    def widths(self, groups: ChannelGroups) -> tuple[int, ...]:
        """The width of every group, in order."""
        return tuple(len(self.keep.get(group.name, group.channels)) for group in groups.groups)


def intersection(plan: Plan, other: Plan) -> Plan:
    """What both plans keep: it costs no more than either."""
    keep = {name: tuple(sorted({*kept} & {*other.keep.get(name, kept)})) for name, kept in plan.keep.items()}
    return plan.model_copy(update={"keep": keep})


def check_plan(plan: Plan, groups: ChannelGroups) -> None:
    """Refuse a plan that does not fit the model.

    Raises:
        UsageError: An unknown group, an index out of range or repeated, no channel of a group that cannot be removed.
    """
    for name, indices in plan.keep.items():
        if name not in groups.by_name:
            raise UsageError(f"the plan names an unknown group {name!r}", hint=did_you_mean(name, groups.by_name))
        width = groups.by_name[name].width
        if list(indices) != sorted(set(indices)) or (indices and (indices[0] < 0 or indices[-1] >= width)):
            raise UsageError(f"the plan's indices for group {name!r} must ascend within 0..{width - 1}")
    removed = [name for name, indices in plan.keep.items() if not indices]
    for name in removed:
        if not groups.by_name[name].removable:
            why = _remains(shrinking_of(groups, Plan(keep={name: ()}))).reason
            raise UsageError(f"the plan keeps no channel of group {name!r}, which the model needs: {why}")
    if removed and (why := _remains(shrinking_of(groups, plan)).reason):
        raise UsageError(f"the plan keeps no channel of groups that cannot go together ({', '.join(removed)}): {why}")


def removable_together(groups: ChannelGroups) -> tuple[str, ...]:
    """Groups that a plan may all remove at once, in order; of those that exclude each other the first ones."""
    found: list[str] = []

    def add(names: list[str]) -> None:
        if not names:
            return
        if not _remains(shrinking_of(groups, Plan(keep=dict.fromkeys([*found, *names], ())))).reason:
            found.extend(names)
        elif len(names) > 1:
            add(names[: len(names) // 2])
            add(names[len(names) // 2 :])

    add([group.name for group in groups.groups if group.removable])
    return tuple(found)


def keeps_all(groups: ChannelGroups, plan: Plan) -> bool:
    """Whether the plan removes nothing."""
    return plan.widths(groups) == tuple(group.width for group in groups.groups)


def apply(plan: Plan, groups: ChannelGroups) -> Graph:
    """The graph after the plan: shapes and size constants rewritten, removed blocks left out, names unchanged.

    Raises:
        UsageError: The plan does not fit the graph.
    """
    return planned(plan, groups).graph


@dataclass(frozen=True)
class Planned:
    """Where a plan leads.

    Attributes:
        graph: After the plan.
        shrunk: The same before removed blocks are taken out: all nodes, some of them without channels.
        remains: Which of those are without channels or constant.
        constants: For each new parameter, the node whose value it holds.
    """

    graph: Graph
    shrunk: Graph
    remains: Remains
    constants: Mapping[str, str]

    @property
    def dead(self) -> frozenset[str]:
        """Nodes without channels."""
        return frozenset(name for name, fate in self.remains.fates.items() if fate.kind == "dead")


def planned(plan: Plan, groups: ChannelGroups) -> Planned:
    """The graph after the plan, with what surgery needs to build it.

    Raises:
        UsageError: The plan does not fit the graph.
    """
    check_plan(plan, groups)
    shrinking = shrinking_of(groups, plan)
    remains = _remains(shrinking)
    fates = {} if remains.reason else remains.fates
    empty = {name for name, fate in fates.items() if fate.kind == "dead"}
    left_out = {name for name in fates if name in empty or empty.intersection(groups.graph.by_name[name].refs)}
    shrunk = Graph(tuple(_rewritten(node, shrinking, left_out) for node in groups.graph.nodes))
    if not fates:
        return Planned(shrunk, shrunk, remains, {})
    graph, constants = without(shrunk, groups.anatomy, fates)
    return Planned(graph, shrunk, remains, constants)


def _remains(shrinking: Shrinking) -> Remains:
    """What is left where some tensors lose all their channels."""
    empty = {
        node.name
        for node in shrinking.graph.nodes
        if node.shapes and all(_emptied(shrinking, node, i) for i in range(len(node.shapes)))
    }
    return shrinking.groups.anatomy.remains(empty) if empty else Remains({})


def _emptied(shrinking: Shrinking, node: Node, output: int) -> bool:
    masks = [shrinking.mask(node.name, axis, output) for axis in range(len(node.shapes[output]))]
    return any(mask is not None and len(mask) > 0 and not mask.any() for mask in masks)


def shrinking_of(groups: ChannelGroups, plan: Plan) -> Shrinking:
    """Which positions stay on every axis under the plan."""
    return Shrinking(groups, groups.keep_mask({name: np.array(indices) for name, indices in plan.keep.items()}))


def _rewritten(node: Node, shrinking: Shrinking, left_out: Collection[str]) -> Node:
    shapes = tuple(_new_shape(node, shrinking, i) for i in range(len(node.shapes)))
    if node.value:
        return replace(node, shapes=shapes, value=_list_left(node, shrinking))
    rewrite = REWRITES.get(node.base)
    if rewrite is None or node.name in left_out:
        return node if shapes == node.shapes else replace(node, shapes=shapes)
    return rewrite(replace(node, shapes=shapes), node, shrinking)  # a slice may keep its width while its source shrinks


def _new_shape(node: Node, shrinking: Shrinking, output: int) -> Shape:
    masks = [shrinking.mask(node.name, axis, output) for axis in range(len(node.shapes[output]))]
    return tuple(n if mask is None else int(mask.sum()) for n, mask in zip(node.shapes[output], masks))


def _list_left(node: Node, shrinking: Shrinking) -> tuple[int, ...]:
    """A constant list after its own positions went, and those of the tensor that it points into."""
    own = shrinking.mask(node.name, 0)
    left = np.array(node.value) if own is None else np.array(node.value)[own]
    if node.name in shrinking.groups.renumbered:
        kept = shrinking.mask(*shrinking.groups.renumbered[node.name])
        if kept is not None:
            left = (np.cumsum(kept) - 1)[left % len(kept)]
    return tuple(left.tolist())


def uniform(groups: ChannelGroups, share: float, step: int, scores: Mapping[str, Scores] | None = None) -> Plan:
    """Every group at the same share of its width, rounded to the step; the best-scored channels stay.

    Args:
        share: Above 0, up to 1.
        step: Widths are multiples of it where a group is at least that wide.
        scores: (channels,) per group, larger stays; None keeps the first ones.
    """
    keep = {}
    for group in groups.groups:
        width = aligned(group.width * share, group.width, own_step(group, step))
        score = None if scores is None else scores[group.name]
        keep[group.name] = best_channels(width, group.width, score)
    return Plan(keep=keep, by_head=groups.by_head)


def own_step(group: ChannelGroup, step: int) -> int:
    """How many of a group's channels make the layers' widths a multiple of `step`."""
    return step // gcd(step, group.unit)


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
