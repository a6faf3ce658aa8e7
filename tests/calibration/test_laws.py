"""Laws found in measurements of a device whose laws are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.calibration.laws import Fitted, Timed, fit
from edgeprune.device.ops import Op
from tests.calibration import planted


def timed(noise: float, seed: int = 0, scale: float = 1.0) -> list[Timed]:
    """The design as the planted device times it."""
    random = np.random.default_rng(seed)
    return [
        Timed(
            entry.network.name,
            entry.family,
            ops,
            planted.total_s(ops) * float(np.exp(noise * random.standard_normal())),
        )
        for entry, ops in planted.written(scale)
    ]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(timed(0.005), "tflite", "int8", 1, "planted")


def test_planted_tiles_are_found_in_noisy_times(fitted: Fitted) -> None:
    laws = fitted.model.laws
    whole = (planted.ROWS, planted.OUTPUTS, planted.INPUTS)
    assert laws["spatial"].tiles == laws["pointwise"].tiles == whole
    assert laws["depthwise"].tiles == (1, planted.LANES, 1)
    assert laws["dense"].tiles[0] == 1
    assert fitted.model.call_s == pytest.approx(planted.CALL_S, rel=0.1)


def test_left_out_networks_are_foretold(fitted: Fitted) -> None:
    assert fitted.judged.networks >= 25
    assert fitted.judged.median < 0.01 and fitted.judged.rank_correlation > 0.99
    band = fitted.model.band
    inside = [
        band.low <= row.latency_s / fitted.model.total_s(row.ops) <= band.high for row in timed(0.005, 1) if row.family
    ]
    assert np.mean(inside) >= 0.8
    assert "planted; 80 % band" in fitted.model.source


@given(
    side=st.sampled_from([4, 7, 14, 28, 56]),
    widths=st.tuples(st.integers(4, 300), st.integers(4, 300)),
    kernel=st.sampled_from([1, 9]),
)
@settings(max_examples=60)
def test_any_convolution_within_the_design_is_foretold(
    fitted: Fitted, side: int, widths: tuple[int, int], kernel: int
) -> None:
    op = Op("y", "conv", ("x",), "y", *widths, side * side, side * side, kernel)
    assert fitted.model.op_s(op) == pytest.approx(planted.op_s(op), rel=0.06)


def test_outliers_bend_little(fitted: Fitted) -> None:
    rows = timed(0.005)
    spoiled = [
        Timed(row.name, row.family, row.ops, row.latency_s * (1.6 if n % 20 == 0 and not row.family else 1.0))
        for n, row in enumerate(rows)
    ]
    found = fit(spoiled, "tflite", "int8", 1, "")
    assert found.judged.median < 0.03
    assert found.model.laws["spatial"].tiles == fitted.model.laws["spatial"].tiles


def test_the_order_of_rows_does_not_matter() -> None:
    rows = timed(0.01, scale=0.35)
    assert fit(rows, "tflite", "int8", 1, "") == fit(rows[::-1], "tflite", "int8", 1, "")


def test_a_vaguer_device_has_a_wider_band(fitted: Fitted) -> None:
    vague = fit(timed(0.1), "tflite", "int8", 1, "").model.band
    assert vague.high > 1.1 > fitted.model.band.high > 1 > fitted.model.band.low > vague.low


def test_a_fit_without_whole_networks_is_refused() -> None:
    chains = [row for row in timed(0.0, scale=0.35) if not row.family]
    with pytest.raises(ValueError, match="whole networks of at least two families"):
        fit(chains, "tflite", "int8", 1, "")
