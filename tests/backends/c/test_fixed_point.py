"""Rescaling rounds ties as the reference does: up in the product, away from zero in the division."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.fixed_point import fixed_point, rescale
from tests.backends.c.harness import reference
from tests.backends.c.steps import computed, one_step

BYTES = np.arange(-128, 128, dtype=np.int8)


@pytest.mark.parametrize("factor", [0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 1.5, 2.5])
def test_ties_are_rounded_as_the_reference_rounds_them(factor: float, tmp_path: Path) -> None:
    model = one_step("QUANTIZE", [computed((256,), factor / 8)], [computed((256,), 1 / 8, dtype="int16")])
    (expected,) = reference(model, [BYTES], tmp_path)
    np.testing.assert_array_equal(rescale(BYTES, fixed_point(factor)), expected)


def test_what_is_beyond_all_numbers_has_a_shift_that_checks_refuse() -> None:
    assert fixed_point(float("inf")).shift > 31 and fixed_point(1e300).shift > 31
    assert fixed_point(0.0).multiplier == 0 and fixed_point(1e-30).multiplier == 0
