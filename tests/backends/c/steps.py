"""Models of one operator for tests, and the check that C and the reference agree on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import lowering
from edgeprune.backends.c.model import DataType, Model, Operator, Option, Quantization, Tensor
from tests.backends.c.harness import reference, run


def computed(
    shape: Sequence[int], scale: float | None = 0.1, zero_point: int = 0, dtype: DataType = "int8", name: str = "x"
) -> Tensor:
    """A tensor without data; without quantisation where `scale` is None."""
    kept = None if scale is None else Quantization((float(np.float32(scale)),), (int(zero_point),))
    return Tensor(name, tuple(map(int, shape)), dtype, kept)


def constant(values: object, dtype: DataType = "int32", scale: float | None = None, zero_point: int = 0) -> Tensor:
    """A tensor with data."""
    data = np.array(values, dtype)
    kept = None if scale is None else Quantization((float(np.float32(scale)),), (int(zero_point),))
    return Tensor("constant", data.shape, dtype, kept, data)


def one_step(kind: str, sources: Sequence[Tensor], results: Sequence[Tensor], **options: Option) -> Model:
    """A model of one operator; its inputs are the sources without data."""
    tensors = (*sources, *results)
    inputs = tuple(range(len(sources)))
    outputs = tuple(range(len(sources), len(tensors)))
    taken = tuple(i for i in inputs if sources[i].data is None)
    return Model(tensors, (Operator(kind, inputs, outputs, options),), taken, outputs)


def filled(model: Model, rng: np.random.Generator) -> list[Array]:
    """Random inputs over the whole range of their formats."""
    return [drawn(model.tensor(i).shape, model.tensor(i).dtype, rng) for i in model.inputs]


def drawn(shape: Sequence[int], dtype: DataType, rng: np.random.Generator) -> Array:
    """Random values over the whole range of a format."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def check(model: Model) -> None:
    """What the lowering of the only operator refuses."""
    lowering(model.operators[0].kind).check(model, model.operators[0])


def assert_exact(model: Model, inputs: list[Array], folder: Path) -> None:
    """No output value of the compiled step differs from the reference."""
    check(model)
    for ours, expected in zip(run(model, inputs, folder), reference(model, inputs, folder), strict=True):
        np.testing.assert_array_equal(ours, expected)
