"""Solves of whole networks against brute force: concatenations, depthwise layers, removed blocks, several limits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.device.fusion import fuse
from edgeprune.device.ops import Op
from edgeprune.pruning.allocation import Bounds, Costing, holds, most_valuable, plan_at, problem_of, score_values
from edgeprune.pruning.descent import greedy
from edgeprune.pruning.limits import Levels, Merges, tabulate, width_levels
from edgeprune.pruning.plan import Plan, apply
from edgeprune.pruning.problem import Merge, extended
from tests.pruning.test_allocation import costing, scores_of

NAMES = ["residual", "dense_block", "inverted_residual", "padded_shortcut", "squeeze_excite"]


def staircase(op: Op) -> float:
    """A cost as of kernels that work on tiles of four channels: linear in nothing."""
    return -(-op.in_channels // 4) * -(-op.out_channels // 4) * (1 + op.kernel) + op.out_positions / 64 + 3.0


def few(levels: Levels, most: int) -> Levels:
    """At most so many levels per group, the narrowest and the widest among them."""
    return tuple(tuple(w[i] for i in sorted({0, *range(len(w) - most + 1, len(w))}) if i >= 0) for w in levels)


def plans(found: Costing, levels: Levels) -> list[tuple[tuple[int, ...], Plan]]:
    choices = itertools.product(*(range(len(widths)) for widths in levels))
    return [(choice, plan_at(found.groups, levels, choice, None)) for choice in choices]


@pytest.mark.parametrize("name", NAMES)
def test_costs_of_any_shape_are_exact_tables(name: str) -> None:
    found = costing(name)
    levels = few(width_levels(found.groups, 2, 0.3, blocks=True), 3)
    said = tabulate(found.ops, found.groups, levels, staircase)
    everything = plans(found, levels)
    rng = np.random.default_rng(0)
    for i in rng.choice(len(everything), min(60, len(everything)), replace=False):
        choice, plan = everything[i]
        real = sum(staircase(op) for op in fuse(apply(plan, found.groups)))
        assert said.at(choice) == pytest.approx(real), plan.widths(found.groups)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.2, 0.8))
def test_a_plan_under_several_limits_is_the_best_of_all_plans(name: str, seed: int, share: float) -> None:
    found = costing(name)
    levels = few(width_levels(found.groups, 4, 0.3, blocks=True), 3)
    scores = scores_of(found, seed)
    values = score_values(found.groups, levels, scores)
    costs = {choice: found.of(plan) for choice, plan in plans(found, levels)}
    low, high = costs[(0,) * len(levels)].cost, costs[tuple(len(w) - 1 for w in levels)].cost
    bounds = Bounds(
        **{
            key: getattr(low, key) + share * (getattr(high, key) - getattr(low, key))
            for key in ("latency_s", "ram_bytes", "size_bytes", "macs")
        }
    )
    worth = {
        choice: sum(float(values[g.name][i]) for g, i in zip(found.groups.groups, choice))
        for choice, cost in costs.items()
        if holds(bounds, cost)
    }
    best = most_valuable("score", found, bounds, levels, values, scores, 1e-7, 20.0)
    assert best is not None and holds(bounds, best.predicted)
    chosen = tuple(w.index(n) for w, n in zip(levels, best.plan.widths(found.groups)))
    problem = problem_of(found, bounds, levels, values)
    exact = max(value for choice, value in worth.items())
    solvable = max(problem.value(choice) for choice in costs if problem.held(choice))
    assert worth[chosen] <= exact + 1e-9
    assert worth[chosen] == pytest.approx(solvable) or worth[chosen] == pytest.approx(exact)
    other = greedy(problem)
    assert other is None or other.value <= solvable + 1e-9


def test_merges_follow_their_variables() -> None:
    levels = ((0, 2, 4), (1, 2), (2, 4))
    merges = Merges(levels)
    merge = Merge(0, 1, np.array([[0, 1], [2, 2], [1, 0]]))
    assert merge.count == 3
    assert extended((1, 0, 1), (merge,)) == [1, 0, 1, 2]
    assert [int(x) for x in extended((np.arange(3), 1, 0), (merge,))[3]] == [1, 2, 0]
    assert merges.found == []


def test_corrections_move_limits_with_the_costs() -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 4, 0.3)
    values = score_values(found.groups, levels, scores_of(found, 0))
    bent = replace(found, correction=found.correction.model_copy(update={"ram_bytes": 500, "size_bytes": 300}))
    cost = bent.of_ops(bent.ops).cost
    assert cost.size_bytes is not None and cost.ram_bytes is not None
    tight = Bounds(size_bytes=cost.size_bytes - 1)
    assert not problem_of(bent, tight, levels, values).held([len(w) - 1 for w in levels])
    assert problem_of(bent, Bounds(size_bytes=cost.size_bytes), levels, values).held([len(w) - 1 for w in levels])
