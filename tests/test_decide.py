"""The loop's rule: it always ends, never says met on a number that is not, and learns from each round."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.cost import Budget, Correction, Cost, Source
from edgeprune.decide import Accept, GiveUp, Retry, Round, corrected, decide, excess

BUDGET = Budget(latency_s=0.010)


def measured(latency_s: float, ram: int = 1000, size: int = 1000) -> Cost:
    return Cost(source=Source.MEASURED, latency_s=latency_s, ram_bytes=ram, size_bytes=size)


def played(predicted_s: float, profiled_s: float, *, confirmed: bool = False, widest: bool = False) -> Round:
    return Round(
        correction=Correction(),
        predicted=measured(predicted_s),
        profiled=measured(profiled_s),
        confirmed=confirmed,
        widest=widest,
    )


def test_a_round_within_budget_is_accepted() -> None:
    assert decide(BUDGET, [played(0.0098, 0.0098)], 3) == Accept(round=0, reason="within budget")


def test_a_miss_is_solved_again_with_the_ratio() -> None:
    decision = decide(BUDGET, [played(0.0098, 0.0196)], 3)
    assert isinstance(decision, Retry)
    assert decision.correction.latency == pytest.approx(2.0)
    assert decision.reason == "over budget"


def test_far_below_the_budget_grows_back() -> None:
    decision = decide(BUDGET, [played(0.0098, 0.0070)], 3)
    assert isinstance(decision, Retry)
    assert decision.correction.latency == pytest.approx(0.0070 / 0.0098)


def test_the_whole_model_within_budget_is_not_grown() -> None:
    assert isinstance(decide(BUDGET, [played(0.005, 0.005, widest=True)], 3), Accept)


def test_another_limit_that_binds_stops_growing() -> None:
    budget = Budget(latency_s=0.010, ram_bytes=1000)
    assert isinstance(decide(budget, [played(0.005, 0.005)], 3), Accept)


def test_the_last_round_falls_back_on_the_best_that_held() -> None:
    history = [played(0.0098, 0.008), played(0.0098, 0.007), played(0.0098, 0.011)]
    assert decide(BUDGET, history, 3) == Accept(round=0, reason="the best round that holds the budget")


def test_giving_up_names_the_closest_round_and_what_it_violates() -> None:
    decision = decide(BUDGET, [played(0.0098, 0.03), played(0.0098, 0.012), played(0.0098, 0.02)], 3)
    assert isinstance(decision, GiveUp)
    assert decision.round == 1
    assert [str(v) for v in decision.violations] == ["latency: needs 12 ms, budget 10 ms"]


def test_a_confirmed_round_is_final() -> None:
    history = [played(0.0098, 0.007, confirmed=True)]
    assert decide(BUDGET, history, 3) == Accept(round=0, reason="confirmed on the final file")


def test_an_unknown_latency_never_meets_a_budget() -> None:
    unknown = Round(correction=Correction(), predicted=measured(0.01), profiled=Cost(source=Source.ESTIMATED))
    assert isinstance(decide(BUDGET, [unknown], 1), GiveUp)
    assert excess(BUDGET, unknown.profiled) == float("inf")


def test_an_estimate_is_judged_by_its_upper_end() -> None:
    vague = Cost(source=Source.ESTIMATED, latency_s=0.009, latency_interval_s=(0.008, 0.011))
    assert BUDGET.violations(vague)[0].needs == 0.011


def test_ram_and_size_are_corrected_by_what_is_added() -> None:
    seen = Round(
        correction=Correction(ram_bytes=10),
        predicted=measured(0.01, ram=500, size=100),
        profiled=measured(0.01, ram=700, size=90),
    )
    assert corrected(seen) == Correction(latency=1.0, ram_bytes=210, size_bytes=-10)


def test_two_profiles_find_the_fixed_time_of_a_call() -> None:
    """The device takes 2 ms plus twice the estimate."""
    dense = Round(correction=Correction(), predicted=measured(0.010), profiled=measured(0.022))
    half = Round(correction=Correction(latency=2.2), predicted=measured(0.011), profiled=measured(0.012))
    found = corrected(half, [dense])
    assert found.latency == pytest.approx(2.0)
    assert found.latency_offset_s == pytest.approx(0.002)
    assert found.latency_of(0.003) == pytest.approx(0.008)
    assert found.plain_latency(0.008) == pytest.approx(0.003)


def test_two_profiles_close_together_give_a_factor_only() -> None:
    near = Round(correction=Correction(), predicted=measured(0.0100), profiled=measured(0.0090))
    found = corrected(played(0.0098, 0.0098), [near])
    assert found == Correction(latency=1.0)


@settings(max_examples=200, deadline=None)
@given(
    device=st.lists(st.floats(0.2, 5.0), min_size=1, max_size=20),
    rounds=st.integers(1, 6),
    budget_s=st.floats(0.001, 0.1),
)
def test_any_device_ends_the_loop_and_met_is_never_false(device: list[float], rounds: int, budget_s: float) -> None:
    """A scripted device: each profile is the promise times the next factor, whatever the correction says."""
    budget = Budget(latency_s=budget_s)
    factors = iter(device * 20)
    history: list[Round] = []
    correction = Correction()
    for _ in range(3 * rounds + 1):
        if not history:
            decision: object = Retry(correction=correction, reason="first")
        else:
            decision = decide(budget, history, rounds)
        if isinstance(decision, Retry):
            predicted = measured(budget_s * 0.98)
            profiled = measured(budget_s * 0.98 * next(factors))
            history.append(Round(correction=decision.correction, predicted=predicted, profiled=profiled))
            continue
        assert isinstance(decision, Accept | GiveUp)
        entry = history[decision.round]
        if entry.confirmed:
            assert isinstance(decision, GiveUp) == bool(budget.violations(entry.profiled))
            break
        again = measured((entry.profiled.latency_s or 0) * next(factors))
        history[decision.round] = entry.model_copy(update={"profiled": again, "confirmed": True})
    else:
        raise AssertionError("the loop did not end")
    assert len(history) <= rounds
