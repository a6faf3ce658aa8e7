from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeprune.errors import QualityError, UsageError
from edgeprune.quantization.ranges import RangePolicy, observe, rounded, value_range

VALUES = arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e4, 1e4, width=32))


@given(values=VALUES)
def test_minmax_range_holds_every_value_and_zero(values: np.ndarray) -> None:
    lo, hi = value_range(values, RangePolicy())
    assert lo == min(0, values.min()) and hi == max(0, values.max())


@given(values=VALUES, percentile=st.floats(50.5, 100))
@example(values=np.array([1e-45, 0], np.float32), percentile=90.0)
def test_percentile_range_holds_zero_the_asked_share_and_nothing_beyond_minmax(
    values: np.ndarray, percentile: float
) -> None:
    lo, hi = value_range(values, RangePolicy(method="percentile", percentile=percentile))
    full_lo, full_hi = value_range(values, RangePolicy())
    slack = 1e-6 * (full_hi - full_lo)
    assert full_lo - slack <= lo <= 0 <= hi <= full_hi + slack
    assert np.mean(values <= hi + slack) >= percentile / 100 - 1e-9
    assert np.mean(values >= lo - slack) >= percentile / 100 - 1e-9


@given(values=VALUES, parts=st.integers(1, 5), method=st.sampled_from(["minmax", "percentile"]))
def test_observing_in_parts_equals_observing_at_once(values: np.ndarray, parts: int, method: str) -> None:
    policy = RangePolicy(method=method, percentile=90)
    pieces = [{"t": piece} for piece in np.array_split(values, min(parts, len(values)))]
    assert observe(lambda: pieces, policy)["t"] == value_range(values, policy)


def test_percentile_cuts_a_lone_outlier() -> None:
    values = np.append(np.linspace(-1, 1, 100_000), 1000).astype(np.float32)
    lo, hi = value_range(values, RangePolicy(method="percentile", percentile=99.9))
    assert hi < 2 and lo >= -1.5


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(QualityError, match="gives values from .* to inf"):
        value_range(np.array([1.0, np.inf], np.float32), RangePolicy())


def test_no_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="no calibration samples"):
        observe(lambda: [], RangePolicy())


@pytest.mark.parametrize("percentile", [50, 100.5, -1])
def test_a_percentile_outside_its_range_is_refused(percentile: float) -> None:
    with pytest.raises(UsageError, match="outside"):
        value_range(np.ones(3, np.float32), RangePolicy(method="percentile", percentile=percentile))


@settings(max_examples=40)
@given(values=VALUES)
def test_the_range_of_least_error_is_never_worse_than_minmax(values: np.ndarray) -> None:
    exact = values.astype(np.float64)

    def error(method: Literal["minmax", "mse"]) -> float:
        return float(np.mean(np.square(exact - rounded(exact, value_range(values, RangePolicy(method=method))))))

    assert error("mse") <= error("minmax") * (1 + 1e-9) + 1e-12


def test_a_lone_outlier_is_cut_where_that_makes_the_error_less() -> None:
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 60.0)
    lo, hi = value_range(values, RangePolicy(method="mse"))
    kept, cut = (np.mean(np.square(values - rounded(values, (values.min(), end)))) for end in (60.0, hi))
    assert hi < 55 and lo < -3 and cut < 0.98 * kept
    even = np.random.default_rng(0).uniform(-1, 1, 100_000)
    assert value_range(even, RangePolicy(method="mse")) == value_range(even, RangePolicy())
