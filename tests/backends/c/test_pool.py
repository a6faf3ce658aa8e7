"""Pools against LiteRT's reference kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.ops import pool
from edgeprune.errors import UnsupportedError
from tests.backends.c import harness, thumb

Shape = tuple[int, int, int, int]


def pooling(
    kind: str,
    shape: Shape,
    size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    zero: int = 3,
    activation: str = "NONE",
) -> Model:
    quantization = Quantization((float(np.float32(0.05)),), (zero,))
    spatial = [
        -(-(extent if padding == "SAME" else extent - window + 1) // step)
        for extent, window, step in zip(shape[1:3], size, stride, strict=True)
    ]
    output = (shape[0], *spatial, shape[3])
    options = {"padding": padding, "filter_height": size[0], "filter_width": size[1]}
    options |= {"stride_h": stride[0], "stride_w": stride[1], "fused_activation_function": activation}
    tensors = (Tensor("input", shape, "int8", quantization), Tensor("output", output, "int8", quantization))
    return Model(tensors, (Operator(kind, (0,), (1,), options, version=2),), (0,), (1,))


def values(shape: Shape, seed: int = 0) -> Array:
    draw = np.random.default_rng(seed)
    return draw.integers(draw.integers(-128, 0), draw.integers(1, 129), shape).astype(np.int8)


CASES: list[dict[str, Any]] = [
    {"shape": (1, 25, 5, 8), "size": (25, 5), "padding": "VALID", "stride": (25, 5)},
    {"shape": (2, 5, 6, 7), "size": (3, 3), "stride": (2, 2), "activation": "RELU"},
    {"shape": (1, 7, 6, 5), "size": (2, 4), "stride": (1, 3), "zero": -128, "activation": "RELU6"},
    {"shape": (1, 17, 31, 4), "size": (17, 31), "padding": "VALID", "zero": 127},
    {"shape": (1, 9, 300, 4), "size": (2, 290), "padding": "VALID", "activation": "RELU_N1_TO_1"},
    {"shape": (2, 4, 4, 16), "size": (2, 2), "stride": (2, 2), "padding": "VALID"},
    {"shape": (1, 2, 2, 1), "size": (5, 5), "stride": (3, 1)},
]


@pytest.mark.parametrize("kind", pool.KINDS)
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_reference(kind: str, case: dict[str, Any], tmp_path: Path) -> None:
    model = pooling(kind, **case)
    inputs = [values(case["shape"])]
    (expected,) = harness.reference(model, inputs, tmp_path)
    (found,) = harness.run(model, inputs, tmp_path)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", pool.KINDS)
@pytest.mark.parametrize("case", [CASES[1], CASES[4]])
def test_an_emulated_core_agrees(kind: str, case: dict[str, Any], tmp_path: Path) -> None:
    thumb.needed()
    model = pooling(kind, **case)
    inputs = [values(case["shape"])]
    (expected,) = harness.reference(model, inputs, tmp_path)
    for compiler in thumb.compilers():
        (found,), _ = thumb.run(model, inputs, tmp_path, compiler)
        np.testing.assert_array_equal(found, expected)


def test_extremes_fill_the_lanes(tmp_path: Path) -> None:
    for kind in pool.KINDS:
        model = pooling(kind, (1, 255, 2, 4), (255, 2), padding="VALID")
        for value in (-128, 127):
            inputs = [np.full((1, 255, 2, 4), value, np.int8)]
            assert np.all(harness.run(model, inputs, tmp_path)[0] == value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int16"}, "is not int8"),
        ({"quantization": None}, "is not int8"),
        ({"quantization": Quantization((0.05,), (4,))}, "not quantised as the input"),
        ({"quantization": Quantization((0.051,), (3,))}, "not quantised as the input"),
    ],
)
def test_what_cannot_be_exact_is_refused(changes: dict[str, Any], message: str) -> None:
    model = pooling("MAX_POOL_2D", (1, 2, 2, 1), (2, 2))
    changed = replace(model, tensors=(model.tensors[0], replace(model.tensors[1], **changes)))
    with pytest.raises(UnsupportedError, match=message):
        pool.check(changed, changed.operators[0])
