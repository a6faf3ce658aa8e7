"""Means, sums, maxima and minima against LiteRT's kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.ops import reduce
from edgeprune.errors import UnsupportedError
from tests.backends.c import files, harness, thumb

Shape = tuple[int, ...]


def reducing(
    kind: str,
    shape: Shape,
    axes: tuple[int, ...],
    scales: tuple[float, float] = (0.05, 0.03),
    zeros: tuple[int, int] = (-128, 5),
    keep: bool = False,
) -> Model:
    if kind.startswith("REDUCE"):
        scales, zeros = (scales[0],) * 2, (zeros[0],) * 2
    gone = {axis % len(shape) for axis in axes}
    output = tuple(1 if axis in gone else size for axis, size in enumerate(shape) if keep or axis not in gone)
    quantizations = [Quantization((float(np.float32(s)),), (zero,)) for s, zero in zip(scales, zeros, strict=True)]
    tensors = (
        Tensor("input", shape, "int8", quantizations[0]),
        Tensor("axes", (len(axes),), "int32", None, np.array(axes, np.int32)),
        Tensor("output", output, "int8", quantizations[1]),
    )
    return Model(tensors, (Operator(kind, (0, 1), (2,), {"keep_dims": keep}, version=2),), (0,), (2,))


def values(shape: Shape, seed: int) -> Array:
    draw = np.random.default_rng(seed)
    return draw.integers(draw.integers(-128, 60), 128, shape).astype(np.int8)


def expected(model: Model, inputs: list[Array], folder: Path) -> Array:
    """The reference's; of sums, which it leaves unset, those of the other built-in kernel without a delegate."""
    if model.operators[0].kind != "SUM":
        return harness.reference(model, inputs, folder)[0]
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    loaded = Interpreter(str(files.write(model, folder / "sum.tflite")), experimental_op_resolver_type=resolver)
    loaded.allocate_tensors()
    loaded.set_tensor(loaded.get_input_details()[0]["index"], inputs[0])
    loaded.invoke()
    found: Array = loaded.get_tensor(loaded.get_output_details()[0]["index"])
    return found


CASES: list[tuple[Shape, tuple[int, ...]]] = [
    ((1, 5, 5, 10), (1, 2)),
    ((2, 7, 9, 4), (2, 1)),
    ((1, 6, 10, 37), (3,)),
    ((1, 6, 10, 37), (-1, 1)),
    ((2, 9, 50), (1,)),
    ((3, 4, 2, 5), (0, 2)),
    ((3, 4, 2, 5), (0, 1, 2, 3)),
    ((2, 700, 4), (1,)),
    ((1, 25, 5, 8), (1, 2)),
    ((4, 1, 6), (1,)),
    ((5, 7), (0,)),
]
QUANTIZATIONS: list[dict[str, Any]] = [
    {},
    {"scales": (0.05, 0.05), "zeros": (-128, -128), "keep": True},
    {"scales": (0.01, 0.9), "zeros": (3, 127)},
    {"scales": (0.7, 0.05), "zeros": (127, -128), "keep": True},
]


@pytest.mark.parametrize("kind", reduce.KINDS)
@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_outputs_are_those_of_the_reference(kind: str, shape: Shape, axes: tuple[int, ...], tmp_path: Path) -> None:
    first = CASES.index((shape, axes)) % 2
    for seed, quantization in enumerate(QUANTIZATIONS[2 * first : 2 * first + 2]):
        model, inputs = reducing(kind, shape, axes, **quantization), [values(shape, seed)]
        (found,) = harness.run(model, inputs, tmp_path)
        np.testing.assert_array_equal(found, expected(model, inputs, tmp_path), err_msg=str(quantization))


@pytest.mark.parametrize("kind", reduce.KINDS)
@pytest.mark.parametrize(("shape", "axes"), [CASES[0]])
def test_an_emulated_core_agrees(kind: str, shape: Shape, axes: tuple[int, ...], tmp_path: Path) -> None:
    thumb.needed()
    model, inputs = reducing(kind, shape, axes), [values(shape, 1)]
    for compiler in thumb.compilers():
        (found,), _ = thumb.run(model, inputs, tmp_path, compiler)
        np.testing.assert_array_equal(found, expected(model, inputs, tmp_path))


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (0, {"dtype": "int16"}, "input is not int8"),
        (2, {"quantization": None}, "output is not int8"),
        (1, {"data": None}, "computed, not constant"),
        (0, {"quantization": Quantization((1e9,), (0,))}, "exceed 32 bits"),
        (0, {"shape": (2,) * 9}, "alternate too often"),
    ],
)
def test_what_cannot_be_exact_is_refused(index: int, changes: dict[str, Any], message: str) -> None:
    model = reducing("MEAN", (2,) * 9, (0, 2, 4, 6)) if "shape" in changes else reducing("MEAN", (1, 2, 3), (1,))
    tensors = list(model.tensors)
    tensors[index] = replace(tensors[index], **changes)
    with pytest.raises(UnsupportedError, match=message):
        reduce.check(replace(model, tensors=tuple(tensors)), model.operators[0])


def test_an_extreme_at_another_scale_is_refused() -> None:
    model = reducing("REDUCE_MAX", (1, 2, 3), (1,))
    output = replace(model.tensors[2], quantization=Quantization((0.9,), (0,)))
    with pytest.raises(UnsupportedError, match="not quantised as the input"):
        reduce.check(replace(model, tensors=(*model.tensors[:2], output)), model.operators[0])
