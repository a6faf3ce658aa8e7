"""Channel groups: sets of interchangeable channels that a plan may shrink.

A *channel* is everything that must go together (one component of the ties found by `labels`); a *group* is all
channels that touch the same parameter axes in the same way, so that only how many of them stay matters for cost and
which of them stay matters for accuracy. DepGraph (Fang et al. 2023) couples whole layers; here single positions are
coupled, so concatenation, channel padding and shuffles need no special case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edgeprune.graph import Graph, Node, Ref
from edgeprune.pruning.blocks import Anatomy
from edgeprune.pruning.labels import Axes, Labels, label
from edgeprune.pruning.rewrites import Mask


@dataclass(frozen=True)
class ChannelGroup:
    """Interchangeable channels.

    Attributes:
        name: Of the first layer that produces them, such as `layer1.0.conv1`.
        channels: Component id of each channel, in order of first appearance.
        members: The (parameter path, axis) pairs that shrink with the group.
        unit: The fewest positions that one channel takes on any of them, such as the number of heads.
        removable: Whether the model works without any of them, such as on one side of a skip path.
    """

    name: str
    channels: Labels
    members: tuple[tuple[str, int], ...]
    unit: int = 1
    removable: bool = False

    @property
    def width(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class Frozen:
    """A layer output that cannot shrink, and why."""

    name: str
    width: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Width:
    """The width of one axis as a function of the groups' widths: `constant + sum(per_channel[g] * width[g])`."""

    constant: int
    per_channel: Mapping[int, float]

    def at(self, widths: Mapping[int, int] | list[int] | tuple[int, ...]) -> int:
        return round(self.constant + sum(rate * widths[g] for g, rate in self.per_channel.items()))


@dataclass(frozen=True)
class ChannelGroups:
    """All groups of a graph, and where each channel sits on each axis."""

    graph: Graph
    groups: tuple[ChannelGroup, ...]
    frozen: tuple[Frozen, ...]
    axes: Mapping[str, tuple[Axes, ...]]  # labels per node, output and axis
    component: Labels  # component per label
    renumbered: Mapping[str, tuple[str, int]]  # constant index tensors, and the node and axis that they point into
    by_head: bool = False
    notes: tuple[str, ...] = ()  # what must be known of how the graph was found

    @cached_property
    def anatomy(self) -> Anatomy:
        """What is left of the graph when whole groups go."""
        return Anatomy(self.graph)

    @cached_property
    def by_name(self) -> dict[str, ChannelGroup]:
        return {group.name: group for group in self.groups}

    @cached_property
    def _group_of(self) -> Labels:
        """Group index per component; -1 for channels that stay."""
        owner = np.full(int(self.component.max(initial=-1)) + 1, -1)
        for index, group in enumerate(self.groups):
            owner[group.channels] = index
        return owner

    def without(self, failed: Mapping[str, str]) -> ChannelGroups:
        """The groups but those named, which are frozen for the given reasons."""
        frozen = tuple(Frozen(name, self.by_name[name].width, (reason,)) for name, reason in failed.items())
        groups = tuple(group for group in self.groups if group.name not in failed)
        return replace(self, groups=groups, frozen=(*self.frozen, *frozen))

    def components_at(self, node: str, axis: int, output: int = 0) -> Labels | None:
        """Component ids along an axis of a node's output; None where the axis cannot shrink."""
        outputs = self.axes[node]
        if not outputs:
            return None
        axes = outputs[output]
        labels = axes[axis] if axes else None
        return None if labels is None else self.component[labels]

    def owner_of(self, components: Labels) -> Labels:
        """Index of the group of each component; -1 for channels that stay."""
        owners: Labels = self._group_of[components]
        return owners

    def width_at(self, node: str, axis: int, size: int, output: int = 0) -> Width:
        """The width of an axis of `size` positions as a function of group widths."""
        components = self.components_at(node, axis, output)
        if components is None:
            return Width(size, {})
        owners = self.owner_of(components)
        index, counts = np.unique(owners[owners >= 0], return_counts=True)
        rates = {int(g): int(n) / self.groups[int(g)].width for g, n in zip(index, counts)}
        return Width(int((owners < 0).sum()), rates)

    def keep_mask(self, kept: Mapping[str, Labels]) -> Mask:
        """Per component, whether it stays, when each named group keeps the given channel indices."""
        keep = np.ones(len(self._group_of), bool)
        for name, indices in kept.items():
            group = self.by_name[name]
            keep[group.channels] = False
            keep[group.channels[np.asarray(indices, np.int64)]] = True
        return keep


def channel_groups(graph: Graph, by_head: bool = False) -> ChannelGroups:
    """The groups of a captured model, in the order in which their first layer runs.

    Args:
        by_head: Remove whole attention heads and whole groups of a grouped convolution or GroupNorm, instead of
            thinning all of them alike.

    Cost: linear in nodes times channels (0.1 s for DenseNet-121).
    """
    labelling = label(graph, by_head)
    component = labelling.components()
    frozen = np.zeros(int(component.max(initial=-1)) + 1, bool)
    for labels, _ in labelling.freezes:
        frozen[component[labels]] = True
    producers = _producers(graph, labelling.axes, component)
    groups = _groups(_parameter_axes(graph, labelling.axes, component), frozen, producers)
    reasons = _frozen(producers, component, labelling.freezes, frozen)
    found = ChannelGroups(graph, groups, reasons, labelling.axes, component, labelling.renumbered, by_head)
    removable = found.anatomy.removable(_emptied(found))
    return replace(found, groups=tuple(replace(g, removable=r) for g, r in zip(groups, removable, strict=True)))


def _emptied(found: ChannelGroups) -> list[list[str]]:
    """Per group, the nodes of which nothing is left without it: on some axis of every output all channels are its."""
    sole: dict[int, int] = {}  # by the identity of an array of labels, which axes share
    empty: list[list[str]] = [[] for _ in found.groups]
    for node in found.graph.nodes:
        owned: set[int] | None = None
        for axes in found.axes[node.name]:
            own = {_sole_owner(found, labels, sole) for labels in axes if labels is not None}
            owned = own if owned is None else owned & own
        for g in owned or ():
            if g >= 0:
                empty[g].append(node.name)
    return empty


def _sole_owner(found: ChannelGroups, labels: Labels, known: dict[int, int]) -> int:
    """The group of all channels on an axis; -1 where they are of several or of none."""
    if id(labels) not in known:
        owners = found._group_of[found.component[labels]]
        known[id(labels)] = int(owners[0]) if len(owners) and (owners == owners[0]).all() else -1
    return known[id(labels)]


_AxisTable = list[tuple[str, int, Labels]]  # (parameter path, axis, component per position)
_Producers = list[tuple[str, Labels]]  # (layer name, component per output channel) in order of execution


def _parameter_axes(graph: Graph, axes: Mapping[str, tuple[Axes, ...]], component: Labels) -> _AxisTable:
    table = []
    for path, node in graph.parameters.items():
        if graph.users[node.name]:
            for axis, labels in enumerate(axes[node.name][0]):
                if labels is not None:
                    table.append((path, axis, component[labels]))
    return table


def _groups(table: _AxisTable, frozen: Mask, producers: _Producers) -> tuple[ChannelGroup, ...]:
    """Components with the same signature, the multiset of parameter axes they sit on."""
    if not table:
        return ()
    first_layer = np.full(len(frozen), len(producers))  # position of the layer that computes a component
    for position in range(len(producers) - 1, -1, -1):
        first_layer[producers[position][1]] = position
    component = np.concatenate([c for _, _, c in table])
    axis_id = np.repeat(np.arange(len(table)), [len(c) for _, _, c in table])
    free = ~frozen[component] & (first_layer[component] < len(producers))  # what no layer computes stays
    keys, counts = np.unique(component[free] * len(table) + axis_id[free], return_counts=True)
    owner, axis = np.divmod(keys, len(table))  # sorted by component, then by axis
    entries = np.stack([axis, counts], 1)
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, int)
    by_signature: dict[bytes, list[int]] = {}
    spans: dict[bytes, tuple[int, int]] = {}
    for start, end in zip(starts, np.r_[starts[1:], len(owner)]):
        signature = entries[start:end].tobytes()
        by_signature.setdefault(signature, []).append(int(owner[start]))
        spans.setdefault(signature, (int(start), int(end)))
    named = sorted((int(first_layer[found].min()), found[0], signature) for signature, found in by_signature.items())
    seen: dict[str, int] = {}
    groups = []
    for position, _, signature in named:
        name = producers[position][0]
        seen[name] = seen.get(name, 0) + 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        start, end = spans[signature]
        members = tuple(table[i][:2] for i in axis[start:end])
        groups.append(ChannelGroup(unique, np.array(by_signature[signature]), members, int(counts[start:end].min())))
    return tuple(groups)


def channel_axis(graph: Graph, node: Node) -> int | None:
    """The axis of a node's first output on which a layer computes channels; None for what is no such layer.

    A depthwise convolution is none: it continues its input's channels.
    """
    op = node.base
    if op in ("linear", "bilinear", "embedding", "lstm", "gru", "rnn_tanh", "rnn_relu", *_CELLS):
        return len(node.shapes[0]) - 1
    if op in ("matmul", "mm", "addmm"):
        weight = node.args[2 if op == "addmm" else 1]
        return len(node.shape) - 1 if isinstance(weight, Ref) and graph.origins[weight.name] else None
    if not op.startswith("conv") or not isinstance(node.args[1], Ref):
        return None
    shape = graph.by_name[node.args[1].name].shape
    depthwise = not op.startswith("conv_transpose") and len(node.args) > 6 and node.args[6] != 1 and shape[1] == 1
    return None if depthwise else len(node.shape) - len(shape) + 1


_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


def layer_name(graph: Graph, node: Node) -> str:
    """The module of a layer's first weight, such as `layer1.0.conv1`; the node's name where it has none."""
    candidates = node.refs if node.base in ("embedding", "addmm") else node.refs[1:]
    for name in candidates:
        if path := graph.origins[name]:
            return path.rpartition(".")[0] or path
    return node.name


def _producers(graph: Graph, axes: Mapping[str, tuple[Axes, ...]], component: Labels) -> _Producers:
    producers = []
    for node in graph.nodes:
        axis = channel_axis(graph, node)
        labels = None if axis is None else axes[node.name][0][axis]
        if labels is not None:
            producers.append((layer_name(graph, node), component[labels]))
    return producers


def _frozen(
    producers: _Producers, component: Labels, freezes: list[tuple[Labels, str]], frozen: Mask
) -> tuple[Frozen, ...]:
    """Layers with output channels that cannot shrink, with every reason that reaches them."""
    reasons: dict[int, set[str]] = {}
    for labels, reason in freezes:
        for c in np.unique(component[labels]).tolist():
            reasons.setdefault(c, set()).add(reason)
    result: dict[str, Frozen] = {}
    for name, own in producers:
        stuck = own[frozen[own]]
        if len(stuck) and name not in result:
            why = sorted(set().union(*(reasons[c] for c in np.unique(stuck).tolist())))
            result[name] = Frozen(name, len(stuck), tuple(why))
    return tuple(result.values())
