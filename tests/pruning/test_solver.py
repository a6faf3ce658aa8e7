"""The solve against brute force, its promises, and its tables against the graph they stand for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.device.fusion import fuse
from edgeprune.device.memory import live_totals, memory_plan, tensor_elements
from edgeprune.device.ops import Op
from edgeprune.pruning.descent import greedy
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.limits import ram_limits, tabulate, width_levels
from edgeprune.pruning.plan import Plan, aligned, apply, best_channels, uniform
from edgeprune.pruning.problem import Expression, Limit, Problem
from edgeprune.pruning.solver import solve
from edgeprune.pruning.trace import trace
from tests.pruning.nets import NETS, randomised


def random_problem(seed: int, tightness: float) -> Problem:
    """A small network of groups that meet in bilinear kernels, with staircase costs and two limits."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 5))
    levels = tuple(tuple(range(4, 4 * int(rng.integers(2, 5)) + 1, 4)) for _ in range(count))
    values = tuple(np.cumsum(np.sort(rng.gamma(0.5, 1, len(own)))[::-1]) for own in levels)
    pairs = {}
    for g, h in itertools.pairwise(range(count)):
        pairs[g, h] = np.outer(np.ceil(np.array(levels[g]) / 8), np.ceil(np.array(levels[h]) / 8)) * rng.random()
    unary = {g: np.array(levels[g]) * rng.random() for g in range(count)}
    dense = [len(own) - 1 for own in levels]
    time = Expression(float(rng.random()), unary, pairs)
    room = Expression(0.0, {0: np.array(levels[0], float), count - 1: np.array(levels[-1], float)}, {})
    limits = (
        Limit("latency", time, tightness * time.at(dense)),
        Limit("ram", room, 0.8 * room.at(dense)),
    )
    return Problem(levels, values, limits)


def brute_force(problem: Problem) -> float | None:
    choices = itertools.product(*(range(len(own)) for own in problem.levels))
    return max((problem.value(choice) for choice in choices if problem.held(choice)), default=None)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), tightness=st.floats(0.05, 0.99))
def test_the_solve_is_optimal_and_never_breaks_a_limit(seed: int, tightness: float) -> None:
    problem = random_problem(seed, tightness)
    best, found = brute_force(problem), solve(problem, gap=1e-6)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert problem.held(found.choice)
    assert found.value == pytest.approx(best, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), tightness=st.floats(0.05, 0.99))
def test_greedy_holds_the_limits_and_is_never_better(seed: int, tightness: float) -> None:
    problem = random_problem(seed, tightness)
    best, found = brute_force(problem), greedy(problem)
    if found is not None:
        assert best is not None
        assert problem.held(found.choice)
        assert found.value <= best + 1e-9


def test_a_budget_above_the_dense_cost_keeps_everything() -> None:
    problem = random_problem(1, 0.5)
    loose = Problem(problem.levels, problem.values, tuple(Limit(x.name, x.expression, 1e9) for x in problem.limits))
    found = solve(loose)
    assert found is not None
    assert found.method == "dense"
    assert found.choice == tuple(len(own) - 1 for own in problem.levels)


def test_a_time_limit_still_gives_a_choice_that_holds() -> None:
    problem = random_problem(5, 0.6)
    found = solve(problem, gap=0.0, time_limit_s=1e-9)
    assert found is not None
    assert problem.held(found.choice)


def seconds(op: Op) -> float:
    """A cost that is bilinear in the widths, as device models are."""
    return op.macs * 3e-9 + (op.in_elements + 2 * op.out_elements) * 1e-9 + op.weights * 2e-9 + 1e-5


@pytest.mark.parametrize("name", sorted(set(NETS) - {"shuffled"}))  # its transposes are priced by one of two axes
def test_tables_say_what_the_planned_graph_costs(name: str) -> None:
    groups = channel_groups(trace(randomised(NETS[name]), torch.zeros(1, 3, 16, 16)).graph)
    ops = fuse(groups.graph)
    levels = width_levels(groups, 2, 0.1)
    expression = tabulate(ops, groups, levels, seconds)
    rng = np.random.default_rng(0)
    for _ in range(5):
        choice = [int(rng.integers(len(own))) for own in levels]
        plan = Plan(
            keep={
                group.name: best_channels(own[level], group.width, rng.random(group.width))
                for group, own, level in zip(groups.groups, levels, choice, strict=True)
            }
        )
        exact = sum(seconds(op) for op in fuse(apply(plan, groups)))
        assert expression.at(choice) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["residual", "dense_block", "inverted_residual", "padded_shortcut"])
def test_ram_limits_bind_exactly_where_the_peak_does(name: str, in_place: bool) -> None:
    groups = channel_groups(trace(randomised(NETS[name]), torch.zeros(1, 3, 16, 16)).graph)
    ops = fuse(groups.graph)
    levels = width_levels(groups, 2, 0.1)
    bound = 0.7 * max(live_totals(ops, tensor_elements(ops), in_place))
    limits = ram_limits(ops, groups, levels, 1, bound, in_place=in_place)
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(20):
        choice = [int(rng.integers(len(own))) for own in levels]
        keep = {
            group.name: tuple(range(own[level]))
            for group, own, level in zip(groups.groups, levels, choice, strict=True)
        }
        planned = fuse(apply(Plan(keep=keep), groups))
        peak = max(live_totals(planned, tensor_elements(planned), in_place))
        held = all(limit.held(choice) for limit in limits)
        assert held == (peak <= bound)
        assert memory_plan(planned, in_place=in_place, alignment=1).total_bytes >= peak
        seen.add(held)
    assert True in seen


def test_levels_are_steps_up_to_the_full_width() -> None:
    groups = channel_groups(trace(randomised(NETS["plain"]), torch.zeros(1, 3, 16, 16)).graph)
    assert width_levels(groups, 8, 0.1) == ((8, 16), (8, 16, 24))
    assert width_levels(groups, 32, 0.1) == ((16,), (24,))
    assert all(len(own) <= 16 for own in width_levels(groups, 1, 0.0))


def test_uniform_plans_keep_the_best_channels_on_the_step() -> None:
    groups = channel_groups(trace(randomised(NETS["plain"]), torch.zeros(1, 3, 16, 16)).graph)
    scores = {group.name: np.arange(group.width)[::-1].astype(float) for group in groups.groups}
    plan = uniform(groups, 0.5, 4, scores)
    assert plan.keep == {"0.0": tuple(range(8)), "1.0": tuple(range(12))}
    assert aligned(3, 24, 8) == 8


def test_tables_give_the_dense_cost_at_full_width() -> None:
    groups = channel_groups(trace(randomised(NETS["plain"]), torch.zeros(1, 3, 16, 16)).graph)
    ops = fuse(groups.graph)
    levels = width_levels(groups, 8, 0.1)
    expression = tabulate(ops, groups, levels, seconds)
    assert expression.at([len(own) - 1 for own in levels]) == pytest.approx(sum(map(seconds, ops)))
