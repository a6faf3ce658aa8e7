"""Laws of a calibrated model: whole tiles, no price below zero, nothing that falls when a width grows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeprune.device.calibrated import PRODUCTS, STAND_INS, CalibratedModel, Law, amounts, law_name
from edgeprune.device.latency import Band
from edgeprune.device.ops import Op
from tests.device.test_latency import ops

NAMES = (
    *PRODUCTS,
    *("depthwise", "add", "mul", "concat", "pad", "resize", "softmax", "move.slice", "mean"),
    *("pool.max", "activation.logistic", "activation.relu"),
)


def op(kind: Any, inputs: int, outputs: int, positions: int = 49, kernel: int = 1, **more: Any) -> Op:
    groups = inputs if kind == "depthwise" else 1
    return Op("y", kind, ("x",), "y", inputs, outputs, positions, positions, kernel, groups, **more)


def model(seed: int, **changes: Any) -> CalibratedModel:
    """Random prices; tiles of 7 positions, 16 outputs and 8 inputs."""
    random = np.random.default_rng(seed)
    laws = {
        name: Law(tiles=(7, 16, 8), prices_s=tuple(random.exponential(1e-9, 8)), rows=5, error=0.01) for name in NAMES
    }
    fields = {
        "laws": laws,
        "cache_bytes": 4096,
        "call_s": 1e-6,
        "band": Band(low=0.9, high=1.1),
        "runtime": "tflite",
        "threads": 1,
    }
    return CalibratedModel(precision="int8", **{**fields, **changes})


@given(op=ops(), seed=st.integers(0, 99), more=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_an_op_costs_time_and_never_less_when_it_is_wider(op: Op, seed: int, more: tuple[int, int]) -> None:
    table = model(seed)
    same = op.in_channels == op.out_channels and op.kind != "conv"
    wider = op.resized(op.in_channels + more[0], op.out_channels + (more[0] if same else more[1]))
    assert 0 < table.op_s(op) <= table.op_s(wider) * (1 + 1e-12)


@given(seed=st.integers(0, 99), inputs=st.integers(1, 64), outputs=st.integers(1, 64), kernel=st.sampled_from([1, 9]))
def test_widths_within_a_tile_differ_by_what_is_moved_alone(seed: int, inputs: int, outputs: int, kernel: int) -> None:
    def up(width: int, tile: int) -> int:
        return -(-width // tile) * tile

    tiles, narrow = (7, 16, 8), op("conv", inputs, outputs, kernel=kernel)
    wide = op("conv", up(inputs, 8), up(outputs, 16), kernel=kernel)
    products = slice(0, 5)  # what is moved comes after
    assert amounts(narrow, tiles, None, 1)[products] == amounts(wide, tiles, None, 1)[products]
    assert amounts(wide, tiles, None, 1)[1] == wide.macs  # 49 positions are whole tiles of 7


def test_what_is_moved_beyond_the_cache_has_its_own_price() -> None:
    moved = op("move", 10, 10, 100)
    assert amounts(moved, (1, 1, 1), None, 1)[-1] == 0
    assert amounts(moved, (1, 1, 1), 1500, 1)[-1] == 500
    assert amounts(moved, (1, 1, 1), 1500, 4)[-1] == 6500


def test_laws_go_by_form_and_function() -> None:
    assert law_name(op("conv", 8, 8)) == law_name(op("dense", 8, 8)) == "pointwise"
    assert law_name(op("conv", 8, 8, 1)) == law_name(op("dense", 8, 8, 1)) == "dense"
    assert law_name(op("conv", 8, 8, 1, kernel=9)) == law_name(op("conv", 8, 8, transposed=True)) == "spatial"
    assert law_name(op("pool", 8, 8, function="max")) == "pool.max"


def test_the_call_counts_once_and_the_model_survives_a_file() -> None:
    table, several = model(1), [op("conv", 8, 8), op("add", 8, 8)]
    assert table.total_s(several) == pytest.approx(1e-6 + sum(map(table.op_s, several)))
    assert table.total_s([]) == pytest.approx(1e-6)
    assert table.interval_s(several) == pytest.approx((0.9 * table.total_s(several), 1.1 * table.total_s(several)))
    assert CalibratedModel.model_validate_json(table.model_dump_json()) == table


@pytest.mark.parametrize(("kind", "law"), sorted(STAND_INS.items()))
def test_an_operator_that_was_not_measured_has_a_law_that_stands_in(kind: Any, law: str) -> None:
    table = model(2)
    assert table.law(op(kind, 8, 8)) == table.laws[law]
    assert table.op_s(op(kind, 8, 8)) > 0


def test_without_any_law_an_op_costs_nothing_and_a_function_of_its_own_goes_before() -> None:
    empty = model(3, laws={})
    assert empty.op_s(op("conv", 8, 8)) == 0
    known = model(3, laws={"pool": model(4).laws["add"], "pool.max": model(4).laws["pool.max"]})
    assert known.law(op("pool", 8, 8, function="max")) == known.laws["pool.max"]


def test_a_transposed_convolution_works_at_its_inputs() -> None:
    spread = replace(op("conv", 8, 16, 49, 9, transposed=True), out_positions=196)
    assert amounts(spread, (7, 16, 8), None, 1)[1] == spread.macs == 49 * 16 * 8 * 9


@pytest.mark.parametrize("wrong", [{"prices_s": (-1e-9,)}, {"tiles": (0, 1, 1)}])
def test_prices_below_zero_and_empty_tiles_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="tiles are at least 1 and prices not negative"):
        Law(**{"tiles": (1, 1, 1), "prices_s": (1e-9,), "rows": 1, "error": 0.0, **wrong})
