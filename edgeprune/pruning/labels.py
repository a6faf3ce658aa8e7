"""Channel labels: which positions on which axes are the same channel.

Every axis of every tensor (parameters included) carries either None, an axis that cannot shrink, or an array with one
label per position. A rule per operator says how the labels of its outputs follow from those of its inputs and which
labels must go together (`tie`). What has no rule is frozen and named: nothing is skipped silently, nothing guessed.
After one pass, connected components over all ties are the channels. Time is linear in nodes times channels.

The rules live in `edgeprune.pruning.rules`, one module per family of operators, each rule beside the rewrite that the
operator's arguments need when channels go. A rule answers for every labelled axis of its inputs: it passes the labels
on, ties them or freezes them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edgeprune.graph import Graph, Node, Ref, Shape
from edgeprune.pruning import rules as _rules

Labels = np.ndarray[Any, np.dtype[np.int64]]
Axes = tuple[Labels | None, ...]  # one entry per axis of a tensor


@dataclass
class Labelling:
    """Labels under construction, in one pass over the graph.

    Attributes:
        by_head: Where one axis is split into several (attention heads, groups), whole outer blocks are the channels
            instead of positions inside every block.
        axes: Per node, one entry per output.
        constant: Nodes that depend on parameters alone, not on the input.
        renumbered: Per constant index tensor, the node and axis that it points into.
        samples: Inputs whose first axis holds samples: then labels follow samples, and parameters hold none.
    """

    graph: Graph
    by_head: bool = False
    samples: frozenset[str] | None = None
    axes: dict[str, tuple[Axes, ...]] = field(default_factory=dict)
    freezes: list[tuple[Labels, str]] = field(default_factory=list)
    renumbered: dict[str, tuple[str, int]] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)
    count: int = 0
    _ties: list[tuple[Labels, Labels]] = field(default_factory=list)

    def fresh(self, size: int) -> Labels:
        """New labels, one per position."""
        start, self.count = self.count, self.count + size
        return np.arange(start, self.count)

    def tie(self, a: Labels | None, b: Labels | None, reason: str) -> Labels | None:
        """Make two axes the same channels position by position; an unlabelled one freezes the other."""
        if a is None or b is None:
            self.freeze(a if b is None else b, reason)
            return None
        assert len(a) == len(b), (reason, len(a), len(b))
        self._ties.append((a, b))
        return a

    def tie_rows(self, grid: Labels) -> Labels:
        """Make all rows of labels (rows, columns) the same; gives one row."""
        first: Labels = grid[0]
        self._ties.extend((first, row) for row in grid[1:])
        return first

    def freeze(self, labels: Labels | None, reason: str) -> None:
        """These channels stay."""
        if labels is not None and len(labels):
            self.freezes.append((labels, reason))

    def freeze_all(self, axes: Iterable[Labels | None], reason: str) -> None:
        """None of these axes can shrink."""
        for labels in axes:
            self.freeze(labels, reason)

    def of(self, ref: object) -> Axes:
        """The axes of a single-output argument; none for a number."""
        if not isinstance(ref, Ref):
            return ()
        outputs = self.axes[ref.name]
        return outputs[0] if len(outputs) == 1 else ()

    def shape(self, ref: object) -> Shape:
        """The shape of a single-output argument; () for a number."""
        if not isinstance(ref, Ref):
            return ()
        shapes = self.graph.by_name[ref.name].shapes
        return shapes[0] if len(shapes) == 1 else ()

    def is_parameter(self, ref: object) -> bool:
        """Whether an argument is a parameter, buffer or constant itself."""
        return isinstance(ref, Ref) and self.graph.by_name[ref.name].op == "parameter"

    def components(self) -> Labels:
        """Component id per label, numbered by first label, so that order follows the graph."""
        if not self._ties:
            return np.arange(self.count)
        rows = np.concatenate([a for a, _ in self._ties])
        columns = np.concatenate([b for _, b in self._ties])
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(self.count, self.count))
        _, ids = connected_components(links, directed=False)
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse]


Rule = Callable[[Labelling, Node], "tuple[Axes, ...]"]
_RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register the rule of the named operators (overload packets, in-place forms included)."""

    def register(function: Rule) -> Rule:
        for op in ops:
            assert op not in _RULES, op
            _RULES[op] = function
        return function

    return register


@cache
def load_rules() -> None:
    """Import every module of rules, so that their operators are registered."""
    for found in pkgutil.iter_modules(_rules.__path__):
        importlib.import_module(f"{_rules.__name__}.{found.name}")


def known_operators() -> frozenset[str]:
    """Base names of the operators that have a rule."""
    load_rules()
    return frozenset(_RULES)


def label(graph: Graph, by_head: bool = False, samples: frozenset[str] | None = None) -> Labelling:
    """Run the rules over the graph in execution order."""
    load_rules()
    labelling = Labelling(graph, by_head, samples)
    for node in graph.nodes:
        if node.op != "input" and all(name in labelling.constant for name in node.refs):
            labelling.constant.add(node.name)
        labelling.axes[node.name] = _RULES.get(node.base, _unknown)(labelling, node)
    return labelling


def unlabelled(node: Node) -> tuple[Axes, ...]:
    """No axis of any output can shrink."""
    return tuple((None,) * len(shape) for shape in node.shapes)


def frozen_by(run: Labelling, node: Node, reason: str) -> tuple[Axes, ...]:
    """Freeze every labelled axis that the node reads; its outputs cannot shrink."""
    for name in node.refs:
        for output in run.axes[name]:
            run.freeze_all(output, reason)
    return unlabelled(node)


def _unknown(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return frozen_by(run, node, f"no rule for {node.op} ({node.name})")
