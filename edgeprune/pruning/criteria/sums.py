"""Sums per channel over all groups at once, and beside them those of two halves of the batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from edgeprune.pruning.criteria.evidence import Found, Score, Scores
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.sites import Indices, Site, owners


class Slots:
    """The channels of all groups in one row; a position that stays has slot -1."""

    def __init__(self, groups: ChannelGroups) -> None:
        self.groups = groups
        self.starts = np.cumsum([0, *(group.width for group in groups.groups)])
        self.count = int(self.starts[-1])

    @cached_property
    def _of_component(self) -> Indices:
        owner, index = owners(self.groups)
        return np.where(owner >= 0, self.starts[owner] + index, -1)

    def at(self, site: Site) -> Indices:
        """The slot of every position on a site's channel axis."""
        slots: Indices = np.where(site.group >= 0, self.starts[site.group] + site.channel, -1)
        return slots

    def along(self, path: str, axis: int) -> Indices:
        """The slot of every position on an axis of a parameter."""
        components = self.groups.components_at(self.groups.graph.parameters[path].name, axis)
        assert components is not None
        return self._of_component[components]

    def spread(self, row: Score, slots: Indices, values: Score) -> None:
        """Add the values (positions,) to their channels."""
        mine = slots >= 0
        np.add.at(row, slots[mine], values[mine])

    def row(self) -> Score:
        """Zeros, one per channel."""
        return np.zeros(self.count)

    def split(self, row: Score) -> Scores:
        """A row (channels of all groups,) by group."""
        parts = np.split(row, self.starts[1:-1]) if len(self.groups.groups) else []
        return {group.name: part for group, part in zip(self.groups.groups, parts, strict=True)}


class Sums:
    """Running sums per channel; every other batch counts for the other half.

    Halves are of alternating batches, because data is often sorted.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.whole, self.halves = slots.row(), (slots.row(), slots.row())
        self.weight, self.weights = 0.0, [0.0, 0.0]

    def spread(self, batch: int, slots: Indices, values: Score) -> None:
        """Add the values (positions,) of one place, from batch number `batch`."""
        self.slots.spread(self.whole, slots, values)
        self.slots.spread(self.halves[batch % 2], slots, values)

    def add(self, batch: int, row: Score) -> None:
        """Add a row (channels of all groups,)."""
        self.whole += row
        self.halves[batch % 2][:] += row

    def count(self, batch: int, weight: float) -> None:
        """What the sums are divided by in the end: samples, or batches."""
        self.weight += weight
        self.weights[batch % 2] += weight

    def found(self, finish: Callable[[Score], Score] = lambda row: row) -> Found:
        """The means, each through `finish`."""
        split = self.slots.split
        whole = split(finish(self.whole / max(self.weight, 1)))
        if not all(self.weights):
            return Found(whole)
        first, second = (split(finish(row / w)) for row, w in zip(self.halves, self.weights, strict=True))
        return Found(whole, (first, second))


def per_position(value: torch.Tensor, axis: int) -> Score:
    """The sum of a tensor over all axes but one."""
    return as_row(value.transpose(0, axis).flatten(1).sum(1))


def as_row(value: torch.Tensor) -> Score:
    """A tensor's values in double precision."""
    row: np.ndarray[Any, np.dtype[np.float64]] = value.detach().double().cpu().numpy()
    return row
