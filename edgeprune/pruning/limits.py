"""Cost tables for the solver: latency, size and RAM of the fused graph as functions of the groups' widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from edgeprune.device.memory import live_sets
from edgeprune.device.ops import Op
from edgeprune.graph import Graph
from edgeprune.pruning.groups import ChannelGroups, Width
from edgeprune.pruning.plan import aligned, nodes_without, own_step, removable_together
from edgeprune.pruning.solver import NOTHING, Expression, Limit, Vector

Table = np.ndarray[Any, Any]
Levels = tuple[tuple[int, ...], ...]

_MOST_LEVELS = 16


def width_levels(groups: ChannelGroups, step: int, min_keep: float, blocks: bool = False) -> Levels:
    """Allowed widths per group: those on the step from `min_keep` of the width up, and the full width.

    At most 16 per group, evenly spread; a group no wider than the step keeps its width. Where one channel takes several
    positions of a layer (one per head, say), fewer channels make a step. With `blocks`, groups that the model works
    without may also keep no channel, however wide they are.
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
        levels.append((*((0,) if group.name in removable else ()), *allowed, group.width))
    return tuple(levels)


def tabulate(ops: Sequence[Op], groups: ChannelGroups, levels: Levels, cost: Callable[[Op], float]) -> Expression:
    """The summed cost of all ops as an `Expression`.

    Exact for ops that depend on one or two groups. An op that reads more (after a concatenation or on a residual
    stream made of several groups) is taken as bilinear in its input and output width, fitted at its extreme widths.
    An op that reads or gives no channel costs nothing, nor does one that goes with a block; where that depends on more
    than two groups it is left out, which errs on the dear side.
    """
    table = _Table(groups, levels)
    without = {g: nodes_without(groups, groups.groups[g].name) for g, widths in enumerate(levels) if widths[0] == 0}
    for op in ops:
        win = _width(groups, op.in_axis, op.in_channels)
        wout = _width(groups, op.out_axis, op.out_channels)
        involved = sorted({*win.per_channel, *wout.per_channel})
        goes_with = frozenset(g for g, left in without.items() if left.isdisjoint(op.nodes))
        if len(goes_with.union(involved)) <= 2:
            involved = sorted(goes_with.union(involved))

        at = partial(_cost_at, op, win, wout, goes_with, cost)
        if not involved:
            table.constant += cost(op)
        elif len(involved) == 1:
            (g,) = involved
            table.add_unary(g, [at({g: k}) for k in levels[g]])
        elif len(involved) == 2:
            g, h = involved
            table.add_pair(g, h, [[at({g: a, h: b}) for b in levels[h]] for a in levels[g]])
        else:
            _add_bilinear(table, op, win, wout, cost)
    return table.expression()


def latency_limit(
    ops: Sequence[Op], groups: ChannelGroups, levels: Levels, op_s: Callable[[Op], float], bound_s: float
) -> Limit:
    """Summed latency of all ops, seconds."""
    return Limit("latency", tabulate(ops, groups, levels, op_s), bound_s)


def ram_limits(
    ops: Sequence[Op],
    groups: ChannelGroups,
    levels: Levels,
    bytes_per_element: int,
    bound_bytes: float,
    held: Expression = NOTHING,
) -> tuple[Limit, ...]:
    """One limit per step of execution: the activations alive there, and what is `held` all the time.

    Steps that the dense model holds are left out.
    """
    widths = {op.output: (_width(groups, op.out_axis, op.out_channels), op.out_positions) for op in ops}
    inputs = _input_elements(groups.graph)
    limits: dict[tuple[str, ...], Limit] = {}
    for op, alive in zip(ops, live_sets(ops), strict=True):
        table = _Table(groups, levels)
        for tensor in alive:
            if tensor not in widths:
                table.constant += inputs.get(tensor, 0) * bytes_per_element
                continue
            width, positions = widths[tensor]
            table.constant += width.constant * positions * bytes_per_element
            for g, rate in width.per_channel.items():
                table.add_unary(g, [rate * k * positions * bytes_per_element for k in levels[g]])
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
        for op in ops
    )


def _input_elements(graph: Graph) -> dict[str, int]:
    return {node.name: int(np.prod(node.shape)) for node in graph.inputs}


def _width(groups: ChannelGroups, axis: tuple[str, int] | None, size: int) -> Width:
    return Width(size, {}) if axis is None else groups.width_at(axis[0], axis[1], size)


def _cost_at(
    op: Op, win: Width, wout: Width, goes_with: frozenset[int], cost: Callable[[Op], float], widths: dict[int, int]
) -> float:
    sized = _at(op, win, wout, widths)
    gone = any(width == 0 and g in goes_with for g, width in widths.items())
    return 0.0 if gone or sized.in_channels == 0 or sized.out_channels == 0 else cost(sized)


def _at(op: Op, win: Width, wout: Width, widths: dict[int, int]) -> Op:
    return op.resized(win.at(widths), wout.at(widths))


class _Table:
    """An expression under construction."""

    def __init__(self, groups: ChannelGroups, levels: Levels) -> None:
        self.levels = levels
        self.full = tuple(group.width for group in groups.groups)
        self.constant = 0.0
        self.unary: dict[int, Vector] = {}
        self.pairs: dict[tuple[int, int], Vector] = {}

    def add_unary(self, g: int, values: Sequence[float] | Vector) -> None:
        self.unary[g] = self.unary.get(g, np.zeros(len(self.levels[g]))) + np.asarray(values, np.float64)

    def add_pair(self, g: int, h: int, values: Sequence[Sequence[float]] | Table) -> None:
        before = self.pairs.get((g, h), np.zeros((len(self.levels[g]), len(self.levels[h]))))
        self.pairs[g, h] = before + np.asarray(values, np.float64)

    def expression(self) -> Expression:
        return Expression(self.constant, self.unary, self.pairs)


def _add_bilinear(table: _Table, op: Op, win: Width, wout: Width, cost: Callable[[Op], float]) -> None:
    full = dict(enumerate(table.full))
    least = {g: next(k for k in table.levels[g] if k > 0) for g in full}
    a1, b1, a0, b0 = win.at(full), wout.at(full), win.at(least), wout.at(least)
    if win == wout:  # element-wise and depthwise: one width, taken as linear in it
        slope = (cost(op.resized(a1, b1)) - cost(op.resized(a0, b0))) / max(a1 - a0, 1)
        table.constant += cost(op.resized(a1, b1)) - slope * (a1 - win.constant)
        for g, rate in win.per_channel.items():
            table.add_unary(g, [slope * rate * k for k in table.levels[g]])
        return
    corner = {(a, b): cost(op.resized(a, b)) for a in (a0, a1) for b in (b0, b1)}
    product = (corner[a1, b1] - corner[a1, b0] - corner[a0, b1] + corner[a0, b0]) / max((a1 - a0) * (b1 - b0), 1)
    by_in = (corner[a1, b0] - corner[a0, b0]) / max(a1 - a0, 1) - product * b0
    by_out = (corner[a0, b1] - corner[a0, b0]) / max(b1 - b0, 1) - product * a0
    base = corner[a0, b0] - by_in * a0 - by_out * b0 - product * a0 * b0
    # cost(a, b) = base + by_in * a + by_out * b + product * a * b with a and b sums over groups
    table.constant += base + by_in * win.constant + by_out * wout.constant + product * win.constant * wout.constant
    for g in {*win.per_channel, *wout.per_channel}:
        r, s = win.per_channel.get(g, 0.0), wout.per_channel.get(g, 0.0)
        k = np.array(table.levels[g], np.float64)
        linear = (by_in + product * wout.constant) * r + (by_out + product * win.constant) * s
        table.add_unary(g, linear * k + product * r * s * k * k)
    for g in sorted({*win.per_channel, *wout.per_channel}):
        for h in sorted({*win.per_channel, *wout.per_channel}):
            rate = win.per_channel.get(g, 0.0) * wout.per_channel.get(h, 0.0)
            if g != h and rate:
                outer: Table = product * rate * np.outer(table.levels[g], table.levels[h])
                if g < h:
                    table.add_pair(g, h, outer)
                else:
                    table.add_pair(h, g, outer.T)
