"""The budgeted choice as a linear program with integers: its matrices, its relaxation, and its exact search.

For every two variables that meet in a cost, z_ij stands for "one at level i and the other at level j"; its marginal
sums equal the levels of the two, and a merge's level is the sum of the z that lead to it. With whole levels z is their
product, so tables are represented exactly and without big-M. HiGHS proves the bounds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeWarning, linprog, milp
from scipy.sparse import coo_array, csr_array

from edgeprune.pruning.problem import Expression, Flags, Limit, Problem, Table, Vector

_VALUES = 1e3  # the scale of the objective, against which the solver's absolute tolerances are small
_SEPARABLE = 1e-12  # relative; a table this close to a sum of two vectors needs no products


@dataclass(frozen=True)
class Program:
    """Maximise `gains @ x` with `ties @ x == right` and `costs @ x <= room`; the first `whole` columns are 0 or 1.

    Attributes:
        starts: First column of each group's levels, and after the last.
        scale, least: `value = gains @ x / scale + least` is the problem's value.
    """

    gains: Vector
    ties: csr_array
    right: Vector
    costs: csr_array
    room: Vector
    starts: Vector
    whole: int
    scale: float
    least: float

    def value(self, objective: float) -> float:
        """The problem's value for a value of the program."""
        return objective / self.scale + self.least

    def levels(self, x: Vector) -> Vector:
        """The columns of the groups."""
        return x[: self.whole]

    def rounded(self, x: Vector) -> tuple[int, ...]:
        """The heaviest level of every group."""
        return tuple(int(np.argmax(x[a:b])) for a, b in pairwise(self.starts))


@dataclass(frozen=True)
class Relaxed:
    """The linear program without integers.

    Attributes:
        x: All columns.
        upper: No choice is worth more.
        losses: What the bound falls by, at least, when a column is 1; per column of a group.
    """

    x: Vector
    upper: float
    losses: Vector


@dataclass(frozen=True)
class Searched:
    """What the exact search says: a choice, the proven upper bound of the value, or that no choice exists."""

    choice: tuple[int, ...] | None
    upper: float | None
    infeasible: bool


def program(problem: Problem, margin: float = 0.0) -> Program:
    """The problem as a linear program with integers.

    Args:
        margin: Share of each bound to stay below it.
    """
    limits = [Limit(x.name, separated(x.expression), x.bound) for x in problem.limits]
    counts = [len(levels) for levels in problem.levels] + [merge.count for merge in problem.merges]
    starts = np.cumsum([0, *counts])
    pair_start: dict[tuple[int, int], int] = {}
    size = int(starts[-1])
    used = [pair for limit in limits for pair in limit.expression.pairs]
    for v, w in dict.fromkeys([*((m.first, m.second) for m in problem.merges), *used]):
        pair_start[v, w] = size
        size += counts[v] * counts[w]
    groups = len(problem.levels)
    whole = int(starts[groups])
    gains = np.zeros(size)
    gains[:whole] = np.concatenate([values - values.min() for values in problem.values])
    scale = _VALUES / max(sum(float(v.max() - v.min()) for v in problem.values), 1e-300)
    ties, right = _ties(problem, counts, starts, pair_start, size)
    costs, room = _costs(limits, starts, pair_start, size, margin)
    least = float(sum(values.min() for values in problem.values))
    return Program(gains * scale, ties, right, costs, room, starts[: groups + 1], whole, scale, least)


def separated(expression: Expression) -> Expression:
    """The same cost with tables that are sums of two vectors moved to single variables."""
    constant, unary, pairs = expression.constant, dict(expression.unary), {}
    for (v, w), table in expression.pairs.items():
        first, second = table[:, 0] - table[0, 0], table[0, :]
        rest = table - first[:, None] - second[None, :]
        if np.abs(rest).max() > _SEPARABLE * max(np.abs(table).max(), 1e-300):
            pairs[v, w] = table
        else:
            unary[v] = unary.get(v, 0.0) + first
            unary[w] = unary.get(w, 0.0) + second
    return Expression(constant, unary, pairs, expression.merges)


def relaxed(found: Program, time_limit_s: float) -> Relaxed | None:
    """The relaxation's answer; None where it has none in time, `Relaxed.upper` is -inf where no choice exists."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        result = linprog(
            -found.gains,
            A_ub=found.costs,
            b_ub=found.room,
            A_eq=found.ties,
            b_eq=found.right,
            bounds=(0, None),
            method="highs",
            options={"time_limit": max(time_limit_s, 1e-3)},
        )
    if result.status == 2:
        return Relaxed(np.zeros(len(found.gains)), -np.inf, np.zeros(found.whole))
    if result.x is None or result.status != 0:
        return None
    losses = np.maximum(result.lower.marginals[: found.whole], 0.0) / found.scale
    return Relaxed(result.x, found.value(-result.fun), losses)


def searched(found: Program, gap: float, time_limit_s: float, gone: Flags | None = None) -> Searched:
    """The best choice by branch and bound.

    Args:
        gone: Per column of a group, whether its level is out of the question.
    """
    upper = np.ones(len(found.gains))
    if gone is not None:
        upper[: found.whole][gone] = 0.0
    result = milp(
        -found.gains,
        constraints=[
            LinearConstraint(found.ties, found.right, found.right),
            LinearConstraint(found.costs, -np.inf, found.room),
        ],
        integrality=np.r_[np.ones(found.whole), np.zeros(len(found.gains) - found.whole)],
        bounds=Bounds(0, upper),
        options={"mip_rel_gap": gap, "time_limit": max(time_limit_s, 1e-3)},
    )
    bound = getattr(result, "mip_dual_bound", None)
    proven = None if bound is None or not np.isfinite(bound) else found.value(-float(bound))
    if result.x is None:
        return Searched(None, proven, infeasible=result.status == 2)
    return Searched(found.rounded(result.x), proven, infeasible=False)


def cheapest(problem: Problem, time_limit_s: float) -> tuple[int, ...] | None:
    """The choice that costs least by the first limit, whatever its bound, and holds the others; None where none does.

    Also None where none is found in time.
    """
    found = program(problem)
    first = found.costs[[0], :].toarray()[0]
    asked = replace(found, gains=-_VALUES * first, costs=found.costs[1:, :], room=found.room[1:])
    return searched(asked, 1e-6, time_limit_s).choice


class _Rows:
    """A sparse matrix under construction, row by row."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: list[Vector] = []
        self.columns: list[Vector] = []
        self.entries: list[Vector] = []
        self.right: list[float] = []

    def add(self, columns: Vector, entries: Vector | float, right: float) -> None:
        self.rows.append(np.full(len(columns), len(self.right)))
        self.columns.append(columns)
        self.entries.append(np.broadcast_to(entries, len(columns)))
        self.right.append(right)

    def matrix(self) -> csr_array:
        if not self.rows:
            return csr_array((0, self.size))
        triplets = (np.concatenate(self.entries), (np.concatenate(self.rows), np.concatenate(self.columns)))
        return coo_array(triplets, shape=(len(self.right), self.size)).tocsr()


def _ties(
    problem: Problem, counts: Sequence[int], starts: Vector, pair_start: Mapping[tuple[int, int], int], size: int
) -> tuple[csr_array, Vector]:
    """One level per group, the marginals of every z, and the levels of merges."""
    rows = _Rows(size)
    for v in range(len(problem.levels)):
        rows.add(np.arange(starts[v], starts[v + 1]), 1.0, 1.0)
    for (v, w), first in pair_start.items():
        n, m = counts[v], counts[w]
        cells = first + np.arange(n * m).reshape(n, m)
        for i in range(n):
            rows.add(np.r_[cells[i], starts[v] + i], np.r_[np.ones(m), -1.0], 0.0)
        for j in range(m):
            rows.add(np.r_[cells[:, j], starts[w] + j], np.r_[np.ones(n), -1.0], 0.0)
    for place, merge in enumerate(problem.merges):
        first, start = pair_start[merge.first, merge.second], starts[len(problem.levels) + place]
        for state in range(merge.count):
            own = first + np.flatnonzero(merge.states.ravel() == state)
            rows.add(np.r_[own, start + state], np.r_[np.ones(len(own)), -1.0], 0.0)
    return rows.matrix(), np.array(rows.right)


def _costs(
    limits: Sequence[Limit], starts: Vector, pair_start: Mapping[tuple[int, int], int], size: int, margin: float
) -> tuple[csr_array, Vector]:
    rows = _Rows(size)
    for limit in limits:
        scale = 1 / abs(limit.bound) if limit.bound else 1.0
        parts = [(int(starts[v]), table) for v, table in limit.expression.unary.items()]
        parts += [(pair_start[pair], table.ravel()) for pair, table in limit.expression.pairs.items()]
        columns = [first + np.arange(len(table)) for first, table in parts]
        entries: list[Table] = [table * scale for _, table in parts]
        room = (limit.bound - limit.expression.constant) * scale - margin
        if parts:
            rows.add(np.concatenate(columns), np.concatenate(entries), room)
        else:
            rows.add(np.zeros(1, np.int64), 0.0, room)
    return rows.matrix(), np.array(rows.right)
