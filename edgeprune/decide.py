"""After each round: accept, retry with a corrected device model, or give up. Pure: no clock, no files, no device.

What the solver promised (`predicted`) and what the exported file then cost (`profiled`) come by two paths; their
ratio corrects the model for the next solve. The loop always ends: rounds are counted, and each round is confirmed
at most once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgeprune.cost import Budget, Correction, Cost, Violation
from edgeprune.values import Value

# A met latency this far below its limit is worth another round, as long as one is left and nothing else binds.
SLACK = 0.05
_MOST_PER_ROUND = 4.0  # a correction beyond this factor is taken in steps: one wild profile must not decide alone
_APART = 0.1  # relative distance from which two estimates give a line worth trusting


class Round(Value):
    """One round of the loop.

    Attributes:
        correction: What the plan was solved with.
        predicted: The plan's cost by the corrected model.
        profiled: The exported file's cost.
        confirmed: `profiled` is of the final, trained file.
        widest: No wider plan exists: every channel stays.
    """

    correction: Correction
    predicted: Cost
    profiled: Cost
    confirmed: bool = False
    widest: bool = False


class Accept(Value):
    """This round meets the budget."""

    kind: Literal["accept"] = "accept"
    round: int
    reason: str


class Retry(Value):
    """Solve again with this correction."""

    kind: Literal["retry"] = "retry"
    correction: Correction
    reason: str


class GiveUp(Value):
    """No round meets the budget and none is left; `round` comes closest."""

    kind: Literal["give-up"] = "give-up"
    round: int
    violations: tuple[Violation, ...]
    reason: str


Decision = Accept | Retry | GiveUp


def decide(budget: Budget, history: Sequence[Round], rounds: int, anchors: Sequence[Round] = ()) -> Decision:
    """What to do after the rounds so far.

    Args:
        history: At least one round, in order.
        anchors: Other models of the same family that were profiled, such as the dense one.
        rounds: The most rounds that may be played.
    """
    met = [i for i, played in enumerate(history) if not budget.violations(played.profiled)]
    last = history[-1]
    done = [i for i in met if history[i].confirmed]
    if done:
        return Accept(round=done[-1], reason="confirmed on the final file")
    left = len(history) < rounds
    if len(history) - 1 in met and (not left or last.widest or not _far_below(budget, last.profiled)):
        return Accept(round=len(history) - 1, reason="within budget")
    if left:
        reason = "far below the budget" if len(history) - 1 in met else "over budget"
        return Retry(correction=corrected(last, [*anchors, *history[:-1]]), reason=reason)
    if met:  # the last round missed, an earlier one holds
        best = max(met, key=lambda i: history[i].profiled.latency_s or 0.0)
        return Accept(round=best, reason="the best round that holds the budget")
    closest = min(range(len(history)), key=lambda i: excess(budget, history[i].profiled))
    return GiveUp(
        round=closest,
        violations=budget.violations(history[closest].profiled),
        reason=f"not met in {len(history)} rounds",
    )


def corrected(played: Round, anchors: Sequence[Round] = ()) -> Correction:
    """The correction that would have made this round's prediction right, and those of the anchors where it can.

    One profile gives a factor. Two that lie apart give a line through both, which also finds the fixed time of a call
    that no operator explains. RAM and size are shifted by what this round was off.
    """
    ram, size = played.correction.ram_bytes, played.correction.size_bytes
    if played.predicted.ram_bytes is not None and played.profiled.ram_bytes is not None:
        ram += played.profiled.ram_bytes - played.predicted.ram_bytes
    if played.predicted.size_bytes is not None and played.profiled.size_bytes is not None:
        size += played.profiled.size_bytes - played.predicted.size_bytes
    latency, offset_s = _latency_line(played, anchors)
    return Correction(latency=latency, latency_offset_s=offset_s, ram_bytes=ram, size_bytes=size)


def _latency_line(played: Round, anchors: Sequence[Round]) -> tuple[float, float]:
    """(factor, offset in seconds) on plain estimates."""
    here = _point(played)
    if here is None:
        return played.correction.latency, played.correction.latency_offset_s
    plain, seen = here
    points = [point for point in map(_point, anchors) if point is not None]
    apart = [point for point in points if abs(point[0] / plain - 1) >= _APART]
    if apart:
        other, other_seen = min(apart, key=lambda point: abs(point[0] - plain))
        slope = (other_seen - seen) / (other - plain)
        if slope > 0:
            return slope, seen - slope * plain
    ratio = seen / plain / played.correction.latency
    return played.correction.latency * min(max(ratio, 1 / _MOST_PER_ROUND), _MOST_PER_ROUND), 0.0


def _point(played: Round) -> tuple[float, float] | None:
    """(plain estimate, profiled), in seconds."""
    if not played.predicted.latency_s or not played.profiled.latency_s:
        return None
    plain = played.correction.plain_latency(played.predicted.latency_s)
    return (plain, played.profiled.latency_s) if plain > 0 else None


def excess(budget: Budget, cost: Cost) -> float:
    """The largest relative amount by which a cost is over its limit; 0 when all hold, infinite when unknown."""
    over = [v.needs / v.limit - 1 for v in budget.violations(cost)]
    return max(over, default=0.0)


def _far_below(budget: Budget, cost: Cost) -> bool:
    """Every limit has room to spare, so a wider model would fit."""
    shares = [
        needs / limit
        for needs, limit in (
            (cost.latency_upper_s, budget.latency_s),
            (cost.ram_bytes, budget.ram_bytes),
            (cost.size_bytes, budget.size_bytes),
        )
        if needs is not None and limit is not None
    ]
    return bool(shares) and max(shares) < 1 - SLACK
