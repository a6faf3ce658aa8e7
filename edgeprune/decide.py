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


def decide(budget: Budget, history: Sequence[Round], rounds: int) -> Decision:
    """What to do after the rounds so far.

    Args:
        history: At least one round, in order.
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
        return Retry(correction=corrected(last), reason=reason)
    if met:  # the last round missed, an earlier one holds
        best = max(met, key=lambda i: history[i].profiled.latency_s or 0.0)
        return Accept(round=best, reason="the best round that holds the budget")
    closest = min(range(len(history)), key=lambda i: excess(budget, history[i].profiled))
    return GiveUp(
        round=closest,
        violations=budget.violations(history[closest].profiled),
        reason=f"not met in {len(history)} rounds",
    )


def corrected(played: Round) -> Correction:
    """The correction that would have made this round's prediction right."""
    latency = played.correction.latency
    if played.predicted.latency_s and played.profiled.latency_s:
        ratio = played.profiled.latency_s / played.predicted.latency_s
        latency *= min(max(ratio, 1 / _MOST_PER_ROUND), _MOST_PER_ROUND)
    ram, size = played.correction.ram_bytes, played.correction.size_bytes
    if played.predicted.ram_bytes is not None and played.profiled.ram_bytes is not None:
        ram += played.profiled.ram_bytes - played.predicted.ram_bytes
    if played.predicted.size_bytes is not None and played.profiled.size_bytes is not None:
        size += played.profiled.size_bytes - played.predicted.size_bytes
    return Correction(latency=latency, ram_bytes=ram, size_bytes=size)


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
