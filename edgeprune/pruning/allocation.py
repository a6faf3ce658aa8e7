"""Allocations: ways to spend a budget over the groups, as plans that hold every limit.

Three are made and raced: most summed score, least measured damage, and uniform widths. None of them wins everywhere
(summed scores empty the residual stream under hard budgets), so none is trusted unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgeprune.cost import Correction, Measurement
from edgeprune.device.corrected import Corrected
from edgeprune.device.estimate import ELEMENT_BYTES, as_run, counts_process, estimate, fixed_bytes, op_bytes
from edgeprune.device.fusion import fuse
from edgeprune.device.latency import DeviceModel, besides_s
from edgeprune.device.memory import WEIGHT_COPIES, overwrites
from edgeprune.device.ops import Op
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.limits import Levels, Merges, ram_limits, tabulate
from edgeprune.pruning.plan import Plan, apply, best_channels, uniform
from edgeprune.pruning.problem import NOTHING, Limit, Problem, Vector
from edgeprune.pruning.solver import solve
from edgeprune.target import Target

_TIGHTENINGS = 5
_BISECTIONS = 12


@dataclass(frozen=True)
class Bounds:
    """What a plan may cost by the corrected device model; None is unlimited."""

    latency_s: float | None = None
    ram_bytes: float | None = None
    size_bytes: float | None = None
    macs: float | None = None


@dataclass(frozen=True)
class Costing:
    """Everything needed to say what a plan costs on a target, without touching the model.

    Attributes:
        ops: The dense model's fused operators.
        latency: The device model before any correction; None where there is none.
        correction: What earlier rounds taught about it.
    """

    groups: ChannelGroups
    ops: tuple[Op, ...]
    target: Target
    runtime: str
    threads: int
    precision: str
    latency: DeviceModel | None
    correction: Correction

    @property
    def model(self) -> Corrected | None:
        """The corrected device model."""
        return None if self.latency is None else Corrected(self.latency, self.correction)

    def of_ops(self, ops: Sequence[Op]) -> Measurement:
        """The corrected estimate of fused operators."""
        plain = estimate(ops, self.target, self.runtime, self.precision, self.threads, self.model)
        cost = plain.cost
        assert cost.ram_bytes is not None and cost.size_bytes is not None
        update: dict[str, object] = {
            "ram_bytes": cost.ram_bytes + self.correction.ram_bytes,
            "size_bytes": cost.size_bytes + self.correction.size_bytes,
        }
        return plain.model_copy(update={"cost": cost.model_copy(update=update)})

    def of(self, plan: Plan) -> Measurement:
        """The corrected estimate of a plan, from the graph it leads to."""
        return self.of_ops(fuse(apply(plan, self.groups)))


@dataclass(frozen=True)
class Allocation:
    """A plan and how it was found. `gap` is the solver's proven distance to the optimum, None when there is none."""

    name: str
    plan: Plan
    predicted: Measurement
    gap: float | None
    seconds: float


def holds(bounds: Bounds, predicted: Measurement) -> bool:
    """Whether a predicted cost is within all bounds."""
    cost = predicted.cost
    pairs = (
        (cost.latency_s, bounds.latency_s),
        (cost.ram_bytes, bounds.ram_bytes),
        (cost.size_bytes, bounds.size_bytes),
        (cost.macs, bounds.macs),
    )
    return all(limit is None or (needs is not None and needs <= limit) for needs, limit in pairs)


def most_valuable(
    name: str,
    costing: Costing,
    bounds: Bounds,
    levels: Levels,
    values: Mapping[str, Vector],
    scores: Mapping[str, Vector],
    gap: float,
    time_limit_s: float,
) -> Allocation | None:
    """The widths of most summed value within the bounds; inside a group the best-scored channels stay.

    The tables are exact but for RAM, which they bound from below, and what a removed block frees of it; the plan's true
    cost is checked and the bound tightened by what it misses, so that the answer holds the bounds.

    Args:
        values: (levels,) per group, larger is better.
        scores: (channels,) per group.
    """
    tightened = bounds
    for _ in range(_TIGHTENINGS):
        problem = problem_of(costing, tightened, levels, values)
        solution = solve(problem, gap, time_limit_s)
        if solution is None:
            return None
        plan = plan_at(costing.groups, levels, solution.choice, scores)
        predicted = costing.of(plan)
        if holds(bounds, predicted):
            return Allocation(name, plan, predicted, solution.gap, solution.seconds)
        tightened = _tighter(tightened, bounds, predicted)
    return None


def uniform_within(
    costing: Costing,
    bounds: Bounds,
    scores: Mapping[str, Vector],
    step: int,
    min_keep: float,
    levels: Levels | None = None,
) -> Allocation | None:
    """The widest plan within the bounds that is as uniform as the step allows.

    One share for every group, rounded to the step; where the next share would take several groups over the bounds
    together, as many of them as fit are a step wider, in order.

    Args:
        levels: No group gets narrower or wider than its levels, but for none at all.
    """

    def plan_of(share: float) -> Plan:
        return _clipped(uniform(costing.groups, share, step, scores), costing.groups, levels, scores)

    def at(share: float) -> Allocation:
        return of(plan_of(share))

    def of(plan: Plan) -> Allocation:
        return Allocation("uniform", plan, costing.of(plan), None, 0.0)

    best, low, high = at(min_keep), min_keep, 1.0
    if not holds(bounds, best.predicted):
        return None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tried = at(middle)
        if holds(bounds, tried.predicted):
            best, low = tried, middle
        else:
            high = middle
    for name, wider in plan_of(high).keep.items():
        if len(wider) > len(best.plan.keep[name]):
            tried = of(best.plan.model_copy(update={"keep": {**best.plan.keep, name: wider}}))
            if holds(bounds, tried.predicted):
                best = tried
    return best


def _clipped(plan: Plan, groups: ChannelGroups, levels: Levels | None, scores: Mapping[str, Vector]) -> Plan:
    keep = dict(plan.keep)
    for group, widths in zip(groups.groups, levels or ()):
        least, most = next((k for k in widths if k), 0), widths[-1]
        width = min(max(len(keep[group.name]), least), most)
        keep[group.name] = best_channels(width, group.width, scores[group.name])
    return plan.model_copy(update={"keep": keep})


def smallest(costing: Costing, levels: Levels) -> Measurement:
    """The predicted cost of the narrowest allowed plan."""
    return costing.of(smallest_plan(costing, levels))


def smallest_plan(costing: Costing, levels: Levels) -> Plan:
    """Every group at its narrowest allowed width."""
    return plan_at(costing.groups, levels, [0] * len(levels), None)


def score_values(groups: ChannelGroups, levels: Levels, scores: Mapping[str, Vector]) -> dict[str, Vector]:
    """Summed score that stays at each level."""
    values = {}
    for group, widths in zip(groups.groups, levels, strict=True):
        total = np.concatenate([[0.0], np.cumsum(np.sort(scores[group.name])[::-1])])
        values[group.name] = total[list(widths)]
    return values


def plan_at(groups: ChannelGroups, levels: Levels, choice: Sequence[int], scores: Mapping[str, Vector] | None) -> Plan:
    """The plan that puts every group at a level; inside a group the best-scored channels stay."""
    keep = {}
    for group, widths, level in zip(groups.groups, levels, choice, strict=True):
        keep[group.name] = best_channels(widths[level], group.width, None if scores is None else scores[group.name])
    return Plan(keep=keep)


def problem_of(costing: Costing, bounds: Bounds, levels: Levels, values: Mapping[str, Vector]) -> Problem:
    """The choice of levels as the solver takes it; RAM by what an arena needs at least, step by step."""
    groups, ops, merges = costing.groups, as_run(costing.ops, costing.runtime), Merges(levels)
    limits: list[Limit] = []
    if bounds.latency_s is not None and costing.model is not None:
        room_s = bounds.latency_s - besides_s(costing.model, ops)
        limits.append(Limit("latency", tabulate(ops, groups, levels, costing.model.op_s, merges), room_s))
    sized = partial(op_bytes, precision=costing.precision, model=costing.latency)
    size = tabulate(ops, groups, levels, sized, merges)
    file_bytes = fixed_bytes(ops, costing.latency)
    if bounds.size_bytes is not None:
        limits.append(Limit("size", size, bounds.size_bytes - costing.correction.size_bytes - file_bytes))
    if bounds.macs is not None:
        limits.append(Limit("MACs", tabulate(ops, groups, levels, _macs, merges), bounds.macs))
    if bounds.ram_bytes is not None:
        room, held = bounds.ram_bytes - costing.correction.ram_bytes, NOTHING
        if counts_process(costing.target):
            held = NOTHING.plus(size, WEIGHT_COPIES)
            room -= WEIGHT_COPIES * file_bytes
        element, in_place = ELEMENT_BYTES[costing.precision], overwrites(costing.runtime)
        limits.extend(ram_limits(ops, groups, levels, element, room, held, in_place))
    return Problem(levels, tuple(values[group.name] for group in groups.groups), tuple(limits))


def _macs(op: Op) -> float:
    return op.macs


def _tighter(current: Bounds, wanted: Bounds, predicted: Measurement) -> Bounds:
    """Shrink each missed bound by the share it was missed by, and a little more."""

    def shrink(bound: float | None, limit: float | None, needs: float | None) -> float | None:
        if bound is None or limit is None or needs is None or needs <= limit:
            return bound
        return bound * limit / needs * 0.999

    cost = predicted.cost
    return replace(
        current,
        latency_s=shrink(current.latency_s, wanted.latency_s, cost.latency_s),
        ram_bytes=shrink(current.ram_bytes, wanted.ram_bytes, cost.ram_bytes),
        size_bytes=shrink(current.size_bytes, wanted.size_bytes, cost.size_bytes),
        macs=shrink(current.macs, wanted.macs, cost.macs),
    )
