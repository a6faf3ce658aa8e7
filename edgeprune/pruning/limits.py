"""Cost tables for the solver: latency, size and RAM of the fused graph as functions of the groups' widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from edgeprune.device.fusion import fuse
from edgeprune.device.memory import live_sets
from edgeprune.device.ops import Op
from edgeprune.graph import Graph
from edgeprune.pruning.groups import ChannelGroups, Width
from edgeprune.pruning.layer_bounds import Span
from edgeprune.pruning.plan import Plan, aligned, apply, own_step, removable_together
from edgeprune.pruning.problem import NOTHING, Expression, Limit, Merge, Table, Vector

Levels = tuple[tuple[int, ...], ...]

_MOST_LEVELS = 16


def width_levels(
    groups: ChannelGroups,
    step: int,
    min_keep: float,
    blocks: bool = False,
    spans: Mapping[str, Span] | None = None,
) -> Levels:
    """Allowed widths per group: those on the step from `min_keep` of the width up, and the full width.

    At most 16 per group, evenly spread; a group no wider than the step keeps its width. Where one channel takes several
    positions of a layer (one per head, say), fewer channels make a step. With `blocks`, groups that the model works
    without may also keep no channel, however wide they are. A group with a span has the levels within it, the most of
    it where there are none on the step, and does not go with its block if it must keep channels.
    """
    removable = frozenset(removable_together(groups) if blocks else ())
    levels = []
    for group in groups.groups:
        own = own_step(group, step)
        least = aligned(max(min_keep * group.width, 1), group.width, own)
        allowed = list(range(least, group.width, own))
        if len(allowed) >= _MOST_LEVELS:
            picks = np.unique(np.linspace(0, len(allowed) - 1, _MOST_LEVELS - 1).round().astype(int))
            allowed = [allowed[i] for i in picks]
        allowed.append(group.width)
        if span := (spans or {}).get(group.name):
            allowed = [width for width in allowed if span.least <= width <= span.most] or [span.most]
        gone = group.name in removable and not (span and span.least)
        levels.append((*((0,) if gone else ()), *allowed))
    return tuple(levels)


class Merges:
    """The variables of a program: the groups' levels, and what is merged of them while costs are tabulated.

    One list serves all costs of a program, so that they share variables.
    """

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.found: list[Merge] = []
        self._known: dict[tuple[object, ...], _Variable] = {}

    def summed(self, width: Width) -> _Variable | None:
        """The variable that says how wide an axis is; None where that is fixed."""
        variable: _Variable | None = None
        for g, rate in sorted(width.per_channel.items()):
            own = _Variable(g, tuple(rate * k for k in self.levels[g]))
            variable = own if variable is None else self._merged(("sum", variable, own), variable, own, _added)
        if variable is None:
            return None
        return _Variable(variable.index, tuple(round(width.constant + (x or 0.0)) for x in variable.values))

    def unless_gone(self, variable: _Variable | None, g: int, fixed: float) -> _Variable:
        """The variable, or a fixed width, with None for where group g keeps no channel."""
        own = _Variable(g, tuple(None if k == 0 else 0 for k in self.levels[g]))
        if variable is None or variable.index == g:
            values = (fixed,) * len(own.values) if variable is None else variable.values
            return _Variable(g, tuple(None if gone is None else x for x, gone in zip(values, own.values, strict=True)))
        return self._merged(("gone", variable, g), variable, own, _left)

    def _merged(self, key: tuple[object, ...], first: _Variable, second: _Variable, join: _Join) -> _Variable:
        if key not in self._known:
            joined = [[join(a, b) for b in second.values] for a in first.values]
            values = sorted({x for row in joined for x in row}, key=lambda x: (x is None, x))
            place = {x: i for i, x in enumerate(values)}
            states = np.array([[place[x] for x in row] for row in joined])
            self._known[key] = _Variable(len(self.levels) + len(self.found), tuple(values))
            self.found.append(Merge(first.index, second.index, states))
        return self._known[key]


_Join = Callable[[float | None, float | None], float | None]


@dataclass(frozen=True)
class _Variable:
    """A variable's index, and per level the width that it stands for; None where what it describes is gone."""

    index: int
    values: tuple[float | None, ...]


def _added(a: float | None, b: float | None) -> float | None:
    return round((a or 0.0) + (b or 0.0), 9)


def _left(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a


def tabulate(
    ops: Sequence[Op],
    groups: ChannelGroups,
    levels: Levels,
    cost: Callable[[Op], float],
    merges: Merges | None = None,
) -> Expression:
    """The summed cost of all ops as an `Expression`: exact, whatever the shape of the cost of an op is.

    An op that reads more than one group, after a concatenation or on a residual stream made of several, sees their
    summed width. An op that reads or gives no channel costs nothing, nor does one that goes with a block.

    Args:
        merges: Those of the program's other costs.
    """
    merges = merges or Merges(levels)
    table = _Table()
    without = {g: _run_without(groups, groups.groups[g].name) for g, widths in enumerate(levels) if widths[0] == 0}
    for op in ops:
        win = _width(groups, op.in_axis, op.in_channels)
        wout = _width(groups, op.out_axis, op.out_channels)
        at = partial(_cost_at, op, cost)
        if (moved := _moved(op, groups)) is not None:
            win, wout, at = Width(op.in_channels, {}), moved, partial(_cost_of_moving, op, cost)
        reads, gives = merges.summed(win), merges.summed(wout)
        for g in (g for g, left in without.items() if left.isdisjoint(op.nodes)):
            if gives is not None and gives.index == g:
                gives = merges.unless_gone(gives, g, wout.constant)
            else:
                reads = merges.unless_gone(reads, g, win.constant)
        rows = reads.values if reads else (win.constant,)
        columns = gives.values if gives else (wout.constant,)
        if reads is not None and gives is not None and reads.index == gives.index:
            table.add_unary(reads.index, [at(a, b) for a, b in zip(rows, columns, strict=True)])
            continue
        costs = [[at(a, b) for b in columns] for a in rows]
        if reads is not None and gives is not None:
            table.add_pair(reads.index, gives.index, np.array(costs))
        elif reads is not None:
            table.add_unary(reads.index, [row[0] for row in costs])
        elif gives is not None:
            table.add_unary(gives.index, costs[0])
        else:
            table.constant += costs[0][0]
    return table.expression(tuple(merges.found))


def ram_limits(
    ops: Sequence[Op],
    groups: ChannelGroups,
    levels: Levels,
    bytes_per_element: int,
    bound_bytes: float,
    held: Expression = NOTHING,
    in_place: bool = False,
) -> tuple[Limit, ...]:
    """One limit per step of execution: the activations alive there, and what is `held` all the time.

    That is what an arena needs at least, and nearly always what it needs. Steps that the dense model holds are left
    out.

    Args:
        in_place: Element-wise operators write over inputs that are not read again.
    """
    elements = {op.output: _elements(op, groups) for op in ops}
    inputs = _input_elements(groups.graph)
    limits: dict[tuple[str, ...], Limit] = {}
    for op, alive in zip(ops, live_sets(ops, in_place), strict=True):
        table = _Table()
        for tensor in alive:
            width = elements.get(tensor, Width(inputs.get(tensor, 0), {}))
            table.constant += width.constant * bytes_per_element
            for g, rate in width.per_channel.items():
                table.add_unary(g, [rate * k * bytes_per_element for k in levels[g]])
        limit = Limit(f"ram at {op.name}", table.expression().plus(held), bound_bytes)
        if not limit.held([len(options) - 1 for options in levels]):
            limits[tuple(sorted(alive))] = limit
    return tuple(limits.values())


def resized(ops: Sequence[Op], groups: ChannelGroups, widths: Sequence[int]) -> tuple[Op, ...]:
    """The operators at these widths of the groups: what fusing the planned graph gives, without planning it.

    But for one channel, where a depthwise convolution stays one here and is fused as a plain one there.
    """
    return tuple(
        op.resized(
            _width(groups, op.in_axis, op.in_channels).at(tuple(widths)),
            _width(groups, op.out_axis, op.out_channels).at(tuple(widths)),
        )
        if (moved := _moved(op, groups)) is None
        else _moving(op, moved.at(tuple(widths)))
        for op in ops
    )


def _run_without(groups: ChannelGroups, name: str) -> frozenset[str]:
    """The nodes that some fused operator still runs when a removable group is removed alone."""
    return frozenset(node for op in fuse(apply(Plan(keep={name: ()}), groups)) for node in op.nodes)


def _elements(op: Op, groups: ChannelGroups) -> Width:
    """Elements of what an op writes, over all its outputs.

    An output that shrinks along more than one axis counts as if only the first of them did, which errs on the dear
    side; no operator met so far does.
    """
    constant, rates = 0.0, dict[int, float]()
    node = groups.graph.by_name.get(op.output)
    for output, shape in enumerate(node.shapes if node is not None else ()):
        widths = [groups.width_at(op.output, axis, size, output) for axis, size in enumerate(shape)]
        axis = next((axis for axis, width in enumerate(widths) if width.per_channel), None)
        others = prod(size for i, size in enumerate(shape) if i != axis)
        constant += others * (1 if axis is None else widths[axis].constant)
        for g, rate in () if axis is None else widths[axis].per_channel.items():
            rates[g] = rates.get(g, 0.0) + others * rate
    dense = constant + sum(rate * groups.groups[g].width for g, rate in rates.items())
    if not dense:  # a part of a stack of layers that is one node
        width = _width(groups, op.out_axis, op.out_channels)
        return Width(width.constant * op.out_positions, {g: r * op.out_positions for g, r in width.per_channel.items()})
    scale = op.out_elements / dense  # the example may hold several samples
    return Width(round(constant * scale), {g: rate * scale for g, rate in rates.items()})


def _moved(op: Op, groups: ChannelGroups) -> Width | None:
    """Elements of a move that shrinks along another axis than the one it states as its channels, as between heads."""
    if op.kind != "move" or _width(groups, op.out_axis, op.out_channels).per_channel:
        return None
    elements = _elements(op, groups)
    return elements if elements.per_channel else None


def _moving(op: Op, elements: float) -> Op:
    positions = round(elements / op.out_channels)
    return replace(op, in_positions=round(op.in_positions * positions / op.out_positions), out_positions=positions)


def _input_elements(graph: Graph) -> dict[str, int]:
    return {node.name: int(np.prod(node.shape)) for node in graph.inputs}


def _width(groups: ChannelGroups, axis: tuple[str, int] | None, size: int) -> Width:
    return Width(size, {}) if axis is None else groups.width_at(axis[0], axis[1], size)


def _cost_at(op: Op, cost: Callable[[Op], float], reads: float | None, gives: float | None) -> float:
    if not reads or not gives:
        return 0.0
    return cost(op.resized(int(reads), int(gives)))


def _cost_of_moving(op: Op, cost: Callable[[Op], float], reads: float | None, elements: float | None) -> float:
    return cost(_moving(op, elements)) if reads and elements else 0.0


class _Table:
    """An expression under construction."""

    def __init__(self) -> None:
        self.constant = 0.0
        self.unary: dict[int, Vector] = {}
        self.pairs: dict[tuple[int, int], Table] = {}

    def add_unary(self, v: int, values: Sequence[float]) -> None:
        self.unary[v] = self.unary.get(v, 0.0) + np.asarray(values, np.float64)

    def add_pair(self, v: int, w: int, values: Table) -> None:
        v, w, values = (v, w, values) if v < w else (w, v, values.T)
        self.pairs[v, w] = self.pairs.get((v, w), 0.0) + values

    def expression(self, merges: tuple[Merge, ...] = ()) -> Expression:
        return Expression(self.constant, self.unary, self.pairs, merges)
