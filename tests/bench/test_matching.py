"""The plan nearest to a wanted latency is found, with few timings."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.matching import between, match_uniform, neighbours, uniform_plans
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.trace import trace
from tests.pruning.nets import NETS, randomised


@cache
def groups() -> ChannelGroups:
    return channel_groups(trace(randomised(NETS["squeeze_excite"]), torch.zeros(1, 3, 16, 16)).graph)


def scores() -> dict[str, np.ndarray]:
    return {group.name: np.arange(group.width, dtype=np.float64) for group in groups().groups}


def channels(plan: Plan) -> int:
    return sum(plan.widths(groups()))


def test_uniform_plans_ascend_and_differ() -> None:
    for step in (8, 4, 2):
        plans = uniform_plans(groups(), scores(), step)
        widths = [plan.widths(groups()) for plan in plans]
        assert len(set(widths)) == len(widths) > 1
        assert all(a <= b for narrow, wide in pairwise(widths) for a, b in zip(narrow, wide))
        assert widths[-1] == tuple(group.width for group in groups().groups)


def test_the_best_scored_channels_stay() -> None:
    plan = uniform_plans(groups(), scores(), 4)[0]
    for group in groups().groups:
        kept = plan.keep[group.name]
        assert kept == tuple(range(group.width - len(kept), group.width))


def test_between_two_plans_one_group_more_is_wide_each_time() -> None:
    low, high = (uniform_plans(groups(), scores(), 4)[i] for i in (0, -1))
    steps = between(low, high)
    assert steps[0] == low and steps[-1] == high
    assert [channels(plan) for plan in steps] == sorted({channels(plan) for plan in steps})


@given(limit=st.integers(0, 40))
def test_bisection_finds_the_last_plan_that_is_no_slower(limit: int) -> None:
    plans = uniform_plans(groups(), scores(), 1)
    low, high = neighbours(plans, lambda plan: channels(plan) / max(limit, 1))
    assert low is None or channels(low) <= limit
    assert high is None or channels(high) > limit
    if low is not None and high is not None:
        assert plans.index(high) == plans.index(low) + 1


@given(wanted=st.integers(12, 36))
def test_the_match_is_at_least_as_near_as_any_uniform_plan_in_steps_of_eight(wanted: int) -> None:
    timed: list[Plan] = []

    def ratio(plan: Plan) -> float:
        timed.append(plan)
        return channels(plan) / wanted

    match = match_uniform(groups(), scores(), ratio, 0.02)
    assert match.ratio == channels(match.plan) / wanted
    assert (
        abs(match.ratio - 1)
        <= min([abs(channels(plan) / wanted - 1) for plan in uniform_plans(groups(), scores(), 8)] + [np.inf])
        or abs(match.ratio - 1) <= 0.02
    )
    assert match.timed == len(timed) <= 12


def test_no_plan_is_timed_twice_and_coarse_widths_are_preferred() -> None:
    wanted = channels(uniform_plans(groups(), scores(), 8)[0])
    match = match_uniform(groups(), scores(), lambda plan: channels(plan) / wanted, 0.02)
    assert match.how == "step 8" and match.ratio == pytest.approx(1)
