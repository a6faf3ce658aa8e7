import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.recipe import TrainSpec
from edgeprune.training.rates import rate_share

SCHEDULES = ("cosine", "linear", "step", "constant", "one-cycle")


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup=st.floats(0, 0.9),
    total=st.integers(1, 300),
    data=st.data(),
)
def test_shares_lie_between_zero_and_one(schedule: str, warmup: float, total: int, data: st.DataObject) -> None:
    recipe = TrainSpec.model_validate({"schedule": schedule, "warmup": warmup})
    assert 0 <= rate_share(recipe, data.draw(st.integers(0, total)), total) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_in_a_line_to_its_full_height_and_never_after(schedule: str) -> None:
    shares = [rate_share(TrainSpec.model_validate({"schedule": schedule, "warmup": 0.25}), i, 40) for i in range(41)]
    assert shares[:10] == sorted(shares[:10]) and shares[10] == 1.0 and shares[10:] == sorted(shares[10:], reverse=True)
    if schedule != "one-cycle":
        assert shares[:10] == [(i + 1) / 10 for i in range(10)]


def test_each_schedule_is_its_formula() -> None:
    def at(schedule: str, done: float, **more: object) -> float:
        return rate_share(TrainSpec.model_validate({"schedule": schedule, **more}), round(1000 * done), 1000)

    assert at("cosine", 0) == 1 and at("cosine", 0.5) == pytest.approx(0.5) and at("cosine", 1) == 0
    assert at("cosine", 0.25) == 0.5 * (1 + math.cos(math.pi / 4))
    assert at("linear", 0.25) == 0.75 and at("linear", 1) == 0 and at("constant", 0.9) == 1
    steps = {"step_at": (0.3, 0.6), "step_factor": 0.5}
    assert [at("step", done, **steps) for done in (0.29, 0.3, 0.59, 0.6, 1)] == [1, 0.5, 0.5, 0.25, 0.25]
    assert at("one-cycle", 0) == pytest.approx(0.04) and at("one-cycle", 0.3) == 1
    assert at("one-cycle", 1) == pytest.approx(0.04 / 1e4)
    assert at("one-cycle", 0.15) == pytest.approx((1 + 0.04) / 2)
