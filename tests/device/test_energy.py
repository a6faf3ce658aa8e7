import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cost import Budget, Cost, Source
from edgeprune.device.energy import energy_text, within_energy
from edgeprune.errors import UsageError
from edgeprune.target import Power, load_target, target_names

BOARD = load_target("nucleo-l4r5zi")
KNOWN = [name for name in target_names() if load_target(name).power is not None]


@given(energy_j=st.floats(1e-6, 1), latency_s=st.none() | st.floats(1e-6, 10), share=st.floats(0.1, 3))
def test_a_latency_within_the_budget_spends_no_more_than_the_energy(
    energy_j: float, latency_s: float | None, share: float
) -> None:
    budget, note = within_energy(Budget(energy_j=energy_j, latency_s=latency_s), BOARD)
    assert budget.latency_s is not None and BOARD.power is not None and "energy:" in note
    cost = Cost(source=Source.ESTIMATED, latency_s=0.0, latency_interval_s=(0.0, share * budget.latency_s))
    if not budget.violations(cost):
        assert share * budget.latency_s * BOARD.power.high_w <= energy_j * (1 + 1e-9)
        assert latency_s is None or share * budget.latency_s <= latency_s


def test_without_a_limit_on_energy_the_budget_stays() -> None:
    budget = Budget(latency_s=0.1)
    assert within_energy(budget, load_target("rpi4")) == (budget, "")


def test_a_target_of_unknown_power_names_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="nothing is known of the power of rpi4") as caught:
        within_energy(Budget(energy_j=1e-3), load_target("rpi4"))
    assert caught.value.hint == f"known of: {', '.join(KNOWN)}" and len(KNOWN) >= 3


def test_energy_is_told_with_its_ends() -> None:
    cost = Cost(source=Source.ESTIMATED, latency_s=0.1, latency_interval_s=(0.08, 0.125))
    text = energy_text(cost, BOARD)
    assert text.startswith("energy: 4.6 mJ (3.14 mJ to 8.72 mJ) per inference, estimated")
    assert energy_text(Cost(source=Source.ESTIMATED), BOARD) == ""
    assert energy_text(cost, load_target("rpi4")) == ""


def test_power_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        Power(low_w=2, typical_w=1, high_w=3, results=1)
