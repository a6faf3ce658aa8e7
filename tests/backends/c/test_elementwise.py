"""Operators on two tensors, value by value, against LiteRT's reference kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Step
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.ops import elementwise
from edgeprune.errors import UnsupportedError
from tests.backends.c import harness, thumb

Shape = tuple[int, ...]
SCALES = (0.05, 0.02, 0.04)
ZEROS = (-128, 127, 5)


def combining(
    kind: str,
    first: Shape,
    second: Shape,
    scales: tuple[float, float, float] = SCALES,
    zeros: tuple[int, int, int] = ZEROS,
    activation: str = "NONE",
    constant: Array | None = None,
) -> Model:
    if kind in ("MAXIMUM", "MINIMUM"):
        scales, zeros = (scales[0],) * 3, (zeros[0],) * 3
    shapes = (first, second, np.broadcast_shapes(first, second))
    tensors = [
        Tensor(name, shape, "int8", Quantization((float(np.float32(scale)),), (zero,)))
        for name, shape, scale, zero in zip(("first", "second", "output"), shapes, scales, zeros, strict=True)
    ]
    tensors[1] = replace(tensors[1], data=constant)
    options = {"fused_activation_function": activation} if kind in ("ADD", "SUB", "MUL") else {}
    inputs = (0, 1) if constant is None else (0,)
    version = 1 if kind == "PRELU" else 2
    return Model(tuple(tensors), (Operator(kind, (0, 1), (2,), options, version=version),), inputs, (2,))


def values(shape: Shape, seed: int) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def pairs() -> list[Array]:
    """All pairs of int8 values."""
    return list((np.indices((256, 256)).reshape(2, 1, -1) - 128).astype(np.int8))


def agrees(model: Model, inputs: list[Array], folder: Path) -> None:
    (expected,) = harness.reference(model, inputs, folder)
    (found,) = harness.run(model, inputs, folder)
    np.testing.assert_array_equal(found, expected)


QUANTIZATIONS: list[dict[str, Any]] = [
    {},
    {"zeros": (3, -7, -128), "activation": "RELU"},
    {"scales": (0.02, 0.02, 0.02), "zeros": (127, -128, 0), "activation": "RELU6"},
    {"scales": (0.5, 0.25, 0.125), "zeros": (0, 0, 0), "activation": "RELU_N1_TO_1"},
    {"scales": (0.001, 0.9, 0.02), "zeros": (-1, 0, 127)},
    {"scales": (2e-4, 1e-3, 3.0), "zeros": (0, 0, -20)},
    {"scales": (1.0, 2.0, 0.3), "zeros": (1, 2, 3)},
    {"scales": (1.7, 1.3, 3.0), "zeros": (0, 1, 3)},
]
SHAPES: list[tuple[Shape, Shape]] = [
    ((2, 3, 5), (2, 3, 5)),
    ((2, 3, 5, 7), (7,)),
    ((2, 3, 5, 7), (2, 1, 1, 7)),
    ((1,), (4, 9)),
    ((3, 4), ()),
    ((2, 1, 3, 1), (1, 5, 1, 6)),
    ((2, 1, 4, 1, 3), (2, 3, 1, 2, 1)),
    ((1, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "PRELU"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_pair_is_combined_as_the_reference_does(kind: str, quantization: dict[str, Any], tmp_path: Path) -> None:
    agrees(combining(kind, (1, 65536), (1, 65536), **quantization), pairs(), tmp_path)


RANDOM = np.random.default_rng(5).uniform(-6, 0, (12, 3))


@pytest.mark.parametrize("kind", ["SQUARED_DIFFERENCE", "PRELU"])
def test_random_scales(kind: str, tmp_path: Path) -> None:
    for case, logarithms in enumerate(RANDOM):
        first, second, output = np.exp(logarithms)
        if case % 3 == 0:  # ratios that are powers of two, so that halves decide
            second, output = first * 2.0 ** (case - 6), first * first * 4
        agrees(combining(kind, (16, 64), (16, 64), (first, second, output)), [values((16, 64), case)] * 2, tmp_path)
        agrees(
            combining(kind, (16, 64), (64,), (first, second, output)), [values((16, 64), 1), values((64,), 2)], tmp_path
        )


@pytest.mark.parametrize("kind", ["MAXIMUM", "MINIMUM"])
def test_the_larger_and_the_smaller_of_every_pair_are_found(kind: str, tmp_path: Path) -> None:
    agrees(combining(kind, (1, 65536), (1, 65536)), pairs(), tmp_path)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [("ADD", *shapes) for shapes in SHAPES]
    + [(kind, *shapes) for kind in elementwise.KINDS[1:] if kind != "PRELU" for shapes in (SHAPES[3], SHAPES[6])]
    + [("PRELU", *shapes) for shapes in SHAPES[1:3]],
)
def test_shapes_are_broadcast(kind: str, first: Shape, second: Shape, tmp_path: Path) -> None:
    agrees(combining(kind, first, second), [values(first, 1), values(second, 2)], tmp_path)


@pytest.mark.parametrize("kind", elementwise.KINDS)
def test_an_emulated_core_agrees(kind: str, tmp_path: Path) -> None:
    thumb.needed()
    for first, second in (SHAPES[0], SHAPES[4]):
        if kind == "PRELU" and np.broadcast_shapes(first, second) != first:
            continue
        model, inputs = combining(kind, first, second), [values(first, 1), values(second, 2)]
        (expected,) = harness.reference(model, inputs, tmp_path)
        for compiler in thumb.compilers():
            (found,), _ = thumb.run(model, inputs, tmp_path, compiler)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", elementwise.KINDS)
def test_a_constant_is_part_of_the_library(kind: str, tmp_path: Path) -> None:
    agrees(combining(kind, (3, 5), (5,), constant=values((5,), 3)), [values((3, 5), 1)], tmp_path)


def test_the_output_may_lie_over_what_is_not_repeated() -> None:
    for shapes, over in ((SHAPES[0], (0, 1)), (SHAPES[1], (0,)), (SHAPES[3], (1,)), (SHAPES[5], ())):
        model = combining("MUL", *shapes)
        assert elementwise.lower(model, Step(*model.operators), "plain").overwrites == over
    model = combining("MUL", (3, 5), (5,), constant=values((5,), 3))
    assert elementwise.lower(model, Step(*model.operators), "plain").overwrites == (0,)


@pytest.mark.parametrize(
    ("kind", "index", "changes", "message"),
    [
        ("ADD", 0, {"dtype": "int16"}, "first is not int8"),
        ("MUL", 2, {"quantization": None}, "output is not int8"),
        ("SUB", 2, {"quantization": Quantization((1e-9,), (0,))}, "18 times finer"),
        ("MUL", 2, {"quantization": Quantization((1e-9,), (0,))}, "more than 2"),
        ("PRELU", 2, {"quantization": Quantization((1e-9,), (0,))}, "more than 2"),
        ("PRELU", 0, {"shape": (1, 3)}, "enlarge an input"),
        ("SQUARED_DIFFERENCE", 2, {"quantization": Quantization((1e-9,), (0,))}, "rescaled by more than 2"),
        ("MAXIMUM", 2, {"quantization": Quantization((0.1,), (0,))}, "not quantised as the output"),
        ("MUL", 2, {"shape": (2, 4)}, "not broadcast"),
        ("MUL", 1, {"shape": (2, 2)}, "not broadcast"),
        ("MUL", 1, {"shape": (1, 2, 3)}, "not broadcast"),
    ],
)
def test_what_cannot_be_exact_is_refused(kind: str, index: int, changes: dict[str, Any], message: str) -> None:
    model = combining(kind, (2, 3), (2, 3))
    tensors = list(model.tensors)
    tensors[index] = replace(tensors[index], **changes)
    with pytest.raises(UnsupportedError, match=message):
        elementwise.check(replace(model, tensors=tuple(tensors)), model.operators[0])


def test_too_many_loops_are_refused() -> None:
    model = combining("MUL", (2, 1, 2, 1, 2, 1), (1, 2, 1, 2, 1, 2))
    with pytest.raises(UnsupportedError, match="alternate too often"):
        elementwise.check(model, model.operators[0])
