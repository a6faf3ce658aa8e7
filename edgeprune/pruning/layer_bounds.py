"""How many channels of single layers may stay, from patterns of their names to spans of the groups' widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil

import numpy as np

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.pruning.groups import ChannelGroups, channel_axis, layer_name
from edgeprune.spec import LayerBound

_WHERE = "fit.layers"


@dataclass(frozen=True)
class Span:
    """The fewest and the most channels of a group that may stay, and the patterns that say so."""

    least: int
    most: int
    said_least: str = ""
    said_most: str = ""


def spans(groups: ChannelGroups, layers: Mapping[str, LayerBound], freeze: Sequence[str] = ()) -> dict[str, Span]:
    """The spans of the groups that patterns name; where several do, all of them hold.

    Args:
        layers: Bounds by pattern (`layer3.*`), matched against the names of groups and of layers that compute
            channels of a group. Numbers count the group's channels.
        freeze: Patterns of groups that stay whole.

    Raises:
        UsageError: A pattern that matches nothing, bounds that contradict each other or the width, or a bound below
            the width of a layer that cannot shrink.
    """
    known = _names(groups)
    fixed = {frozen.name: frozen for frozen in groups.frozen}
    found: dict[str, Span] = {}
    for pattern, bound in [*layers.items(), *((name, LayerBound(frozen=True)) for name in freeze)]:
        named = {name for layer, owners in known.items() if fnmatchcase(layer, pattern) for name in owners}
        stuck = [frozen for name, frozen in fixed.items() if fnmatchcase(name, pattern)]
        if not named and not stuck:
            raise UsageError(
                f"{pattern!r} matches no layer", where=_WHERE, hint=did_you_mean(pattern, [*known, *fixed])
            )
        for frozen in stuck:
            if bound.max is not None and bound.max < frozen.width:
                raise UsageError(
                    f"{frozen.name} cannot keep at most {bound.max} of {frozen.width} channels: {frozen.reasons[0]}",
                    where=_WHERE,
                    hint=f"leave it out of {pattern!r}",
                )
        for group in groups.groups:
            if group.name in named:
                before = found.get(group.name, Span(0, group.width))
                found[group.name] = _within(before, bound, group.name, group.width, pattern)
    return found


def _within(before: Span, bound: LayerBound, name: str, width: int, pattern: str) -> Span:
    """The span that holds the bound too."""
    least = max(bound.min or 0, ceil(bound.keep * width - 1e-9), width if bound.frozen else 0)
    most = width if bound.max is None else min(bound.max, width)
    after = Span(
        max(before.least, least),
        min(before.most, most),
        pattern if least > before.least else before.said_least,
        pattern if most < before.most else before.said_most,
    )
    if least > width:
        raise UsageError(f"{name} has {width} channels, {pattern!r} asks for at least {least}", where=_WHERE)
    if after.least > after.most:
        raise UsageError(
            f"bounds of {name} contradict each other: at least {after.least} ({after.said_least!r}) and at most "
            f"{after.most} ({after.said_most!r}) of {width} channels",
            where=_WHERE,
        )
    return after


def _names(groups: ChannelGroups) -> dict[str, set[str]]:
    """Names of layers, with the groups whose channels they compute or continue; a group's own name among them."""
    found = {group.name: {group.name} for group in groups.groups}
    for node in groups.graph.nodes:
        axis = channel_axis(groups.graph, node)
        components = None if axis is None else groups.components_at(node.name, axis)
        if components is not None:
            owners = np.unique(groups.owner_of(components))
            own = {groups.groups[int(g)].name for g in owners if g >= 0}
            found.setdefault(layer_name(groups.graph, node), set()).update(own)
    computed = set(found)
    for group in groups.groups:  # norms and depthwise convolutions
        for path, axis in group.members:
            layer = path.rpartition(".")[0] or path
            if axis == 0 and layer not in computed:
                found.setdefault(layer, set()).add(group.name)
    return {name: owners for name, owners in found.items() if owners}
