"""Activations and QUANTIZE: every result of every function at many quantisations, and the loops around the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.model import DataType, Model, Option, Tensor
from edgeprune.backends.c.tables import FUNCTIONS, requantized, table
from edgeprune.errors import UnsupportedError
from tests.backends.c.harness import reference
from tests.backends.c.steps import assert_exact, check, computed, drawn, one_step

QUANTISATIONS = 24
OPTIONS: dict[str, list[dict[str, Option]]] = {
    "LEAKY_RELU": [{"alpha": alpha} for alpha in (0.0, 0.01, 0.1, 0.3, 1.0, 1.5)],
    "GELU": [{"approximate": False}, {"approximate": True}],
}
CASES = [(kind, options) for kind in FUNCTIONS for options in OPTIONS.get(kind, [{}])]
BYTES = np.arange(256, dtype=np.uint8)


def _ends(kind: str, rng: np.random.Generator, case: int) -> tuple[Tensor, Tensor]:
    """Both ends of an operator; hard swish needs a result not 128 times finer.

    Sometimes of one scale, or of scales whose ratio is so close to a fraction that its rounding decides ties.
    """
    zero_in, zero_out = rng.integers(-128, 128, 2)
    zero_in = -128 if kind in ("SQRT", "RSQRT") else zero_in
    scale_in = float(np.exp(rng.uniform(-7, 0.5)))
    scale_out = float(np.exp(rng.uniform(-4 if kind == "HARD_SWISH" else -7, 0)))
    if case % 3 == 0:
        scale_in = float(np.float32(scale_out) * np.float32((1, 0.5, 1.5, 0.25, 0.75, 1.25, 2.5)[case // 3 % 7]))
    if kind == "LOGISTIC":
        scale_out, zero_out = 1 / 256, -128
    elif kind == "TANH":
        scale_out, zero_out = 1 / 128, 0
    return computed((256,), scale_in, zero_in), computed((256,), scale_out, zero_out, name="y")


@pytest.mark.parametrize(("kind", "options"), CASES, ids=lambda value: value if isinstance(value, str) else str(value))
def test_every_result_is_that_of_the_reference(kind: str, options: dict[str, Option], tmp_path: Path) -> None:
    rng = np.random.default_rng(len(kind))
    for case in range(QUANTISATIONS):
        source, result = _ends(kind, rng, case)
        model = one_step(kind, [source], [result], **options)
        ours = table(FUNCTIONS[kind], source, result, options)
        np.testing.assert_array_equal(ours, reference(model, [BYTES.view(np.int8)], tmp_path)[0])


def _model(kind: str, source: Tensor, result: Tensor, **options: Option) -> Model:
    return one_step(kind, [source], [result], **options)


@pytest.mark.parametrize("count", [1, 3, 4, 259])
def test_tables_are_looked_up_whatever_the_number_of_values(count: int, tmp_path: Path) -> None:
    model = _model("TANH", computed((count,), 0.02, 3), computed((count,), 1 / 128, 0))
    assert_exact(model, [drawn((count,), "int8", np.random.default_rng(count))], tmp_path)


def test_a_function_that_only_clamps_needs_no_table(tmp_path: Path) -> None:
    model = _model("RELU6", computed((256,), 0.05, -20), computed((256,), 0.05, -20))
    assert_exact(model, [BYTES.view(np.int8)], tmp_path)


FORMATS = [("int8", "int8"), ("int8", "uint8"), ("int8", "int16"), ("uint8", "int8"), ("uint8", "uint8")]
FORMATS += [("uint8", "int16"), ("int16", "int8"), ("int16", "int16")]


def _quantize(source: DataType, result: DataType, rng: np.random.Generator) -> Model:
    zero_points = [0 if dtype == "int16" else int(rng.integers(0, 128)) for dtype in (source, result)]
    scales = [float(np.exp(rng.uniform(-6, 0))) / (256 if dtype == "int16" else 1) for dtype in (source, result)]
    ends = [computed((2000,), *end) for end in zip(scales, zero_points, (source, result))]
    return _model("QUANTIZE", *ends)


@pytest.mark.parametrize(("source", "result"), FORMATS)
def test_quantize_between_formats(source: DataType, result: DataType, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    assert_exact(_quantize(source, result, rng), [drawn((2000,), source, rng)], tmp_path)


def test_every_requantised_byte_is_that_of_the_reference(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for case in range(QUANTISATIONS):
        source, result = _ends("QUANTIZE", rng, case)
        expected = reference(_model("QUANTIZE", source, result), [BYTES.view(np.int8)], tmp_path)[0]
        np.testing.assert_array_equal(table(requantized, source, result, {}), expected)


REFUSED = [
    ("RELU", computed((2,), 0.1, 0, "int16"), computed((2,)), {}, "x is int16, not int8"),
    ("RELU", computed((2,), 20000.0), computed((2,), 1.0), {}, "its input scale is 2e+04 times its output scale"),
    ("LEAKY_RELU", computed((2,)), computed((2,)), {"alpha": -0.5}, "its alpha is -0.5, negative"),
    ("HARD_SWISH", computed((2,), 12.9), computed((2,), 0.1), {}, "its input scale is 129 times its output scale"),
    ("SQRT", computed((2,), 0.1, -127), computed((2,)), {}, "may be negative: its zero point is -127, not -128"),
    ("RSQRT", computed((2,), 1e-9, -128), computed((2,), 1e-9), {}, "its output scale 1e-09 is too fine for its input"),
    ("RSQRT", computed((2,), 0.1, 0), computed((2,)), {}, "may be negative: its zero point is 0, not -128"),
    ("QUANTIZE", computed((2,), 0.1, 0, "int32"), computed((2,)), {}, "it goes from int32 to int8"),
    ("QUANTIZE", computed((2,), 0.1, 0, "int16"), computed((2,), dtype="uint8"), {}, "it goes from int16 to uint8"),
]


@pytest.mark.parametrize(("kind", "source", "result", "options", "message"), REFUSED)
def test_what_cannot_be_exact_is_refused(
    kind: str, source: Tensor, result: Tensor, options: dict[str, Option], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message.replace("+", r"\+")):
        check(_model(kind, source, result, **options))
