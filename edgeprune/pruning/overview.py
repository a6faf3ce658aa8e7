"""Rows for a reader: what each channel group is worth at most, and which layers share its channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from edgeprune.cost import Measurement
from edgeprune.device.ops import Op
from edgeprune.documents import GroupRow, LayerRow, SegmentRow, nanoseconds
from edgeprune.pruning.groups import ChannelGroups, layer_name
from edgeprune.pruning.labels import Labels
from edgeprune.pruning.limits import resized

_MOST_SEGMENTS = 16  # of one layer; shuffled channels are counted per group instead
_LAYERS = ("conv", "depthwise", "dense", "rnn")


def group_rows(
    groups: ChannelGroups,
    ops: Sequence[Op],
    cost: Callable[[Sequence[Op]], Measurement],
    dead: Mapping[str, Sequence[int]],
) -> tuple[GroupRow, ...]:
    """Per group, what the dense model has and the model with one channel of this group left has not.

    Args:
        dead: Channels that do nothing, per group.
    """
    full = [group.width for group in groups.groups]
    dense_s, dense_macs, dense_count = cost(ops).cost.latency_s, sum(op.macs for op in ops), _parameters(groups, full)
    rows = []
    for i, group in enumerate(groups.groups):
        widths = [*full[:i], 1, *full[i + 1 :]]
        small = resized(ops, groups, widths)
        small_s = cost(small).cost.latency_s
        rows.append(
            GroupRow(
                name=group.name,
                width=group.width,
                unit=group.unit,
                layers=tuple(dict.fromkeys(path.rpartition(".")[0] or path for path, _ in group.members)),
                parameters=dense_count - _parameters(groups, widths),
                macs=dense_macs - sum(op.macs for op in small),
                latency_share=None if not dense_s or small_s is None else (dense_s - small_s) / dense_s,
                dead=len(dead.get(group.name, ())),
                removable=group.removable,
            )
        )
    return tuple(rows)


def layer_rows(groups: ChannelGroups, ops: Sequence[Op], dense: Measurement) -> tuple[LayerRow, ...]:
    """The layers with weights in execution order: where the channels they read and compute belong."""
    spent = {op.name: op.latency_s for op in dense.ops}
    reasons = {entry.name: entry.reasons for entry in groups.frozen}
    rows = []
    for op in ops:
        if op.kind not in _LAYERS or not op.weights:
            continue
        nodes = [groups.graph.by_name[name] for name in op.nodes if name in groups.graph.by_name]
        names = [layer_name(groups.graph, node) for node in nodes if len(node.refs) > 1]
        name = names[0] if names else op.name
        computes = _segments(groups, op.out_axis, op.out_channels)
        rows.append(
            LayerRow(
                name=name,
                kind=op.kind,
                reads=_segments(groups, op.in_axis, op.in_channels),
                computes=computes,
                macs=op.macs,
                latency_ns=nanoseconds(spent.get(op.name)),
                reasons=reasons.get(name, ()) if any(segment.group is None for segment in computes) else (),
            )
        )
    return tuple(rows)


def _parameters(groups: ChannelGroups, widths: list[int]) -> int:
    graph = groups.graph
    return sum(
        prod(groups.width_at(node.name, axis, size).at(widths) for axis, size in enumerate(node.shape))
        for node in graph.parameters.values()
        if graph.users[node.name]
    )


def _segments(groups: ChannelGroups, axis: tuple[str, int] | None, size: int) -> tuple[SegmentRow, ...]:
    components = None if axis is None else groups.components_at(*axis)
    if components is None:
        return (SegmentRow(group=None, width=size),)
    owners = groups.owner_of(components)
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else np.zeros(0, np.int64)
    widths = np.diff(np.r_[starts, len(owners)])
    if len(starts) > _MOST_SEGMENTS:
        found, first, widths = np.unique(owners, return_index=True, return_counts=True)
        order: Labels = np.argsort(first)
        return tuple(_segment(groups, int(found[i]), int(widths[i])) for i in order)
    return tuple(_segment(groups, int(owners[start]), int(width)) for start, width in zip(starts, widths))


def _segment(groups: ChannelGroups, owner: int, width: int) -> SegmentRow:
    return SegmentRow(group=None if owner < 0 else groups.groups[owner].name, width=width)
