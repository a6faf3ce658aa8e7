"""What to do after each rehearsal and each round: rehearse another plan, train one, accept, or give up.

A *rehearsal* exports and profiles a plan untrained: weights do not change the cost. A *round* trains one plan and
confirms its final file by one profile of its own; only that may be called met. Pure: no clock, no files, no device.

The typical latency of a file (on this machine its ratio to the dense file timed beside it) repeats within a percent or
two on a busy machine, the upper bound that a verdict rests on does not. So plans are judged by the typical latency
times the margin that the runs so far showed, and every round that misses asks for a larger share of the margins seen.
Latencies that do not grow with the estimate are noise, or a device that the model does not know; they are pooled
(isotonic regression), and the next plan is aimed between the two measured ones next to the goal, which needs no trust
in the device model.
The search always ends: rehearsals and rounds are counted, and no plan is confirmed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeVar

import numpy as np

from edgeprune.cost import Budget, Correction, Cost, Violation
from edgeprune.values import Value

P = TypeVar("P")

SLACK = 0.05  # a RAM or size limit with more room than this does not bind
WINDOW = 0.02  # of the latency budget, below the goal: closer is not worth another rehearsal
_MARGIN_SHARES = (0.5, 0.85, 1.0)  # of the margins seen, that a plan must be able to bear; by rounds missed
_FAR = "far below the budget"
_MOST_AT_ONCE = 4.0  # an aim goes at most this factor beyond what was measured


class Seen(Value):
    """One profile beside what the device model said.

    Attributes:
        plain: The estimate without a correction of the whole (those of single operators are in it).
        cost: What was profiled.
        typical_s: What it takes on an ordinary day: of a measured file its ratio to the dense one times what that one
            usually takes, of an estimate the central value; None where latency is unknown.
    """

    plain: Cost
    cost: Cost
    typical_s: float | None = None


class Trial(Value):
    """One plan: its rehearsal and, once it was trained, its confirmation.

    Attributes:
        quality: The validation metric of the deployed file, larger is better.
        widest: No wider plan exists: every channel stays.
    """

    rehearsed: Seen
    confirmed: Seen | None = None
    quality: float | None = None
    widest: bool = False


class Rehearse(Value):
    """Solve again with this correction, for at most this corrected latency, and profile the untrained file.

    Attributes:
        wider: Nothing that was tried comes close to the budget from below.
    """

    kind: Literal["rehearse"] = "rehearse"
    correction: Correction
    latency_s: float | None
    reason: str
    wider: bool = False


class Train(Value):
    """Spend a round on this trial: train it and profile its final file."""

    kind: Literal["train"] = "train"
    trial: int
    reason: str


class Accept(Value):
    """This trial's final file meets the budget."""

    kind: Literal["accept"] = "accept"
    trial: int
    reason: str


class GiveUp(Value):
    """No final file meets the budget and nothing is left to try; `trial` comes closest."""

    kind: Literal["give-up"] = "give-up"
    trial: int
    violations: tuple[Violation, ...]
    reason: str


Decision = Rehearse | Train | Accept | GiveUp


def decide(
    budget: Budget,
    history: Sequence[Trial],
    rounds: int,
    rehearsals: int,
    *,
    guard: float = 0.0,
    anchors: Sequence[Seen] = (),
    stuck: bool = False,
) -> Decision:
    """What to do after the trials so far.

    Args:
        history: At least one trial, in order.
        rounds: The most plans that may be trained.
        rehearsals: The most rehearsals before each round; what a round leaves over the next may use.
        guard: Share of the latency budget that plans leave free, besides the margin that was seen.
        anchors: Other models of the same family that were profiled, such as the dense one.
        stuck: The solver has no plan that was not tried.
    """
    played = [i for i, trial in enumerate(history) if trial.confirmed is not None]
    met = [i for i in played if not budget.violations(_final(history[i]).cost)]
    view = _view(budget, history, anchors, guard)
    may_train = len(played) < rounds
    may_rehearse = may_train and not stuck and len(history) < rehearsals * (len(played) + 1)
    fitting = [i for i, trial in enumerate(history) if trial.confirmed is None and view.fits(trial)]
    best = max(fitting, key=lambda i: view.share(history[i]), default=None)
    if met:
        done = max(met, key=lambda i: (_quality(history[i]), view.share(history[i])))
        if not may_train or not view.far_below(history[done]):
            return Accept(trial=done, reason="confirmed on the final file")
        if best is not None and view.share(history[best]) > view.share(history[done]) + WINDOW:
            return Train(trial=best, reason="wider, and still within the budget")
        if may_rehearse:
            return _rehearse(view, history, _FAR)
        return Accept(trial=done, reason="confirmed on the final file; nothing wider was found")
    if may_train:
        if best is not None and not (may_rehearse and view.far_below(history[best])):
            return Train(trial=best, reason="within the budget")
        if may_rehearse:
            return _rehearse(view, history, "over the budget" if best is None else _FAR)
        hopes = [i for i in range(len(history)) if i not in played and view.may_hold(history[i])]
        if not hopes and not played:  # the verdict must rest on a final file, even on one that will not hold
            hopes = [min(range(len(history)), key=lambda i: excess(budget, history[i].rehearsed.cost))]
        if hopes:
            return Train(trial=min(hopes, key=lambda i: view.share(history[i])), reason="the closest that was found")
    closest = min(played, key=lambda i: excess(budget, _final(history[i]).cost))
    return GiveUp(
        trial=closest,
        violations=budget.violations(_final(history[closest]).cost),
        reason=f"not met in {len(played)} round(s) and {len(history)} rehearsal(s)",
    )


def search(
    budget: Budget,
    first: P,
    *,
    rounds: int,
    rehearsals: int,
    guard: float,
    seen: Callable[[Sequence[P]], tuple[Sequence[Trial], Sequence[Seen]]],
    propose: Callable[[Sequence[P], Rehearse], P | None],
    train: Callable[[int, Sequence[P], int], P],
) -> tuple[list[P], Accept | GiveUp]:
    """Play until a trial is accepted or given up; everything that was tried, in order, and the verdict.

    Args:
        first: A plan that was rehearsed.
        seen: The trials of what was tried, and the anchors, as the device model sees them by now.
        propose: A plan that was not tried, rehearsed; None when there is none.
        train: The plan at an index of what was tried, trained and confirmed, as round number 1, 2, ...
    """
    history, played, stuck = [first], 0, False
    while True:
        trials, anchors = seen(history)
        decision = decide(budget, trials, rounds, rehearsals, guard=guard, anchors=anchors, stuck=stuck)
        if isinstance(decision, Rehearse):
            found = propose(history, decision)
            stuck = found is None
            history += [] if found is None else [found]
        elif isinstance(decision, Train):
            played, stuck = played + 1, False
            history[decision.trial] = train(played, history, decision.trial)
        else:
            return history, decision


def first_aim(budget: Budget, anchors: Sequence[Seen], guard: float = 0.0) -> Rehearse:
    """What the first plan is solved with, from models of the same family that were profiled (at least one)."""
    return _rehearse(_view(budget, (), anchors, guard), (), "first plan", anchors[-1])


def excess(budget: Budget, cost: Cost) -> float:
    """The largest relative amount by which a cost is over its limit; 0 when all hold, infinite when unknown."""
    over = [v.needs / v.limit - 1 for v in budget.violations(cost)]
    return max(over, default=0.0)


def isotonic(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(x, y) with x ascending and y never falling: the least-squares fit by pooling neighbours that are out of order.

    Points of equal x become one, their mean. (Barlow et al. 1972, pool adjacent violators.)
    """
    by_x: dict[float, list[float]] = {}
    for x, y in sorted(points):
        by_x.setdefault(x, []).append(y)
    pools: list[tuple[float, int, list[float]]] = []  # mean, weight, xs
    for x, ys in by_x.items():
        mean, weight, xs = sum(ys) / len(ys), len(ys), [x]
        while pools and pools[-1][0] > mean:
            below, count, before = pools.pop()
            mean, weight, xs = (below * count + mean * weight) / (count + weight), count + weight, [*before, *xs]
        pools.append((mean, weight, xs))
    return [(x, mean) for mean, _, xs in pools for x in xs]


@dataclass(frozen=True)
class _View:
    """What the profiles so far say of any plan.

    Attributes:
        goal: Share of the latency budget that a plan may be expected to take.
        margin: Verdict's latency over typical latency, at the share of the margins seen that is asked for.
        shown: Profiled latency, as a record shows it, over typical latency.
        curve: (plain estimate in seconds, expected share of the latency budget), ascending in both.
    """

    budget: Budget
    goal: float
    margin: float
    shown: float
    curve: tuple[tuple[float, float], ...]

    def share(self, trial: Trial) -> float:
        """Expected share of the latency budget, at least what the trial's neighbours say; -inf without a budget."""
        limit_s = self.budget.latency_s
        if limit_s is None:
            return -np.inf
        seen = _final(trial)
        if seen.typical_s is None or not seen.plain.latency_s:
            return np.inf
        pooled = dict(self.curve)[seen.plain.latency_s]
        return max(pooled, seen.typical_s * self.margin / limit_s)

    def fits(self, trial: Trial) -> bool:
        """Expected to hold every limit when it is confirmed, with the margin asked for."""
        return self.share(trial) <= self.goal and self._holds_others(trial)

    def may_hold(self, trial: Trial) -> bool:
        """Not proven to break a limit: its own profile held them all."""
        return not self.budget.violations(_final(trial).cost)

    def far_below(self, trial: Trial) -> bool:
        """Every limit has room to spare, so a wider model would fit."""
        cost, budget = _final(trial).cost, self.budget
        pairs = (
            (cost.ram_bytes, budget.ram_bytes),
            (cost.size_bytes, budget.size_bytes),
            (cost.macs, budget.macs),
        )
        spare = [needs is not None and needs < (1 - SLACK) * limit for needs, limit in pairs if limit is not None]
        if budget.latency_s is not None:
            spare.append(self.share(trial) < self.goal - WINDOW)
        return bool(spare) and all(spare) and not trial.widest

    def _holds_others(self, trial: Trial) -> bool:
        cost = _final(trial).cost
        return not self.budget.model_copy(update={"latency_s": None}).violations(cost)


def _view(budget: Budget, history: Sequence[Trial], anchors: Sequence[Seen], guard: float) -> _View:
    seen = [*anchors, *(s for trial in history for s in (trial.rehearsed, trial.confirmed) if s is not None)]
    missed = sum(trial.confirmed is not None for trial in history)
    share = _MARGIN_SHARES[min(missed, len(_MARGIN_SHARES) - 1)]
    known = [s for s in seen if s.typical_s and s.cost.latency_s and s.cost.latency_upper_s]
    margin = _quantile([(s.cost.latency_upper_s or 0.0) / (s.typical_s or 1.0) for s in known], share)
    shown = _quantile([(s.cost.latency_s or 0.0) / (s.typical_s or 1.0) for s in known], share)
    limit_s = budget.latency_s or 1.0
    points = [
        (s.plain.latency_s, s.typical_s * margin / limit_s)
        for s in seen
        if s.plain.latency_s and s.typical_s is not None
    ]
    return _View(budget, 1 - guard, margin, shown, tuple(isotonic(points)))


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 1.0


def _rehearse(view: _View, history: Sequence[Trial], reason: str, last: Seen | None = None) -> Rehearse:
    """The correction with which a plan at the goal is predicted to take exactly the latency that is bound."""
    last, wider = last or history[-1].rehearsed, reason == _FAR
    ram = size = 0
    if last.plain.ram_bytes is not None and last.cost.ram_bytes is not None:
        ram = last.cost.ram_bytes - last.plain.ram_bytes
    if last.plain.size_bytes is not None and last.cost.size_bytes is not None:
        size = last.cost.size_bytes - last.plain.size_bytes
    limit_s = view.budget.latency_s
    if not view.curve or limit_s is None:
        return Rehearse(
            correction=Correction(ram_bytes=ram, size_bytes=size), latency_s=limit_s, reason=reason, wider=wider
        )
    anew = max((i + 1 for i, trial in enumerate(history) if trial.confirmed is not None), default=0)
    at_s, slope = _aim(view.curve, view.goal, [view.share(trial) <= view.goal for trial in history[anew:]])
    scale = limit_s * view.shown / view.margin  # from shares of the budget to the latency that profiles show
    factor, bound_s = slope * scale, view.goal * scale
    return Rehearse(
        correction=Correction(latency=factor, latency_offset_s=bound_s - factor * at_s, ram_bytes=ram, size_bytes=size),
        latency_s=bound_s,
        reason=reason,
        wider=wider,
    )


def _aim(curve: Sequence[tuple[float, float]], goal: float, held: Sequence[bool]) -> tuple[float, float]:
    """(plain estimate at which the goal is expected, slope there).

    Regula falsi between the measured neighbours of the goal. When trials land on one side again and again, the other
    neighbour's distance is halved each time (the Illinois rule), which gets over bends and steps of the device's curve.

    Args:
        held: Whether each trial since the last round came below the goal, in order.
    """
    below = [point for point in curve if point[1] <= goal]
    above = [point for point in curve if point[1] > goal]
    if below and above:
        (x0, y0), (x1, y1) = below[-1], above[0]
        repeated = sum(1 for _ in takewhile(lambda side: side == held[-1], reversed(held)))
        weight = 0.5 ** max(0, repeated - 1)
        under, over = (goal - y0, weight * (y1 - goal)) if held and held[-1] else (weight * (goal - y0), y1 - goal)
        return x0 + under / (under + over) * (x1 - x0), (y1 - y0) / (x1 - x0)
    x, y = below[-1] if below else above[0]
    ratio = min(max(goal / max(y, 1e-12), 1 / _MOST_AT_ONCE), _MOST_AT_ONCE)
    return x * ratio, max(y, 1e-12) / x


def _final(trial: Trial) -> Seen:
    return trial.confirmed or trial.rehearsed


def _quality(trial: Trial) -> float:
    return -np.inf if trial.quality is None else trial.quality
