"""Dead channels: those whose removal changes nothing, because training left their filters, gates or readers at zero.

The weights say which channels may be dead, a run with them masked proves it. They go before all others, whatever the
criterion, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from edgeprune.graph import Ref
from edgeprune.pruning.check import TOLERANCE, relative_difference
from edgeprune.pruning.criteria.evidence import Scores
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.sites import owners, producing_weights, sites
from edgeprune.pruning.trace import Captured, attribute

Dead = dict[str, tuple[int, ...]]  # channel indices per group, ascending; groups without any are left out

_MOST_RUNS = 64  # of the masked model; candidates that are not settled by then count as alive


def dead_channels(captured: Captured, groups: ChannelGroups, inputs: tuple[Any, ...]) -> Dead:
    """The channels that do nothing, proven on a real batch. One channel of a group always counts as alive.

    Args:
        inputs: As the model takes them, batch on axis 0; not all zero, which would prove nothing.
    """
    candidates = [(name, channel) for name, found in _candidates(captured, groups).items() for channel in found]
    dead: Dead = {}
    for name, channel in _proven(captured, groups, candidates, inputs):
        dead[name] = (*dead.get(name, ()), channel)
    return {name: tuple(sorted(channels)) for name, channels in dead.items()}


def dead_last(scores: Scores, dead: Mapping[str, tuple[int, ...]]) -> Scores:
    """Scores (channels,) per group with dead channels at zero and all others above."""
    ranked = dict(scores)
    for name, channels in dead.items():
        score = np.maximum(scores[name], 1e-12 * max(float(np.max(scores[name])), 1e-12))
        score[list(channels)] = 0.0
        ranked[name] = score
    return ranked


def _candidates(captured: Captured, groups: ChannelGroups) -> dict[str, list[int]]:
    """Channels with all producing filters (or the norm's scale after them) at zero, or with all reading weights at
    zero."""
    silent = _silent(captured, groups)
    unread = _unread(captured, groups)
    found = {}
    for group in groups.groups:
        mine = (silent[group.channels] | unread[group.channels]).nonzero()[0].tolist()
        if mine:
            found[group.name] = mine[1:] if len(mine) == group.width else mine
    return found


def _silent(captured: Captured, groups: ChannelGroups) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Per component, whether every layer that computes it has a zero filter or a zero scale there."""
    graph = groups.graph
    producing = dict(producing_weights(groups))
    owner, _ = owners(groups)
    computed, sounding = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    scales: dict[str, str] = {}  # site -> path of the norm's scale
    for site in sites(groups):
        node = graph.by_name[site.node]
        if node.base == "batch_norm" and isinstance(node.args[1], Ref):
            scales[node.refs[0]] = graph.by_name[node.args[1].name].target
    for node in graph.nodes:
        for ref in dict.fromkeys(node.refs):
            path = graph.by_name[ref].target
            if path not in producing:
                continue
            axis = producing[path]
            components = groups.components_at(ref, axis)
            assert components is not None
            zero = _zero_along(attribute(captured.module, path), axis)
            scale = attribute(captured.module, scales[node.name]) if node.name in scales else None
            if scale is not None and len(scale) == len(zero):
                zero = zero | _zero_along(scale, 0)
            computed[components] = True
            sounding[components[~zero]] = True
    return computed & ~sounding


def _unread(captured: Captured, groups: ChannelGroups) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Per component, whether weights read it and all of them are zero."""
    producing = set(producing_weights(groups))
    owner, _ = owners(groups)
    read, used = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    for group in groups.groups:
        for path, axis in group.members:
            node = groups.graph.parameters[path]
            if len(node.shape) < 2 or (path, axis) in producing:
                continue
            components = groups.components_at(node.name, axis)
            assert components is not None
            read[components] = True
            used[components[~_zero_along(attribute(captured.module, path), axis)]] = True
    return read & ~used


def _zero_along(tensor: torch.Tensor, axis: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    zero = (tensor.detach() == 0).transpose(0, axis).reshape(tensor.shape[axis], -1).all(1)
    return np.asarray(zero.cpu().numpy())


def _proven(
    captured: Captured, groups: ChannelGroups, candidates: list[tuple[str, int]], inputs: tuple[Any, ...]
) -> list[tuple[str, int]]:
    """The candidates that can be masked together without a change; those that cannot are found by halving."""
    want = masked_outputs(captured, groups, Plan(keep={}), *inputs)
    proven: list[tuple[str, int]] = []
    todo = [candidates] if candidates else []
    for _ in range(_MOST_RUNS):
        if not todo:
            break
        part = todo.pop()
        got = masked_outputs(captured, groups, _without(groups, [*proven, *part]), *inputs)
        if relative_difference(want, got) <= TOLERANCE:
            proven.extend(part)
        elif len(part) > 1:
            todo += [part[len(part) // 2 :], part[: len(part) // 2]]
    return proven


def _without(groups: ChannelGroups, gone: list[tuple[str, int]]) -> Plan:
    by_group: dict[str, set[int]] = {}
    for name, channel in gone:
        by_group.setdefault(name, set()).add(channel)
    return Plan(
        keep={
            name: tuple(i for i in range(groups.by_name[name].width) if i not in channels)
            for name, channels in by_group.items()
        }
    )
