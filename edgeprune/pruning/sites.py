"""Where channels enter a network: the sites of their gates, and the weights that compute them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.pruning.groups import ChannelGroups, channel_axis

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Site:
    """A place where a layer's channels enter the network: its BatchNorm output, else its own.

    `group` and `channel` hold, per position on the channel axis, the group index (-1: stays) and channel index.
    """

    node: str
    axis: int
    group: Indices
    channel: Indices


def sites(groups: ChannelGroups) -> tuple[Site, ...]:
    """All sites of all groups. A depthwise layer is no site: it continues its input's channels."""
    owner, index = owners(groups)
    found = []
    for node in groups.graph.nodes:
        axis = channel_axis(groups.graph, node)
        components = None if axis is None else groups.components_at(node.name, axis)
        if axis is None or components is None or (owner[components] < 0).all():
            continue
        users = groups.graph.users[node.name]
        name = node.name
        if len(node.shapes) > 1:  # a recurrent layer: the first of its outputs
            name = next((user.name for user in users if user.args[1] == 0), "")
        elif len(users) == 1 and users[0].base == "batch_norm":
            name = users[0].name
        if name:
            found.append(Site(name, axis, owner[components], index[components]))
    return tuple(found)


def owners(groups: ChannelGroups) -> tuple[Indices, Indices]:
    """Per component: the index of its group (-1: stays) and of its channel in the group."""
    owner = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    index = np.zeros(len(owner), np.int64)
    for g, group in enumerate(groups.groups):
        owner[group.channels] = g
        index[group.channels] = np.arange(group.width)
    return owner, index


def producing_weights(groups: ChannelGroups) -> list[tuple[str, int]]:
    """(path, axis) of every weight that computes the channels of some layer along that axis."""
    found: dict[tuple[str, int], None] = {}
    for node in groups.graph.nodes:
        axis = channel_axis(groups.graph, node)
        out = None if axis is None else groups.components_at(node.name, axis)
        if out is None or not len(out):
            continue
        wanted = frozenset(out.tolist())
        for name in node.refs:
            weight = groups.graph.by_name[name]
            if weight.op == "parameter" and len(weight.shape) > 1:
                for i in range(len(weight.shape)):
                    own = groups.components_at(name, i)
                    if own is not None and wanted >= frozenset(own.tolist()):
                        found.setdefault((weight.target, i))
                        break
    return list(found)
