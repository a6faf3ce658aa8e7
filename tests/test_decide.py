"""The search: it always ends, never says met on a number that is not, and lands near the budget on scripted devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.cost import Budget, Correction, Cost, Source
from edgeprune.decide import (
    Accept,
    GiveUp,
    Rehearse,
    Seen,
    Train,
    Trial,
    decide,
    excess,
    first_aim,
    isotonic,
    search,
)

BUDGET = Budget(latency_s=0.010)


def cost(latency_s: float | None, source: Source = Source.MEASURED, ram: int = 1000, size: int = 1000) -> Cost:
    return Cost(source=source, latency_s=latency_s, ram_bytes=ram, size_bytes=size)


def seen(plain_s: float, profiled_s: float, *, margin: float = 1.0, ram: int = 1000) -> Seen:
    return Seen(plain=cost(plain_s, Source.ESTIMATED), cost=cost(profiled_s * margin, ram=ram), typical_s=profiled_s)


def trial(plain_s: float, profiled_s: float, confirmed_s: float | None = None, *, widest: bool = False) -> Trial:
    confirmed = None if confirmed_s is None else seen(plain_s, confirmed_s)
    return Trial(rehearsed=seen(plain_s, profiled_s), confirmed=confirmed, widest=widest)


def test_a_plan_within_the_budget_is_trained_and_then_accepted() -> None:
    assert decide(BUDGET, [trial(0.0098, 0.0098)], 3, 4) == Train(trial=0, reason="within the budget")
    done = trial(0.0098, 0.0098, 0.0099)
    assert decide(BUDGET, [done], 3, 4) == Accept(trial=0, reason="confirmed on the final file")


def test_a_miss_is_solved_again_with_the_ratio() -> None:
    decision = decide(BUDGET, [trial(0.0098, 0.0196)], 3, 4)
    assert isinstance(decision, Rehearse)
    assert decision.reason == "over the budget"
    assert decision.correction.latency_of(0.005) == pytest.approx(decision.latency_s) == pytest.approx(0.010)
    assert decision.correction.plain_latency(0.010) == pytest.approx(0.005)


def test_far_below_the_budget_grows_back_before_anything_is_trained() -> None:
    decision = decide(BUDGET, [trial(0.0098, 0.0070)], 3, 4)
    assert isinstance(decision, Rehearse) and decision.reason == "far below the budget"
    assert decision.correction.plain_latency(0.010) == pytest.approx(0.014)


def test_the_whole_model_within_budget_is_not_grown() -> None:
    assert isinstance(decide(BUDGET, [trial(0.005, 0.005, widest=True)], 3, 4), Train)


def test_another_limit_that_binds_stops_growing() -> None:
    assert isinstance(decide(Budget(latency_s=0.010, ram_bytes=1000), [trial(0.005, 0.005)], 3, 4), Train)


def test_the_next_plan_lies_between_the_two_measured_ones_around_the_goal() -> None:
    """The device takes 2 ms plus twice the estimate."""
    decision = decide(BUDGET, [trial(0.003, 0.008)], 3, 4, anchors=[seen(0.010, 0.022)])
    assert isinstance(decision, Rehearse)
    assert decision.correction.latency == pytest.approx(2.0)
    assert decision.correction.latency_offset_s == pytest.approx(0.002)


def test_out_of_rehearsals_the_widest_that_fits_is_trained() -> None:
    history = [trial(0.002, 0.004), trial(0.004, 0.006), trial(0.008, 0.02)]
    assert decide(BUDGET, history, 3, 3) == Train(trial=1, reason="within the budget")
    assert isinstance(decide(BUDGET, history, 3, 4), Rehearse)
    assert isinstance(decide(BUDGET, history, 3, 4, stuck=True), Train)


def test_a_round_that_missed_is_not_played_again() -> None:
    history = [trial(0.0098, 0.0098, 0.012), trial(0.008, 0.0079)]
    assert decide(BUDGET, history, 3, 1) == Train(trial=1, reason="within the budget")
    given_up = decide(BUDGET, history, 1, 9)
    assert isinstance(given_up, GiveUp)
    assert given_up.trial == 0
    assert [str(v) for v in given_up.violations] == ["latency: needs 12 ms, budget 10 ms"]


def test_after_a_miss_a_larger_share_of_the_seen_margins_is_asked_for() -> None:
    anchors = [seen(0.02, 0.02, margin=1.02), seen(0.001, 0.001, margin=1.2)]
    calm = decide(BUDGET, [trial(0.0098, 0.0098)], 3, 9, anchors=anchors)
    after = decide(BUDGET, [trial(0.0098, 0.0098, 0.0101)], 3, 9, anchors=anchors)
    assert isinstance(calm, Rehearse | Train) and isinstance(after, Rehearse)
    again = decide(BUDGET, [trial(0.0098, 0.0098, 0.0101), trial(0.0097, 0.0097, 0.0101)], 3, 9, anchors=anchors)
    assert isinstance(again, Rehearse)
    assert again.correction.plain_latency(0.010) < after.correction.plain_latency(0.010)
    assert again.correction.plain_latency(0.010) == pytest.approx(0.010 / 1.2, rel=0.05)


def test_a_confirmed_plan_far_below_grows_while_rounds_are_left() -> None:
    history = [trial(0.005, 0.0098, 0.006)]
    assert isinstance(decide(BUDGET, history, 3, 4), Rehearse)
    assert isinstance(decide(BUDGET, history, 1, 4), Accept)
    wider = [*history, trial(0.008, 0.0096)]
    assert decide(BUDGET, wider, 3, 4) == Train(trial=1, reason="wider, and still within the budget")
    missed = [*history, trial(0.008, 0.0096, 0.0102)]
    assert decide(BUDGET, missed, 2, 4) == Accept(trial=0, reason="confirmed on the final file")


def test_of_several_that_hold_the_best_on_validation_is_taken() -> None:
    narrow = trial(0.005, 0.0098, 0.006).model_copy(update={"quality": 0.9})
    wide = trial(0.008, 0.0096, 0.0099).model_copy(update={"quality": 0.8})
    decision = decide(BUDGET, [narrow, wide], 2, 4)
    assert isinstance(decision, Accept) and decision.trial == 0


def test_an_unknown_latency_never_meets_a_budget() -> None:
    unknown = Seen(plain=cost(0.01), cost=Cost(source=Source.ESTIMATED))
    assert isinstance(decide(BUDGET, [Trial(rehearsed=unknown)], 1, 1), Train)
    assert isinstance(decide(BUDGET, [Trial(rehearsed=unknown, confirmed=unknown)], 1, 1), GiveUp)
    assert excess(BUDGET, unknown.cost) == math.inf


def test_an_estimate_is_judged_by_its_upper_end() -> None:
    vague = Cost(source=Source.ESTIMATED, latency_s=0.009, latency_interval_s=(0.008, 0.012))
    plan = Trial(rehearsed=Seen(plain=cost(0.009), cost=vague, typical_s=0.009))
    decision = decide(BUDGET, [plan], 3, 4)
    assert isinstance(decision, Rehearse)
    assert decision.latency_s == pytest.approx(0.0075)
    assert decision.correction.latency_of(0.0075) == pytest.approx(0.0075)


def test_ram_and_size_are_corrected_by_what_was_added() -> None:
    budget = Budget(ram_bytes=600)
    seen_now = Seen(plain=cost(0.01, ram=500, size=100), cost=cost(0.01, ram=700, size=90), typical_s=0.01)
    decision = decide(budget, [Trial(rehearsed=seen_now)], 3, 4)
    assert isinstance(decision, Rehearse)
    assert decision.correction == Correction(ram_bytes=200, size_bytes=-10)
    assert decision.latency_s is None


def test_the_first_aim_is_a_line_through_the_anchors() -> None:
    aim = first_aim(BUDGET, [seen(0.010, 0.022), seen(0.001, 0.004)], guard=0.02)
    assert aim.latency_s == pytest.approx(0.0098)
    assert (aim.correction.latency, aim.correction.latency_offset_s) == pytest.approx((2.0, 0.002))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=30))
def test_isotonic_is_ordered_keeps_the_mean_and_leaves_ordered_points_alone(points: list[tuple[float, float]]) -> None:
    fitted = isotonic(points)
    assert [x for x, _ in fitted] == sorted({x for x, _ in points})
    assert all(a[1] <= b[1] + 1e-9 for a, b in pairwise(fitted))
    weights = {x: sum(1 for other, _ in points if other == x) for x, _ in fitted}
    assert sum(y * weights[x] for x, y in fitted) == pytest.approx(sum(y for _, y in points), abs=1e-6)
    assert np.array(isotonic(fitted)) == pytest.approx(np.array(fitted))


@dataclass(frozen=True)
class Plan:
    """A scripted plan: its place among all plans and what was seen of it."""

    place: int
    rehearsed: Seen
    confirmed: Seen | None = None


@dataclass
class Scripted:
    """A device with as many plans as there are estimates: a solver takes the largest that it believes to fit."""

    plain_s: Sequence[float]
    typical: Callable[[float], float]
    noise: Callable[[], tuple[float, float]] = lambda: (1.0, 1.0)  # factors: of the typical latency, of the margin
    ram_of: Callable[[float], int] = lambda plain_s: 1000
    drift: float = 0.0  # share by which each call is slower than the one before
    calls: int = 0
    rounds: list[Plan] = field(default_factory=list)

    def profile(self, place: int) -> Seen:
        plain_s, (typical, margin) = self.plain_s[place], self.noise()
        self.calls += 1
        seconds = self.typical(plain_s) * typical * (1 + self.drift) ** self.calls
        ram = self.ram_of(plain_s)
        plain = cost(plain_s, Source.ESTIMATED, ram=round(plain_s * 1e5))
        return Seen(plain=plain, cost=cost(seconds * margin, ram=ram), typical_s=seconds)

    def propose(self, budget: Budget, tried: Sequence[Plan], aim: Rehearse) -> Plan | None:
        fits = [
            i
            for i, plain_s in enumerate(self.plain_s)
            if (aim.latency_s is None or aim.correction.latency_of(plain_s) <= aim.latency_s * (1 + 1e-9))
            and (budget.ram_bytes is None or round(plain_s * 1e5) + aim.correction.ram_bytes <= budget.ram_bytes)
        ]
        if not fits or fits[-1] in {plan.place for plan in tried}:
            return None
        return Plan(fits[-1], self.profile(fits[-1]))

    def train(self, number: int, history: Sequence[Plan], trial: int) -> Plan:
        plan = history[trial]
        assert plan.confirmed is None, "nothing is confirmed twice"
        assert number == len(self.rounds) + 1
        self.rounds.append(replace(plan, confirmed=self.profile(plan.place)))
        return self.rounds[-1]

    def run(self, budget: Budget, rounds: int, rehearsals: int) -> tuple[list[Plan], Accept | GiveUp]:
        anchors = [self.profile(len(self.plain_s) - 1), self.profile(0)]
        aim = first_aim(budget, anchors)
        first = self.propose(budget, [], aim) or Plan(0, self.profile(0))
        return search(
            budget,
            first,
            rounds=rounds,
            rehearsals=rehearsals,
            guard=0.01,
            seen=lambda plans: ([self.trial(plan) for plan in plans], anchors),
            propose=lambda plans, decision: self.propose(budget, plans, decision),
            train=self.train,
        )

    def trial(self, plan: Plan) -> Trial:
        widest = plan.place == len(self.plain_s) - 1
        return Trial(rehearsed=plan.rehearsed, confirmed=plan.confirmed, quality=float(plan.place), widest=widest)


def stairs(step: float, factor: float) -> Callable[[float], float]:
    return lambda plain_s: factor * math.ceil(plain_s / step) * step


DEVICES: dict[str, Callable[[float, float], Callable[[float], float]]] = {
    "line": lambda factor, offset: lambda x: factor * x + offset,
    "stairs": lambda factor, offset: stairs(0.0003 + offset / 10, factor),
    "wavy": lambda factor, offset: lambda x: factor * x * (1.3 + math.sin(x * 4e3 * (1 + offset))),
    "bent": lambda factor, offset: lambda x: factor * x**2 / 0.01 + offset,
    "falling": lambda factor, offset: lambda x: factor * 1e-4 / (x + 1e-3) + offset,
    "never": lambda factor, offset: lambda x: 1.0 + x,
}


@settings(max_examples=1500, deadline=None)
@given(
    device=st.sampled_from(sorted(DEVICES)),
    factor=st.floats(0.2, 5.0),
    offset_s=st.floats(0.0, 0.004),
    spread=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    tail=st.sampled_from([0.0, 0.02, 0.1, 1.0]),
    drift=st.sampled_from([-0.05, 0.0, 0.0, 0.02, 0.2]),
    share=st.floats(0.05, 1.3),
    plans=st.integers(1, 80),
    rounds=st.integers(1, 4),
    rehearsals=st.integers(1, 6),
    ram=st.sampled_from([None, 700, 1500, 10]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_device_ends_the_search_and_met_is_never_false(
    device: str,
    factor: float,
    offset_s: float,
    spread: float,
    tail: float,
    drift: float,
    share: float,
    plans: int,
    rounds: int,
    rehearsals: int,
    ram: int | None,
    seed: int,
) -> None:
    chance = np.random.default_rng(seed)
    plain_s = sorted(chance.uniform(0.0005, 0.012, plans))
    budget = Budget(latency_s=share * 0.01, ram_bytes=ram)
    board = Scripted(
        plain_s,
        DEVICES[device](factor, offset_s),
        lambda: (float(np.exp(chance.normal(0, spread))), 1 + float(chance.exponential(tail))),
        ram_of=lambda plain_s: round(plain_s * 1e5 * chance.uniform(0.9, 1.2)),
        drift=drift,
    )
    history, verdict = board.run(budget, rounds, rehearsals)
    assert 1 <= len(board.rounds) <= rounds
    assert len(history) <= rehearsals * rounds
    assert len({plan.place for plan in history}) == len(history)
    held = [plan for plan in board.rounds if plan.confirmed and not budget.violations(plan.confirmed.cost)]
    chosen = history[verdict.trial]
    assert chosen.confirmed is not None
    if isinstance(verdict, Accept):
        assert chosen in held and chosen.place == max(plan.place for plan in held)
    else:
        assert not held and verdict.violations == budget.violations(chosen.confirmed.cost) != ()


@settings(max_examples=400, deadline=None)
@given(
    device=st.sampled_from(["line", "bent", "stairs"]),
    factor=st.floats(0.4, 2.5),
    offset_s=st.floats(0.0, 0.002),
    share=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_steady_device_is_met_in_one_round_close_to_the_budget(
    device: str, factor: float, offset_s: float, share: float, seed: int
) -> None:
    """However wrong the device model is: by a factor, a fixed time, a power, or the steps of the hardware."""
    chance = np.random.default_rng(seed)
    plain_s = sorted(chance.uniform(0.0005, 0.012, 3000))
    typical = DEVICES[device](factor, offset_s)
    budget = Budget(latency_s=typical(plain_s[0]) + share * (typical(plain_s[-1]) - typical(plain_s[0])))
    board = Scripted(plain_s, typical)
    history, verdict = board.run(budget, 3, 6)
    assert isinstance(verdict, Accept) and len(board.rounds) == 1
    best = max(typical(x) for x in plain_s if typical(x) <= 0.99 * (budget.latency_s or 0))
    reached = history[verdict.trial].confirmed
    assert reached is not None and (reached.cost.latency_s or 0) >= best - 0.04 * (budget.latency_s or 0)


def test_a_busy_device_is_met_close_to_the_budget() -> None:
    """Margins as twelve runs of one file showed them on a busy virtual machine."""
    margins = [1.03, 1.04, 1.05, 1.03, 1.06, 1.11, 1.02, 1.14, 1.14, 1.05, 1.04, 1.04]
    unused, met, rounds = [], 0, []
    chance = np.random.default_rng(0)
    for _ in range(300):
        plain_s = sorted(chance.uniform(0.0005, 0.012, 300))
        board = Scripted(
            plain_s,
            DEVICES["line"](float(chance.uniform(0.4, 2.5)), 0.0005),
            lambda: (float(np.exp(chance.normal(0, 0.01))), float(chance.choice(margins))),
        )
        budget = Budget(latency_s=board.typical(plain_s[-1]) * float(chance.uniform(0.35, 0.85)))
        history, verdict = board.run(budget, 3, 4)
        rounds.append(len(board.rounds))
        if isinstance(verdict, Accept):
            met += 1
            reached = history[verdict.trial].confirmed
            assert reached is not None and reached.cost.latency_s and budget.latency_s
            unused.append(1 - reached.cost.latency_s / budget.latency_s)
    assert met >= 290
    assert np.median(unused) <= 0.05
    assert np.mean(rounds) <= 1.8


def test_macs_are_a_limit_like_the_others() -> None:
    budget = Budget(macs=40_000_000)

    def seen_with(macs: int | None) -> Trial:
        found = Cost(source=Source.ESTIMATED, macs=macs)
        return Trial(rehearsed=Seen(plain=found, cost=found))

    (violation,) = budget.violations(Cost(source=Source.ESTIMATED, macs=41_000_000))
    assert str(violation) == "MACs: needs 41.0 M, budget 40.0 M"
    assert budget.violations(Cost(source=Source.MEASURED, macs=40_000_000)) == ()
    (unknown,) = budget.violations(Cost(source=Source.MEASURED))
    assert unknown.needs == math.inf
    assert isinstance(decide(budget, [seen_with(39_500_000)], 3, 4), Train)  # no room worth another plan
    assert isinstance(decide(budget, [seen_with(20_000_000)], 3, 4), Rehearse)
