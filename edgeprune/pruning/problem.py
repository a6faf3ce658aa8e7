"""The budgeted choice of widths as values: costs as functions of levels, limits on them, and what a solve returns.

Variables are numbered: first the groups, whose level is chosen, then *merges*, whose level follows from two earlier
variables. A merge stands for what an operator sees of several groups at once, such as the summed width of a
concatenation, so that a cost of any shape is a table over at most two variables, and exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

Vector = np.ndarray[Any, np.dtype[np.float64]]
Table = np.ndarray[Any, np.dtype[np.float64]]  # (levels of one variable, levels of another)
States = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

TOLERANCE = 1e-9  # relative; a choice within it holds a limit


@dataclass(frozen=True, eq=False)
class Merge:
    """A variable at level `states[i, j]` when `first` is at level i and `second` at level j."""

    first: int
    second: int
    states: States

    @cached_property
    def count(self) -> int:
        """How many levels it has."""
        return int(self.states.max()) + 1


def extended(choice: Sequence[int], merges: Sequence[Merge]) -> list[Any]:
    """The levels of all variables, given those of the groups: numbers, or arrays of the same length."""
    levels: list[Any] = list(choice)
    for merge in merges:
        levels.append(merge.states[levels[merge.first], levels[merge.second]])
    return levels


@dataclass(frozen=True)
class Expression:
    """A cost as a function of levels: `constant + sum unary[v][i] + sum pairs[v, w][i, j]`.

    Attributes:
        merges: All merges that it may name, those of the same program in the same order.
    """

    constant: float
    unary: Mapping[int, Vector]
    pairs: Mapping[tuple[int, int], Vector]
    merges: tuple[Merge, ...] = ()

    def plus(self, other: Expression, times: float = 1.0) -> Expression:
        """The sum of this cost and a multiple of another over the same variables."""
        unary, pairs = dict(self.unary), dict(self.pairs)
        for v, table in other.unary.items():
            unary[v] = unary.get(v, 0.0) + times * table
        for key, table in other.pairs.items():
            pairs[key] = pairs.get(key, 0.0) + times * table
        merges = max(self.merges, other.merges, key=len)
        return Expression(self.constant + times * other.constant, unary, pairs, merges)

    def at(self, choice: Sequence[int]) -> float:
        """The cost when group g is at level `choice[g]`."""
        levels = extended(choice, self.merges)
        total = self.constant
        total += sum(table[levels[v]] for v, table in self.unary.items())
        return float(total + sum(table[levels[v], levels[w]] for (v, w), table in self.pairs.items()))


NOTHING = Expression(0.0, {}, {})


@dataclass(frozen=True)
class Limit:
    """`expression` must not exceed `bound`; `name` says what it is, such as `latency` or `ram at conv2`."""

    name: str
    expression: Expression
    bound: float

    def held(self, choice: Sequence[int]) -> bool:
        return self.expression.at(choice) <= self.bound + TOLERANCE * abs(self.bound)


@dataclass(frozen=True)
class Problem:
    """Groups with allowed widths (ascending, the widest last), the value of each, and hard limits."""

    levels: tuple[tuple[int, ...], ...]
    values: tuple[Vector, ...]
    limits: tuple[Limit, ...]

    @cached_property
    def merges(self) -> tuple[Merge, ...]:
        """The merges that the limits name."""
        return max((limit.expression.merges for limit in self.limits), key=len, default=())

    @property
    def widest(self) -> tuple[int, ...]:
        """Every group at its widest level."""
        return tuple(len(levels) - 1 for levels in self.levels)

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
    method: Literal["dense", "greedy", "relaxed", "milp"]
