"""BATCH_MATMUL: both flags, constant and computed operands, broadcast batches, saturation, scales that decide ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.model import Model, Quantization, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.steps import assert_exact, check, computed, constant, drawn, filled, one_step


def _model(
    batches: tuple[tuple[int, ...], tuple[int, ...]],
    sizes: tuple[int, int, int],
    flags: tuple[bool, bool],
    scale: float,
    held: Tensor | None = None,
) -> Model:
    """(rows, depth) times (depth, columns); `held` in the place of the second operand."""
    rows, depth, columns = sizes
    a = computed((*batches[0], *((depth, rows) if flags[0] else (rows, depth))), 0.05, 4)
    b = held or computed((*batches[1], *((columns, depth) if flags[1] else (depth, columns))), 0.03, -7, name="b")
    result = computed((*np.broadcast_shapes(*batches), rows, columns), scale, -9, name="y")
    return one_step("BATCH_MATMUL", [a, b], [result], adj_x=flags[0], adj_y=flags[1])


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("batches", "sizes"), [(((), ()), (3, 4, 5)), (((2, 3), (3,)), (2, 5, 3)), (((1,), (4,)), (1, 7, 6))]
)
def test_products_of_every_layout(
    batches: tuple[tuple[int, ...], tuple[int, ...]],
    sizes: tuple[int, int, int],
    flags: tuple[bool, bool],
    tmp_path: Path,
) -> None:
    model = _model(batches, sizes, flags, 0.4)
    assert_exact(model, filled(model, np.random.default_rng(sum(sizes))), tmp_path)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_constant_operand(flipped: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    held = constant(drawn((6, 8) if flipped else (8, 6), "int8", rng), "int8", 0.03, -7)
    model = _model(((2,), ()), (3, 8, 6), (False, flipped), 0.4, held)
    assert_exact(model, filled(model, rng), tmp_path)


@pytest.mark.parametrize("scale", [0.0000005, 0.0005, 0.01, 30.0])
def test_saturated_and_vanishing_results(scale: float, tmp_path: Path) -> None:
    model = _model(((), ()), (4, 4, 4), (False, False), scale)
    assert_exact(model, filled(model, np.random.default_rng(9)), tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_ties_fall_where_the_products_of_float32_scales_say(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.uniform(-5, 0, 2)).astype(np.float32)
    result = computed((9, 11), float(scales[0] * scales[1] * np.float32(2 << seed % 3)), -1)
    model = one_step("BATCH_MATMUL", [computed((9, 2), scales[0]), computed((2, 11), scales[1])], [result])
    inputs = [drawn((9, 2), "int8", rng), rng.integers(-2, 3, (2, 11)).astype(np.int8)]
    assert_exact(model, inputs, tmp_path)


A, B, Y = computed((2, 2)), computed((2, 2)), computed((2, 2))
PER_CHANNEL = Tensor("b", (2, 2), "int8", Quantization((0.1, 0.2), (0, 0), 1))
REFUSED = [
    (computed((2, 2), dtype="int16"), B, Y, "x is int16, not int8"),
    (A, PER_CHANNEL, Y, "b has not one scale for all its values"),
    (computed((2, 40000)), computed((40000, 2)), Y, "sums of 40000 products rescaled by 2 \\*\\* -3 need more than"),
    (A, B, computed((2, 2), 1e-8), "sums of 2 products rescaled by 2 \\*\\* 20 need more than 32 bits"),
]


@pytest.mark.parametrize(("a", "b", "result", "message"), REFUSED)
def test_what_sums_do_not_hold_is_refused(a: Tensor, b: Tensor, result: Tensor, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(one_step("BATCH_MATMUL", [a, b], [result]))
