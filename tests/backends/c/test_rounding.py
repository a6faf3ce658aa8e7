"""Multipliers of fully connected layers: exact on every sum, or none."""

import numpy as np
import pytest

from edgeprune.backends.c.rounding import long_rescale, rounded, short_rescale, thresholds


@pytest.mark.parametrize("factor", [0.4, 0.25, 1 / 3, 2**-7, 0.9 * 2**-9])
@pytest.mark.parametrize("zero", [-128, 3, 127])
def test_both_multipliers_make_every_result(factor: float, zero: int) -> None:
    sums = np.arange(-(2**16), 2**16, dtype=np.int64)
    between = thresholds(factor, zero, int(sums[0]), int(sums[-1]))
    expected = np.clip(rounded(sums, factor) + zero, -128, 127)
    short, long = short_rescale(factor, between), long_rescale(factor, between)
    assert short is not None and long is not None
    multiplier, shift = short
    made = ((sums * multiplier >> 31) + (1 << (shift - 1))) >> shift
    np.testing.assert_array_equal(np.clip(made + zero, -128, 127), expected)
    high, low, shift = long
    product = sums * high + (sums * low >> 31)
    made = (product + (1 << (shift - 1))) >> shift
    np.testing.assert_array_equal(np.clip(made + zero, -128, 127), expected)


def test_thresholds_are_those_that_sums_can_reach() -> None:
    between = thresholds(0.5, 0, -3, 4)
    assert between.results.tolist() == [-1, 0, 1, 2, 3]
    assert between.sums.tolist() == [-2, 0, 1, 3, 5]


def test_a_factor_of_nothing_has_no_thresholds() -> None:
    between = thresholds(0.0, 0, -100, 100)
    assert between.sums.size == 0
    assert short_rescale(0.0, between) == (0, 1)
    assert long_rescale(0.0, between) == (0, 0, 1)


def test_a_factor_of_more_than_a_half_has_only_a_long_multiplier() -> None:
    between = thresholds(0.75, 0, -1000, 1000)
    assert short_rescale(0.75, between) is None
    assert long_rescale(0.75, between) is not None


def test_a_factor_whose_products_are_ties_but_for_double_precision_has_no_multiplier() -> None:
    between = thresholds(0.7 * 2.0**-21, 0, -(2**31), 2**31)
    assert short_rescale(0.7 * 2.0**-21, between) is None and long_rescale(0.7 * 2.0**-21, between) is None
