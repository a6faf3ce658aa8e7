"""The budgeted solve: choose one width per group, most value within all limits.

A multiple-choice program with exact products of widths: for every
pair of groups that meet in an operator, z_ij stands for "g at level i and h at level j" and its two marginal sums
equal the choices, so bilinear costs are represented exactly, without big-M. HiGHS proves the gap.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

Vector = np.ndarray[Any, np.dtype[np.float64]]

_TOLERANCE = 1e-9  # relative; a choice within it holds a limit


@dataclass(frozen=True)
class Expression:
    """A cost as a function of the chosen levels: `constant + sum unary[g][i] + sum pairs[g, h][i, j]`."""

    constant: float
    unary: Mapping[int, Vector]
    pairs: Mapping[tuple[int, int], Vector]

    def plus(self, other: Expression, times: float = 1.0) -> Expression:
        """The sum of this cost and a multiple of another."""
        unary, pairs = dict(self.unary), dict(self.pairs)
        for g, table in other.unary.items():
            unary[g] = unary.get(g, 0.0) + times * table
        for key, table in other.pairs.items():
            pairs[key] = pairs.get(key, 0.0) + times * table
        return Expression(self.constant + times * other.constant, unary, pairs)

    def at(self, choice: Sequence[int]) -> float:
        """The cost when group g is at level `choice[g]`."""
        total = self.constant
        total += sum(table[choice[g]] for g, table in self.unary.items())
        return float(total + sum(table[choice[g], choice[h]] for (g, h), table in self.pairs.items()))


NOTHING = Expression(0.0, {}, {})


@dataclass(frozen=True)
class Limit:
    """`expression` must not exceed `bound`; `name` says what it is, such as `latency` or `ram at conv2`."""

    name: str
    expression: Expression
    bound: float

    def held(self, choice: Sequence[int]) -> bool:
        return self.expression.at(choice) <= self.bound + _TOLERANCE * abs(self.bound)


@dataclass(frozen=True)
class Problem:
    """Groups with allowed widths (ascending, the full width last), the value of each, and hard limits."""

    levels: tuple[tuple[int, ...], ...]
    values: tuple[Vector, ...]
    limits: tuple[Limit, ...]

    def value(self, choice: Sequence[int]) -> float:
        return float(sum(values[i] for values, i in zip(self.values, choice, strict=True)))

    def held(self, choice: Sequence[int]) -> bool:
        return all(limit.held(choice) for limit in self.limits)


@dataclass(frozen=True)
class Solution:
    """Chosen level per group. `gap` is the proven relative distance to the optimum; None when none was proven."""

    choice: tuple[int, ...]
    value: float
    gap: float | None
    seconds: float
    method: Literal["dense", "milp", "greedy"]


def solve(problem: Problem, gap: float = 1e-3, time_limit_s: float = 20.0) -> Solution | None:
    """The best choice that holds every limit, or None when none exists.

    The answer never violates a limit: what the solver returns is checked against the exact tables.

    Args:
        gap: Relative optimality gap at which the search may stop.
        time_limit_s: Then the incumbent is returned with its gap, or the greedy choice if there is none.
    """
    start = time.monotonic()
    dense = tuple(len(levels) - 1 for levels in problem.levels)
    if problem.held(dense):
        return Solution(dense, problem.value(dense), 0.0, time.monotonic() - start, "dense")
    exact = _milp(problem, gap, time_limit_s, margin=0.0)
    if exact.choice is not None and not problem.held(exact.choice):  # within HiGHS's tolerance, but over a limit
        exact = _milp(problem, gap, time_limit_s, margin=1e-6)
    if exact.infeasible:
        return None
    found = [c for c in (exact.choice,) if c is not None and problem.held(c)]
    method: Literal["milp", "greedy"] = "milp"
    if not found or exact.upper is None or exact.upper - problem.value(found[0]) > gap * abs(exact.upper):
        fallback = greedy(problem)  # nothing was found or proven in time
        if fallback is not None and (not found or fallback.value > problem.value(found[0])):
            found, method = [fallback.choice], "greedy"
    if not found:
        return None
    value = problem.value(found[0])
    proven = None if exact.upper is None else max(0.0, (exact.upper - value) / max(abs(exact.upper), 1e-300))
    return Solution(found[0], value, proven, time.monotonic() - start, method)


@dataclass(frozen=True)
class _Exact:
    """What the exact solver says: a choice, the proven upper bound of the value, or that no choice exists."""

    choice: tuple[int, ...] | None
    upper: float | None
    infeasible: bool


def _milp(problem: Problem, gap: float, time_limit_s: float, margin: float) -> _Exact:
    starts = np.cumsum([0, *(len(levels) for levels in problem.levels)])
    binaries = int(starts[-1])
    pair_start: dict[tuple[int, int], int] = {}
    size = binaries
    for limit in problem.limits:
        for pair, table in limit.expression.pairs.items():
            if pair not in pair_start:
                pair_start[pair] = size
                size += table.size
    # Values near a thousand and limits near one keep the solver's absolute tolerances meaningful.
    gains = np.concatenate([values - values.min() for values in problem.values])
    scale = 1e3 / max(sum(float(v.max() - v.min()) for v in problem.values), 1e-300)
    objective = np.zeros(size)
    objective[:binaries] = -gains * scale
    constraints = [_choices(problem, starts, pair_start, size), _limits(problem, starts, pair_start, size, margin)]
    result = milp(
        objective,
        constraints=constraints,
        integrality=np.r_[np.ones(binaries), np.zeros(size - binaries)],
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": gap, "time_limit": time_limit_s},
    )
    least = float(sum(values.min() for values in problem.values))
    bound = getattr(result, "mip_dual_bound", None)
    upper = None if bound is None or not np.isfinite(bound) else -float(bound) / scale + least
    if result.x is None:
        return _Exact(None, upper, infeasible=result.status == 2)
    x = result.x[:binaries]
    choice = tuple(int(np.argmax(x[a:b])) for a, b in pairwise(starts))
    return _Exact(choice, upper, infeasible=False)


def _choices(
    problem: Problem, starts: Vector, pair_start: Mapping[tuple[int, int], int], size: int
) -> LinearConstraint:
    """One level per group, and the marginals of every z equal the choices of its two groups."""
    rows: list[int] = []
    columns: list[int] = []
    entries: list[float] = []
    right: list[float] = []

    def add(terms: list[tuple[int, float]], value: float) -> None:
        for column, entry in terms:
            rows.append(len(right))
            columns.append(column)
            entries.append(entry)
        right.append(value)

    for a, b in pairwise(starts):
        add([(c, 1.0) for c in range(int(a), int(b))], 1.0)
    for (g, h), first in pair_start.items():
        n, m = len(problem.levels[g]), len(problem.levels[h])
        for i in range(n):
            add([(first + i * m + j, 1.0) for j in range(m)] + [(int(starts[g]) + i, -1.0)], 0.0)
        for j in range(m):
            add([(first + i * m + j, 1.0) for i in range(n)] + [(int(starts[h]) + j, -1.0)], 0.0)
    matrix = coo_array((entries, (rows, columns)), shape=(len(right), size)).tocsr()
    return LinearConstraint(matrix, right, right)


def _limits(
    problem: Problem, starts: Vector, pair_start: Mapping[tuple[int, int], int], size: int, margin: float
) -> LinearConstraint:
    matrix = np.zeros((len(problem.limits), size))
    upper = np.ones(len(problem.limits))
    for row, limit in enumerate(problem.limits):
        scale = 1 / abs(limit.bound) if limit.bound else 1.0
        for g, table in limit.expression.unary.items():
            matrix[row, int(starts[g]) : int(starts[g]) + len(table)] += table * scale
        for pair, table in limit.expression.pairs.items():
            matrix[row, pair_start[pair] : pair_start[pair] + table.size] += table.ravel() * scale
        upper[row] = (limit.bound - limit.expression.constant) * scale - margin
    return LinearConstraint(coo_array(matrix).tocsr(), -np.inf, upper)


def greedy(problem: Problem) -> Solution | None:
    """From dense, take the step that loses least value per unit of excess cost saved, any number of levels at once.

    Looking past the next level is what gets over flat stretches of a staircase of hardware steps. Then single groups
    are widened again while all limits hold. The lower bound every exact answer must beat.
    """
    start = time.monotonic()
    state = _Descent(problem)
    while (excess := state.excess()) > 0:
        best: tuple[float, int, int] | None = None
        for g, level in enumerate(state.choice):
            saved = excess - state.excess_at(g)[:level]
            lost = problem.values[g][level] - problem.values[g][:level]
            if not (saved > 0).any():
                continue
            price = np.where(saved > 0, lost / np.where(saved > 0, saved, 1.0), np.inf)
            cheapest = int(np.argmin(price))
            if best is None or price[cheapest] < best[0]:
                best = (float(price[cheapest]), g, cheapest)
        if best is None:
            return None
        state.move(best[1], best[2])
    state.widen()
    choice = tuple(state.choice)
    return Solution(choice, problem.value(choice), None, time.monotonic() - start, "greedy")


class _Descent:
    """The current choice, with the cost of every other level of every group kept up to date.

    `rows[l][g]` is what limit l would gain from group g at each of its levels, the other groups as they are.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.choice = [len(levels) - 1 for levels in problem.levels]
        self.rows: list[list[Vector]] = []
        self.totals: list[float] = []
        for limit in problem.limits:
            rows = [limit.expression.unary.get(g, np.zeros(len(levels))) for g, levels in enumerate(problem.levels)]
            for (g, h), table in limit.expression.pairs.items():
                rows[g] = rows[g] + table[:, self.choice[h]]
                rows[h] = rows[h] + table[self.choice[g], :]
            self.rows.append(rows)
            self.totals.append(limit.expression.at(self.choice))

    def excess(self) -> float:
        """Sum over limits of the relative amount above the bound."""
        return float(sum(max(0.0, _over(limit, total)) for limit, total in zip(self.problem.limits, self.totals)))

    def excess_at(self, g: int) -> Vector:
        """The excess at every level of group g."""
        total = np.zeros(len(self.problem.levels[g]))
        for limit, rows, now in zip(self.problem.limits, self.rows, self.totals):
            cost = now - rows[g][self.choice[g]] + rows[g]
            total += np.maximum(0.0, _over(limit, cost))
        return total

    def move(self, g: int, level: int) -> None:
        before = self.choice[g]
        self.choice[g] = level
        for number, limit in enumerate(self.problem.limits):
            rows = self.rows[number]
            self.totals[number] += float(rows[g][level] - rows[g][before])
            for (a, b), table in limit.expression.pairs.items():
                if a == g:
                    rows[b] = rows[b] + table[level, :] - table[before, :]
                elif b == g:
                    rows[a] = rows[a] + table[:, level] - table[:, before]

    def widen(self) -> None:
        """Raise single groups, largest gain first, while every limit holds."""
        while True:
            best: tuple[float, int, int] | None = None
            for g, level in enumerate(self.choice):
                gains = self.problem.values[g] - self.problem.values[g][level]
                fits = (self.excess_at(g) <= 0) & (gains > 0)
                fits[: level + 1] = False
                if fits.any():
                    top = int(np.argmax(np.where(fits, gains, -np.inf)))
                    if best is None or gains[top] > best[0]:
                        best = (float(gains[top]), g, top)
            if best is None or not self.problem.held([*self.choice[: best[1]], best[2], *self.choice[best[1] + 1 :]]):
                return
            self.move(best[1], best[2])


def _over(limit: Limit, cost: Any) -> Any:
    """Relative amount above the bound (negative below); works on numbers and arrays."""
    slack = (cost - limit.bound) / max(abs(limit.bound), 1e-300)
    return np.where(slack <= _TOLERANCE, np.minimum(slack, 0.0), slack)
