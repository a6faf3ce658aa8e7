import pytest

from edgeprune.cost import Budget, Cost, Source


@pytest.mark.parametrize(
    ("source", "upper_s"), [(Source.MEASURED, 0.02), (Source.EMULATED, 0.03), (Source.ESTIMATED, 0.03)]
)
def test_a_verdict_on_what_was_not_measured_rests_on_the_upper_end(source: Source, upper_s: float) -> None:
    cost = Cost(source=source, latency_s=0.02, latency_interval_s=(0.015, 0.03))
    assert cost.latency_upper_s == upper_s
    violations = Budget(latency_s=0.025).violations(cost)
    assert [violation.needs for violation in violations] == ([] if source is Source.MEASURED else [upper_s])


def test_without_an_interval_there_is_only_the_central_value() -> None:
    assert Cost(source=Source.EMULATED, latency_s=0.02).latency_upper_s == 0.02
    assert Cost(source=Source.EMULATED).latency_upper_s is None
