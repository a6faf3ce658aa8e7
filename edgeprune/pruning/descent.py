"""Choices that hold all limits, found by moving one group at a time: fast, never proven to be the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.pruning.problem import TOLERANCE, Expression, Limit, Problem, Solution, Vector, extended

_PASSES = 3  # over all groups, by which a choice is improved


def greedy(problem: Problem) -> Solution | None:
    """From the widest, take the step that loses least value per unit of excess saved, any number of levels at once.

    Looking past the next level is what gets over flat stretches of a staircase of hardware steps. Then single groups
    are widened again while all limits hold. The lower bound every exact answer must beat.
    """
    start = time.monotonic()
    state = Descent(problem, problem.widest)
    if not state.repair():
        return None
    state.widen()
    choice = tuple(state.choice)
    return Solution(choice, problem.value(choice), None, time.monotonic() - start, "greedy")


def improved(problem: Problem, choice: Sequence[int], until_s: float) -> tuple[int, ...] | None:
    """A choice that holds all limits, found from one that may not; None when none is found.

    Groups are widened one after the other, others give way for it, and what is gained is kept.

    Args:
        until_s: On the monotonic clock; then no further group is tried.
    """
    state = Descent(problem, choice)
    if not state.repair():
        return None
    state.widen()
    best, value = tuple(state.choice), problem.value(state.choice)
    for _ in range(_PASSES):
        before = value
        for g, levels in enumerate(problem.levels):
            for level in (best[g] + 1, best[g] + 2, best[g] - 1):
                if not 0 <= level < len(levels) or time.monotonic() > until_s:
                    continue
                state.go(best)
                state.move(g, level)
                if not state.repair(keep=g):
                    continue
                state.widen()
                reached = problem.value(state.choice)
                if reached > value * (1 + 1e-12) and problem.held(state.choice):
                    best, value = tuple(state.choice), reached
        if value <= before:
            break
    return best if problem.held(best) else None


class Descent:
    """A choice that is changed one group at a time, with the cost of every other level of every group."""

    def __init__(self, problem: Problem, choice: Sequence[int]) -> None:
        self.problem = problem
        self.choice = list(choice)
        self.parts = [_Part(problem, limit) for limit in problem.limits]
        self.touching = [[i for i, part in enumerate(self.parts) if g in part.terms] for g in range(len(choice))]
        self.go(choice)

    def go(self, choice: Sequence[int]) -> None:
        """Start from another choice."""
        for g in range(len(choice)):
            if self.choice[g] != choice[g]:
                self.choice[g] = choice[g]
                for i in self.touching[g]:
                    self.parts[i].forget(g)
        self.levels = extended(self.choice, self.problem.merges)
        self.totals = [part.total(self.levels) for part in self.parts]
        self.over = [_excess(part.limit, total) for part, total in zip(self.parts, self.totals)]

    def move(self, g: int, level: int) -> None:
        """Put one group at a level."""
        self.go([*self.choice[:g], level, *self.choice[g + 1 :]])

    def excess(self) -> float:
        """Sum over limits of the relative amount above the bound."""
        return sum(self.over)

    def excess_at(self, g: int) -> Vector:
        """The excess at every level of group g."""
        rest = sum(self.over) - sum(self.over[i] for i in self.touching[g])
        total = np.full(len(self.problem.levels[g]), max(rest, 0.0))
        for i in self.touching[g]:
            part = self.parts[i]
            total += np.maximum(0.0, _over(part.limit, self.totals[i] + part.change(g, self.choice, self.levels)))
        return total

    def repair(self, keep: int = -1) -> bool:
        """Narrow groups until all limits hold, cheapest first; False when there is no way from here.

        Args:
            keep: A group that stays as it is.
        """
        while (excess := self.excess()) > 0:
            best: tuple[float, int, int] | None = None
            for g, level in enumerate(self.choice):
                if g == keep or not self.touching[g]:
                    continue
                saved = excess - self.excess_at(g)
                lost = self.problem.values[g][level] - self.problem.values[g]
                useful = saved > 1e-15
                useful[level] = False
                if not useful.any():
                    continue
                price = np.where(useful, lost / np.where(useful, saved, 1.0), np.inf)
                cheapest = int(np.argmin(price))
                if best is None or price[cheapest] < best[0]:
                    best = (float(price[cheapest]), g, cheapest)
            if best is None:
                return False
            self.move(best[1], best[2])
        return True

    def widen(self) -> None:
        """Raise single groups, largest gain first, while every limit holds."""
        while True:
            best: tuple[float, int, int] | None = None
            for g, level in enumerate(self.choice):
                gains = self.problem.values[g] - self.problem.values[g][level]
                if not (gains > 0).any() or (best is not None and gains.max() <= best[0]):
                    continue
                fits = (self.excess_at(g) <= 0) & (gains > 0)
                if fits.any():
                    top = int(np.argmax(np.where(fits, gains, -np.inf)))
                    if best is None or gains[top] > best[0]:
                        best = (float(gains[top]), g, top)
            if best is None or not self.problem.held([*self.choice[: best[1]], best[2], *self.choice[best[1] + 1 :]]):
                return
            self.move(best[1], best[2])


class _Part:
    """One limit, and which of its terms each group touches, directly or through merges."""

    def __init__(self, problem: Problem, limit: Limit) -> None:
        self.limit = limit
        self.merges = problem.merges
        self.count = len(problem.levels)
        self.sizes = [len(levels) for levels in problem.levels]
        follows: list[set[int]] = [{g} for g in range(self.count)]  # the groups that a variable depends on
        for merge in self.merges:
            follows.append(follows[merge.first] | follows[merge.second])
        expression = limit.expression
        self.terms: dict[int, list[tuple[int, ...]]] = {}
        self.near: dict[int, set[int]] = {}  # groups that meet in a term
        for term in [*((v,) for v in expression.unary), *expression.pairs]:
            groups = set().union(*(follows[v] for v in term))
            for g in groups:
                self.terms.setdefault(g, []).append(term)
                self.near.setdefault(g, set()).update(groups)
        self.changes: dict[int, Vector] = {}

    def total(self, levels: Sequence[Any]) -> float:
        expression: Expression = self.limit.expression
        total = expression.constant + sum(table[levels[v]] for v, table in expression.unary.items())
        return float(total + sum(table[levels[v], levels[w]] for (v, w), table in expression.pairs.items()))

    def forget(self, g: int) -> None:
        """A group has moved, which changes what the groups it meets would cost."""
        for other in self.near[g]:
            self.changes.pop(other, None)

    def change(self, g: int, choice: Sequence[int], levels: Sequence[Any]) -> Vector:
        """By how much the cost would change with group g at each of its levels."""
        if g not in self.changes:
            moved: list[Any] = list(choice)
            moved[g] = np.arange(self.sizes[g])
            moved = extended(moved, self.merges)
            change = np.zeros(self.sizes[g])
            for term in self.terms[g]:
                change = change + self._value(term, moved) - self._value(term, levels)
            self.changes[g] = change
        return self.changes[g]

    def _value(self, term: tuple[int, ...], levels: Sequence[Any]) -> Any:
        if len(term) == 1:
            return self.limit.expression.unary[term[0]][levels[term[0]]]
        return self.limit.expression.pairs[term[0], term[1]][levels[term[0]], levels[term[1]]]


def _over(limit: Limit, cost: Any) -> Any:
    """Relative amount above the bound (negative below); works on numbers and arrays."""
    slack = (cost - limit.bound) / max(abs(limit.bound), 1e-300)
    return np.where(slack <= TOLERANCE, np.minimum(slack, 0.0), slack)


def _excess(limit: Limit, cost: float) -> float:
    return max(0.0, float(_over(limit, cost)))
