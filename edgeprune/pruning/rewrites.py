"""Rewrites: how an operator's arguments change when channels go, such as the sizes of a reshape.

A rewrite is registered beside the operator's label rule. It sees the node before and after its shapes have shrunk, and
through `Shrinking` which positions stay on any axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.graph import Arg, Graph, Node, Ref

if TYPE_CHECKING:
    from edgeprune.pruning.groups import ChannelGroups

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Shrinking:
    """Which channels stay: the groups, and per component whether it is kept."""

    groups: ChannelGroups
    keep: Mask

    @property
    def graph(self) -> Graph:
        """The graph before."""
        return self.groups.graph

    def mask(self, node: str | Ref, axis: int, output: int = 0) -> Mask | None:
        """Which positions of an axis stay; None where the axis cannot shrink."""
        name = node.name if isinstance(node, Ref) else node
        components = self.groups.components_at(name, axis, output)
        return None if components is None else self.keep[components]

    def width(self, node: str | Ref, axis: int) -> int:
        """The size of an axis afterwards."""
        name = node.name if isinstance(node, Ref) else node
        mask = self.mask(name, axis)
        return self.graph.by_name[name].shape[axis] if mask is None else int(mask.sum())


Rewrite = Callable[[Node, Node, Shrinking], Node]
REWRITES: dict[str, Rewrite] = {}


def rewrite(*ops: str) -> Callable[[Rewrite], Rewrite]:
    """Register the rewrite `(new, old, shrinking) -> Node` of the named operators (base names)."""

    def register(function: Rewrite) -> Rewrite:
        for op in ops:
            assert op not in REWRITES, op
            REWRITES[op] = function
        return function

    return register


def with_arg(node: Node, position: int, value: Arg) -> Node:
    """The node with one positional argument replaced."""
    return replace(node, args=(*node.args[:position], value, *node.args[position + 1 :]))


def argument(node: Node, position: int, name: str, default: Arg = None) -> Arg:
    """An argument given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def sizes_at(position: int) -> Rewrite:
    """A rewrite for a list of literal sizes; numbers computed at run time and -1 stay."""

    def changed(new: Node, old: Node, shrinking: Shrinking) -> Node:
        sizes = old.args[position]
        if not isinstance(sizes, tuple):  # a view as another type
            return new
        first = len(new.shape) - len(sizes)
        return with_arg(
            new,
            position,
            tuple(
                new.shape[i + first] if isinstance(size, int) and size > 0 and old.shape[i + first] == size else size
                for i, size in enumerate(sizes)
            ),
        )

    return changed
