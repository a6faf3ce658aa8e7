"""TRANSPOSE_CONV: kernels, strides, paddings, scales per channel, clamps and saturation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.model import Model, Option, Quantization, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.steps import assert_exact, check, computed, constant, filled, one_step


def _model(seed: int, scale: float = 0.3, **options: Option) -> Model:
    rng = np.random.default_rng(seed)
    channels, filters = map(int, rng.integers(1, 6, 2))
    kernel, strides, size = rng.integers(1, 5, (3, 2))
    same = seed % 2 == 0
    height, width = size * strides if same else (size - 1) * strides + kernel
    count = 1 if seed % 5 == 0 else filters
    scales = tuple(float(np.float32(value)) for value in rng.uniform(0.001, 0.02, count))
    weights = constant(rng.integers(-127, 128, (filters, *kernel, channels)), "int8")
    weights = replace(weights, name="w", quantization=Quantization(scales, (0,) * count))
    sources = [constant([2, height, width, filters]), weights, computed((2, *size, channels), 0.05, 7)]
    if seed % 3:
        bias = constant(rng.integers(-3000, 3000, filters), "int32")
        sources.append(replace(bias, quantization=Quantization(tuple(0.05 * s for s in scales), (0,) * count)))
    options = {"padding": "SAME" if same else "VALID", "stride_h": int(strides[0]), **options}
    result = computed((2, height, width, filters), scale, -9, name="y")
    model = one_step("TRANSPOSE_CONV", sources, [result], stride_w=int(strides[1]), **options)
    return replace(model, operators=(replace(model.operators[0], version=3),))


@pytest.mark.parametrize("seed", range(10))
def test_random_transposed_convolutions(seed: int, tmp_path: Path) -> None:
    model = _model(seed, fused_activation_function=("NONE", "RELU", "RELU6")[seed % 3])
    assert_exact(model, filled(model, np.random.default_rng(seed)), tmp_path)


@pytest.mark.parametrize("scale", [0.0001, 0.02, 100.0])
def test_saturated_and_vanishing_results(scale: float, tmp_path: Path) -> None:
    model = _model(4, scale)
    assert_exact(model, filled(model, np.random.default_rng(4)), tmp_path)


def _changed(position: int, tensor: Tensor) -> Model:
    model = _model(4)
    return replace(model, tensors=(*model.tensors[:position], tensor, *model.tensors[position + 1 :]))


GOOD = _model(4)
REFUSED = [
    (_changed(2, replace(GOOD.tensors[2], dtype="int16")), "x is int16, not int8"),
    (_changed(1, replace(GOOD.tensors[1], data=None)), "its weights are computed"),
    (_model(4, fused_activation_function="TANH"), "its activation is TANH, not one of NONE, RELU"),
    (_model(4, 1e-11), "sums of channel 0 rescaled by 2 \\*\\* "),
]


@pytest.mark.parametrize(("model", "message"), REFUSED)
def test_what_is_not_exact_is_refused(model: Model, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(model)
