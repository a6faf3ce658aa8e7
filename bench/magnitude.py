"""Half of all channels by L2 magnitude, over all groups at once: the setting in which tools are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import numpy as np
import torch

from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan

Scores = dict[str, "np.ndarray[Any, np.dtype[np.float64]]"]


def magnitudes(groups: ChannelGroups, weight_at: Callable[[str], torch.Tensor | None]) -> Scores:
    """Squared L2 norm (channels,) per group, averaged over the weights that the group slices; biases do not count.

    In units of the group's mean, so that groups compare, as torch-pruning's `GroupMagnitudeImportance(p=2)` has it.

    Args:
        weight_at: A parameter by its path; None for what is a buffer.
    """
    energies: dict[tuple[str, int], torch.Tensor] = {}
    squared: dict[str, torch.Tensor] = {}
    scores = {}
    channel = np.full(len(groups.component) + 1, -1)  # per component, its channel in the group at hand
    for group in groups.groups:
        members = list(dict.fromkeys(group.members))
        ranking = [(path, axis) for path, axis in members if not path.endswith("bias") and weight_at(path) is not None]
        channel[group.channels] = np.arange(group.width)
        score = np.zeros(group.width)
        for path, axis in ranking:
            if (path, axis) not in energies:
                weight = weight_at(path)
                assert weight is not None
                if path not in squared:
                    squared[path] = _squared(weight.detach())
                energies[path, axis] = _energy(weight.detach(), squared[path], axis)
            components = groups.components_at(groups.graph.parameters[path].name, axis)
            assert components is not None
            mine = channel[components]
            positions = np.flatnonzero(mine >= 0)
            energy = energies[path, axis].numpy()[positions]
            score += np.bincount(mine[positions], energy, group.width) / np.bincount(
                mine[positions], minlength=group.width
            )
        scores[group.name] = score / max(score.mean(), 1e-30)
        channel[group.channels] = -1
    return scores


def _squared(weight: torch.Tensor) -> torch.Tensor:
    """Squared weights, summed over the kernel: one pass over the memory for both channel axes."""
    if weight.ndim <= 2:
        return weight.square()
    return torch.linalg.vector_norm(weight.flatten(2), dim=2).square()


def _energy(weight: torch.Tensor, squared: torch.Tensor, axis: int) -> torch.Tensor:
    """Squared L2 norm (size of the axis,) of the weights at each position of an axis."""
    if axis >= squared.ndim:  # a channel axis inside the kernel
        squared = weight.square()
    others = [d for d in range(squared.ndim) if d != axis]
    return (squared.sum(dim=others) if others else squared).double()


def smallest_share(groups: ChannelGroups, scores: Mapping[str, Any], share: float, min_keep: float) -> Plan:
    """A plan that removes the given share of all channels, the lowest scores first.

    Args:
        min_keep: The share of its channels, at least one, that every group keeps.
    """
    owner = np.repeat(np.arange(len(groups.groups)), [group.width for group in groups.groups])
    channel = np.concatenate([np.arange(group.width) for group in groups.groups] or [np.zeros(0, int)])
    score = np.concatenate([scores[group.name] for group in groups.groups] or [np.zeros(0)])
    spare = [group.width - max(1, ceil(group.width * min_keep)) for group in groups.groups]
    removed: list[set[int]] = [set() for _ in groups.groups]
    left = round(share * len(score))
    for place in np.argsort(score, kind="stable"):
        g = int(owner[place])
        if left and spare[g]:
            removed[g].add(int(channel[place]))
            spare[g], left = spare[g] - 1, left - 1
    keep = {
        group.name: tuple(c for c in range(group.width) if c not in gone)
        for group, gone in zip(groups.groups, removed, strict=True)
    }
    return Plan(keep=keep)
