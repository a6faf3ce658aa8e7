"""Fully connected layers in C against LiteRT's reference kernels, value by value."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.lowering import Variant, lowering
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c import thumb
from tests.backends.c.harness import reference, run
from tests.backends.c.layers import Layer, layer_model

LAYERS = {
    "one vector": Layer((1, 64), 12, per_channel=False),
    "odd": Layer((1, 37), 5, activation="RELU6"),
    "one output": Layer((1, 3), 1, bias=False),
    "batch": Layer((3, 16), 9, per_channel=False, activation="RELU"),
    "leading dimensions": Layer((2, 3, 8), 6, keep_num_dims=True),
    "leading dimensions flattened": Layer((2, 1, 8), 6),
    "saturating": Layer((2, 40), 8, extreme=True, spread=150),
    "long sums": Layer((1, 3000), 4, extreme=True, per_channel=False),
    "scaled up": Layer((1, 5), 4, spread=5e6),
}


@pytest.mark.parametrize("variant", ["plain", "dsp"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_reference_layer(name: str, variant: Variant, tmp_path: Path) -> None:
    model, inputs = layer_model(LAYERS[name])
    np.testing.assert_array_equal(run(model, inputs, tmp_path, variant)[0], reference(model, inputs, tmp_path)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_its_assembly_is_the_reference_layer(name: str, tmp_path: Path) -> None:
    thumb.needed()
    model, inputs = layer_model(LAYERS[name])
    (output,), _ = thumb.run(model, inputs, tmp_path)
    np.testing.assert_array_equal(output, reference(model, inputs, tmp_path)[0])


@pytest.mark.parametrize("variant", ["plain", "dsp"])
@pytest.mark.parametrize("factor", [0.75, 0.5, 0.25, 0.9 * 2**-8, 1.01 * 2**-16, 0.99 * 2**-22])
def test_every_sum_is_rescaled_as_the_reference_rescales_it(factor: float, variant: Variant, tmp_path: Path) -> None:
    """Biases are the sums: around every threshold between two outputs, and both ends of what the kernels allow."""
    thresholds = (np.arange(-140, 141) - 0.5) / float(np.float32(factor))
    near = np.rint(thresholds[:, None] + np.arange(-4, 5)).ravel()
    sums = np.unique(np.clip(near, -(2**23) + 1, 2**23 - 1)).astype(np.int32)
    model = biases_alone(sums, factor)
    inputs = [np.zeros((1, 1), np.int8)]
    np.testing.assert_array_equal(run(model, inputs, tmp_path, variant)[0], reference(model, inputs, tmp_path)[0])


def biases_alone(sums: np.ndarray, factor: float) -> Model:
    weights = np.zeros((sums.size, 1), np.int8)
    one = Quantization((1.0,), (0,))
    output = Quantization((1.0,), (-3,))
    scaled = Quantization((float(np.float32(factor)),), (0,))
    tensors = (
        Tensor("source", (1, 1), "int8", one),
        Tensor("weights", weights.shape, "int8", scaled, weights),
        Tensor("bias", sums.shape, "int32", scaled, sums),
        Tensor("output", (1, sums.size), "int8", output),
    )
    return Model(tensors, (Operator("FULLY_CONNECTED", (0, 1, 2), (3,), {}),), (0,), (3,))


def test_another_weights_format_is_refused() -> None:
    model, _ = layer_model(Layer((1, 8), 4))
    operator = replace(model.operators[0], options={"weights_format": "SHUFFLED4x16INT8"})
    with pytest.raises(UnsupportedError, match="SHUFFLED4x16INT8"):
        lowering("FULLY_CONNECTED").check(model, operator)


def test_values_of_16_bits_are_refused() -> None:
    model, _ = layer_model(Layer((1, 8), 4))
    tensors = (replace(model.tensors[0], dtype="int16"), *model.tensors[1:])
    with pytest.raises(UnsupportedError, match="int16"):
        lowering("FULLY_CONNECTED").check(replace(model, tensors=tensors), model.operators[0])


def test_results_beyond_32_bits_are_refused() -> None:
    model = biases_alone(np.array([2**20], np.int32), 2**12)
    with pytest.raises(UnsupportedError, match="beyond 32 bits"):
        lowering("FULLY_CONNECTED").check(model, model.operators[0])


def test_a_scale_beyond_integers_is_refused() -> None:
    model = biases_alone(np.array([0], np.int32), 2.0**33)
    with pytest.raises(UnsupportedError, match="no integer multiplier"):
        lowering("FULLY_CONNECTED").check(model, model.operators[0])


def test_instructions_for_each_multiplication_stay_few(tmp_path: Path) -> None:
    thumb.needed()
    model, inputs = layer_model(Layer((1, 128), 128, per_channel=False))
    _, count = thumb.run(model, inputs, tmp_path)
    assert count <= 1.05 * 128 * 128
