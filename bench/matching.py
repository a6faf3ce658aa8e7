"""Widths at a wanted latency: the uniform plan whose measured latency comes closest to that of a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.pruning.criteria.evidence import Scores
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan, uniform

Ratio = Callable[[Plan], float]  # measured latency of a plan over that of the reference
STEPS = (8, 4)
_SHARES = np.linspace(0.05, 1.0, 191)


@dataclass(frozen=True)
class Match:
    """A plan, its latency over the reference's, how it was found, and how many plans were timed on the way."""

    plan: Plan
    ratio: float
    how: str
    timed: int


def match_uniform(groups: ChannelGroups, scores: Scores, ratio: Ratio, tolerance: float) -> Match:
    """The uniform plan nearest to the reference's latency; the coarsest widths that come within `tolerance` win.

    First whole shares with widths in steps of 8, then of 4; last, groups are widened one by one from the plan just
    below to the one just above, in the order of execution.

    Args:
        tolerance: Relative distance that is near enough.
    """
    timed: dict[str, float] = {}

    def remembered(plan: Plan) -> float:
        key = plan.model_dump_json()
        if key not in timed:
            timed[key] = ratio(plan)
        return timed[key]

    tried: list[tuple[Plan, str]] = []
    for step in STEPS:
        low, high = neighbours(uniform_plans(groups, scores, step), remembered)
        tried += [(plan, f"step {step}") for plan in (low, high) if plan is not None]
        if any(abs(remembered(plan) - 1) <= tolerance for plan, _ in tried):
            break
    else:
        if low is not None and high is not None:
            near = neighbours(between(low, high), remembered)
            tried += [(plan, f"step {STEPS[-1]}, some groups wider") for plan in near if plan is not None]
    plan, how = min(tried, key=lambda one: abs(remembered(one[0]) - 1))
    return Match(plan, remembered(plan), how, len(timed))


def uniform_plans(groups: ChannelGroups, scores: Scores, step: int) -> list[Plan]:
    """All different uniform plans with widths in multiples of `step`, narrow to wide."""
    plans: dict[tuple[int, ...], Plan] = {}
    for share in _SHARES:
        plan = uniform(groups, float(share), step, scores)
        plans.setdefault(plan.widths(groups), plan)
    return list(plans.values())


def between(low: Plan, high: Plan) -> list[Plan]:
    """From `low` to `high`, one group more at its wider width each time."""
    plans = [low]
    for name, wide in high.keep.items():
        if wide != low.keep[name]:
            plans.append(Plan(keep={**plans[-1].keep, name: wide}))
    return plans


def neighbours(plans: Sequence[Plan], ratio: Ratio) -> tuple[Plan | None, Plan | None]:
    """By bisection, the widest plan that is no slower than the reference and the next wider one; None where there is
    none. `plans` ascend in latency."""
    first, last = 0, len(plans)  # first plan slower than the reference lies in this range
    while first < last:
        middle = (first + last) // 2
        if ratio(plans[middle]) > 1:
            last = middle
        else:
            first = middle + 1
    return plans[first - 1] if first else None, plans[first] if first < len(plans) else None
