"""Convolutions in C against LiteRT's reference kernels, value by value."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends.c.lowering import Step, Variant, lowering
from edgeprune.backends.c.model import Model, Quantization
from edgeprune.errors import UnsupportedError
from tests.backends.c import thumb
from tests.backends.c.harness import reference, run
from tests.backends.c.layers import Layer, layer_model

LAYERS = {
    "three by three": Layer((1, 5, 6, 4), 8, (3, 3), activation="RELU"),
    "odd everything": Layer((2, 7, 5, 3), 5, (3, 2), stride=(2, 1), padding="VALID", activation="RELU6"),
    "one channel": Layer((1, 9, 10, 1), 6, (4, 4), stride=(2, 2), per_channel=False),
    "pointwise": Layer((1, 5, 5, 16), 12, (1, 1)),
    "pointwise with stride": Layer((1, 7, 7, 6), 7, (1, 1), stride=(2, 3)),
    "dilated": Layer((1, 9, 9, 4), 4, (3, 3), dilation=(2, 3), activation="RELU_N1_TO_1"),
    "dilated outside": Layer((1, 3, 3, 8), 4, (3, 3), dilation=(3, 4)),
    "groups": Layer((1, 5, 5, 12), 9, (3, 3), groups=3),
    "groups of fours": Layer((2, 4, 6, 16), 8, (3, 3), groups=2, stride=(1, 2)),
    "kernel wider than the image": Layer((1, 2, 3, 5), 3, (5, 7)),
    "one pixel": Layer((1, 1, 1, 10), 2, (1, 1), per_channel=False, activation="RELU"),
    "saturating": Layer((1, 4, 4, 8), 4, (3, 3), extreme=True, spread=200.0),
    "long sums": Layer((1, 3, 3, 300), 4, (3, 3), extreme=True),
    "first of a network": Layer((1, 10, 10, 3), 8, (3, 3), stride=(2, 2), activation="RELU"),
    "long": Layer((1, 3, 3, 256), 4, (3, 3)),
    "scaled up": Layer((1, 3, 3, 4), 4, (1, 1), spread=5e6),
    "scaled to nothing": Layer((1, 3, 3, 4), 4, (1, 1), spread=1e-7),
}


@pytest.mark.parametrize("variant", ["plain", "dsp"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_reference_convolution(name: str, variant: Variant, tmp_path: Path) -> None:
    model, inputs = layer_model(LAYERS[name])
    np.testing.assert_array_equal(run(model, inputs, tmp_path, variant)[0], reference(model, inputs, tmp_path)[0])


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize("name", LAYERS)
def test_its_assembly_is_the_reference_convolution(name: str, compiler: str, tmp_path: Path) -> None:
    thumb.needed()
    if compiler not in thumb.compilers():
        pytest.skip(f"needs the tool {compiler}")
    model, inputs = layer_model(LAYERS[name])
    (output,), _ = thumb.run(model, inputs, tmp_path, compiler)
    np.testing.assert_array_equal(output, reference(model, inputs, tmp_path)[0])


@pytest.mark.parametrize("variant", ["plain", "dsp"])
@pytest.mark.parametrize("seed", range(4))
def test_with_the_addition_behind_it_is_both(seed: int, variant: Variant, tmp_path: Path) -> None:
    activation = ("NONE", "RELU", "RELU6", "NONE")[seed]
    layer = Layer((1, 5, 3, 4), (8, 6, 8, 7)[seed], (3, 3), activation=activation, seed=seed, spread=80)
    model, inputs = layer_model(layer, added=("RELU", "NONE", "RELU", "RELU6")[seed])
    expected = reference(model, inputs, tmp_path)[0]
    np.testing.assert_array_equal(run(model, inputs, tmp_path, variant)[0], expected)


@pytest.mark.parametrize("seed", range(2))
def test_with_the_addition_behind_it_its_assembly_is_both(seed: int, tmp_path: Path) -> None:
    thumb.needed()
    model, inputs = layer_model(Layer((1, 5, 3, 4), (8, 6)[seed], (3, 3), seed=seed, spread=80), added="NONE")
    (output,), _ = thumb.run(model, inputs, tmp_path)
    np.testing.assert_array_equal(output, reference(model, inputs, tmp_path)[0])


def test_its_sum_may_lie_over_the_other_summand_but_never_over_what_it_reads() -> None:
    model, _ = layer_model(Layer((1, 4, 4, 8), 8, (3, 3)), added="NONE")
    assert lowering("CONV_2D").lower(model, Step(*model.operators), "dsp").overwrites == (1,)
    tensors = (*model.tensors[:4], model.tensors[0], model.tensors[5])
    adding = replace(model.operators[1], inputs=(3, 0))
    itself = Model(tensors, (model.operators[0], adding), (0,), (5,))
    assert lowering("CONV_2D").lower(itself, Step(*itself.operators), "dsp").overwrites == ()


@pytest.mark.parametrize("variant", ["plain", "dsp"])
def test_its_own_input_can_be_added_to_it(variant: Variant, tmp_path: Path) -> None:
    model, (values, _) = layer_model(Layer((1, 4, 4, 8), 8, (3, 3)), added="RELU")
    adding = replace(model.operators[1], inputs=(3, 0))
    itself = Model(model.tensors, (model.operators[0], adding), (0,), (5,))
    expected = reference(itself, [values], tmp_path)[0]
    np.testing.assert_array_equal(run(itself, [values], tmp_path, variant)[0], expected)


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        (Layer((1, 4, 4, 8), 8, (3, 3), activation="TANH"), {}, "TANH"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {0: {"dtype": "int16"}}, "values of int16 to int8"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {1: {"dtype": "uint8"}}, "weights of uint8"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {1: {"data": None}}, "computed"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {2: {"data": None}}, "computed"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {2: {"dtype": "int64"}}, "biases of int64"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {1: {"quantization": Quantization((0.1,), (3,))}}, "zero point is not 0"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {2: {"data": np.full(8, 2**31 - 1, np.int32)}}, "need more than 32 bits"),
        (Layer((1, 4, 4, 8), 8, (3, 3)), {1: {"quantization": Quantization((1e9,), (0,))}}, "need more than 32 bits"),
    ],
)
def test_what_it_cannot_do_exactly_is_refused(layer: Layer, change: dict[int, Any], message: str) -> None:
    model, _ = layer_model(layer)
    tensors = tuple(replace(tensor, **change.get(at, {})) for at, tensor in enumerate(model.tensors))
    changed = replace(model, tensors=tensors)
    with pytest.raises(UnsupportedError, match=message):
        lowering("CONV_2D").check(changed, changed.operators[0])


@pytest.mark.parametrize("variant", ["plain", "dsp"])
@pytest.mark.parametrize("factor", [0.5, 1 / 3, 0.9 * 2**-8, 0.99 * 2**-22, 2**-24])
@pytest.mark.parametrize("activation", ["NONE", "RELU"])
def test_every_sum_is_rescaled_twice(factor: float, activation: str, variant: Variant, tmp_path: Path) -> None:
    """Biases are the sums: around every threshold between two outputs."""
    thresholds = (np.arange(-140, 141) - 0.5) / factor
    near = np.rint(thresholds[:, None] + np.arange(-4, 5)).ravel()
    sums = np.unique(np.clip(near, -(2**23) + 1, 2**23 - 1)).astype(np.int32)
    model, inputs = layer_model(Layer((1, 1, 1, 1), sums.size, (1, 1), per_channel=False, activation=activation))
    source, weights, bias, output = model.tensors
    one, scaled = Quantization((1.0,), (0,)), Quantization((float(np.float32(factor)),), (0,))
    changed = replace(weights, quantization=scaled, data=np.zeros_like(weights.data))
    tensors = (replace(source, quantization=one), changed, replace(bias, quantization=scaled, data=sums))
    exact = replace(model, tensors=(*tensors, replace(output, quantization=Quantization((1.0,), (-3,)))))
    np.testing.assert_array_equal(run(exact, inputs, tmp_path, variant)[0], reference(exact, inputs, tmp_path)[0])


def test_a_dead_channel_does_not_keep_the_others_from_being_packed(tmp_path: Path) -> None:
    model, inputs = layer_model(Layer((1, 4, 4, 8), 5, (1, 1)))
    scales = (*model.tensors[1].quantization.scales[:3], 1e-12, model.tensors[1].quantization.scales[4])
    weights, bias = model.tensors[1].data.copy(), model.tensors[2].data.copy()
    weights[3], bias[3] = 0, 2**29
    dead = Quantization(scales, (0,) * 5)
    changed = (replace(model.tensors[1], data=weights, quantization=dead), replace(model.tensors[2], data=bias))
    alive = replace(model, tensors=(model.tensors[0], *changed, model.tensors[3]))
    assert lowering("CONV_2D").lower(alive, Step(*alive.operators), "dsp").kernels == ("ep_conv_packed",)
    np.testing.assert_array_equal(run(alive, inputs, tmp_path, "dsp")[0], reference(alive, inputs, tmp_path)[0])


def test_sums_that_packing_could_wrap_are_not_packed() -> None:
    model, _ = layer_model(LAYERS["long sums"])
    assert lowering("CONV_2D").lower(model, Step(*model.operators), "dsp").kernels == ("ep_conv",)


@pytest.mark.parametrize(
    ("layer", "most"),
    [
        (Layer((1, 8, 8, 64), 64, (3, 3)), 0.84),
        (Layer((1, 12, 12, 64), 64, (1, 1)), 0.96),
        (Layer((1, 32, 32, 3), 16, (3, 3)), 1.75),
    ],
)
def test_instructions_for_each_multiplication_stay_few(layer: Layer, most: float, tmp_path: Path) -> None:
    thumb.needed()
    model, inputs = layer_model(layer)
    _, count = thumb.run(model, inputs, tmp_path)
    assert count <= most * model.tensors[1].size * model.tensors[3].size / layer.channels
