"""SOFTMAX: the tables over many scales, and rows of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.model import Model, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.harness import run
from tests.backends.c.steps import assert_exact, check, computed, one_step


def _model(shape: tuple[int, ...], scale: float, beta: float = 1.0) -> Model:
    return one_step("SOFTMAX", [computed(shape, scale, 3)], [computed(shape, 1 / 256, -128)], beta=beta)


def _every_pair() -> Array:
    """Rows of a greatest value, then one of each difference to it: (256, 2)."""
    rows = np.full((256, 2), 127)
    rows[:, 1] -= np.arange(256)
    return rows.astype(np.int8)


SCALES = [1e-7, 0.0004, 0.0039, 0.017, 0.0625, 0.1, 0.149, 0.25, 0.71, 1.0, 2.5, 8.0, 31.0, 40.0]


@pytest.mark.parametrize("scale", SCALES)
def test_every_difference_and_random_rows(scale: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(int(scale * 1e4))
    pairs = _every_pair()
    mixed = rng.integers(-128, 128, (300, 2)).astype(np.int8)
    near = (127 - rng.geometric(0.05, (300, 2)).clip(0, 255)).astype(np.int8)
    assert_exact(_model((856, 2), scale), [np.concatenate([pairs, mixed, near])], tmp_path)


@pytest.mark.parametrize("depth", [1, 12, 101, 511])
@pytest.mark.parametrize("scale", [0.002, 0.06, 0.3])
def test_rows_of_many_lengths(depth: int, scale: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(depth)
    spread = np.clip(rng.normal(0, rng.uniform(1, 90, (60, 1)), (60, depth)), -128, 127)
    same = np.repeat([[-128], [0], [127]], depth, 1)
    alone = np.where(np.arange(depth) == depth // 2, 127, -128)[None]
    rows = np.concatenate([spread, same, alone]).astype(np.int8)
    assert_exact(_model(rows.shape, scale), [rows], tmp_path)


@pytest.mark.parametrize("depth", [1000, 4095])
def test_long_rows_with_few_great_values(depth: int, tmp_path: Path) -> None:
    """The reference stops where a sum is 512 times its greatest summand or more, so these rows stay below."""
    rng = np.random.default_rng(depth)
    rows = rng.integers(-128, 0, (20, depth)).astype(np.int8)
    rows[:, ::400] = rng.integers(60, 100, rows[:, ::400].shape)
    assert_exact(_model(rows.shape, 0.2), [rows], tmp_path)


@pytest.mark.parametrize("beta", [0.01, 0.5, 3.0])
def test_beta_scales_the_input(beta: float, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).integers(-128, 128, (2, 50, 7)).astype(np.int8)
    assert_exact(_model(rows.shape, 0.05, beta), [rows], tmp_path)


GOOD = computed((1, 8), 0.1)
PROBABILITIES = computed((1, 8), 1 / 256, -128)
REFUSED = [
    (computed((1, 8), 0.1, 0, "int16"), PROBABILITIES, 1.0, "it goes from int16 to int8"),
    (GOOD, computed((1, 8), 1 / 128, -128), 1.0, "its output has scale 0.007812 and zero point -128"),
    (computed((1, 4096), 0.1), computed((1, 4096), 1 / 256, -128), 1.0, "its rows have 4096 values, 4095 at most"),
    (computed((1, 8), 1e-9), PROBABILITIES, 1.0, "its beta times its input scale is below"),
]


@pytest.mark.parametrize(("source", "result", "beta", "message"), REFUSED)
def test_what_sums_do_not_hold_is_refused(source: Tensor, result: Tensor, beta: float, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(one_step("SOFTMAX", [source], [result], beta=beta))


def test_equal_values_of_a_long_row_are_all_nearest_to_zero(tmp_path: Path) -> None:
    (found,) = run(_model((1, 1001), 0.1), [np.zeros((1, 1001), np.int8)], tmp_path)
    assert (found == -128).all()
