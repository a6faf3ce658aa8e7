"""Depthwise convolutions against LiteRT's reference kernel."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Step, lowering
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.ops import depthwise
from edgeprune.errors import UnsupportedError
from tests.backends.c import harness, thumb


@dataclass(frozen=True)
class Layer:
    """A depthwise layer to be made at random.

    Attributes:
        extreme: Weights and inputs at the ends of their range only.
        spread: Standard deviation of the outputs in stored steps, roughly.
    """

    input: tuple[int, int, int, int] = (1, 5, 6, 3)
    kernel: tuple[int, int] = (3, 3)
    multiplier: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    activation: str = "NONE"
    zero: int = -128
    output_zero: int = -128
    per_channel: bool = True
    bias: bool = True
    extreme: bool = False
    spread: float = 60.0
    added: bool = False


def made(layer: Layer, seed: int = 0) -> tuple[Model, list[Array]]:
    """The model of a layer, and inputs for it."""
    draw = np.random.default_rng(seed)
    channels = layer.input[3] * layer.multiplier
    shape = (1, *layer.kernel, channels)
    weights = draw.choice([-127, 127], shape) if layer.extreme else draw.integers(-127, 128, shape)
    scales = draw.uniform(0.002, 0.006, channels if layer.per_channel else 1)
    strength = 73 * 73 * np.sqrt(np.prod(layer.kernel)) * 0.02 * 0.004
    output_scale = float(np.float32(strength / layer.spread))
    bias = draw.integers(-3000, 3000, channels)
    output = _output_shape(layer, channels)
    tensors = [
        Tensor("input", layer.input, "int8", Quantization((float(np.float32(0.02)),), (layer.zero,))),
        Tensor("filter", shape, "int8", _quantization(scales), weights.astype(np.int8)),
        Tensor("output", output, "int8", Quantization((output_scale,), (layer.output_zero,))),
        Tensor("bias", (channels,), "int32", _quantization(0.02 * scales, 0), bias.astype(np.int32)),
    ]
    options = {"padding": layer.padding, "depth_multiplier": layer.multiplier}
    options |= {"stride_h": layer.stride[0], "stride_w": layer.stride[1]}
    options |= {"dilation_h_factor": layer.dilation[0], "dilation_w_factor": layer.dilation[1]}
    fused = "NONE" if layer.added else layer.activation
    operator = Operator(
        "DEPTHWISE_CONV_2D",
        (0, 1, 3) if layer.bias else (0, 1),
        (2,),
        {**options, "fused_activation_function": fused},
        version=3,
    )
    inputs = [_values(draw, layer.input, layer.extreme)]
    if not layer.added:
        return Model(tuple(tensors), (operator,), (0,), (2,)), inputs
    tensors += [Tensor("other", output, "int8", Quantization((float(np.float32(output_scale * 0.7)),), (3,)))]
    tensors += [Tensor("sum", output, "int8", Quantization((float(np.float32(output_scale * 1.1)),), (-7,)))]
    addition = Operator("ADD", (4, 2), (5,), {"fused_activation_function": layer.activation}, version=2)
    return Model(tuple(tensors), (operator, addition), (0, 4), (5,)), [*inputs, _values(draw, output, layer.extreme)]


def _quantization(scales: Array, axis: int = 3) -> Quantization:
    stored = tuple(float(scale) for scale in scales.astype(np.float32))
    return Quantization(stored, (0,) * len(stored), axis if len(stored) > 1 else 0)


def _values(draw: np.random.Generator, shape: tuple[int, ...], extreme: bool) -> Array:
    values = draw.choice([-128, 127], shape) if extreme else draw.integers(-128, 128, shape)
    return values.astype(np.int8)


def _output_shape(layer: Layer, channels: int) -> tuple[int, ...]:
    sizes = []
    for size, kernel, stride, dilation in zip(
        layer.input[1:3], layer.kernel, layer.stride, layer.dilation, strict=True
    ):
        fitting = size if layer.padding == "SAME" else size - (kernel - 1) * dilation
        sizes.append(-(-fitting // stride))
    return (layer.input[0], *sizes, channels)


SLIDING = [
    Layer(),
    Layer((1, 25, 5, 4), activation="RELU"),
    Layer((2, 6, 6, 2), stride=(2, 2)),
    Layer((1, 7, 5, 2), stride=(2, 2), zero=127, output_zero=127),
    Layer((1, 5, 9, 2), stride=(2, 1), zero=3, output_zero=-4, activation="RELU6"),
    Layer((1, 9, 5, 2), stride=(1, 2), zero=3, output_zero=0, activation="RELU_N1_TO_1"),
    Layer((1, 1, 1, 3), extreme=True),
    Layer((1, 1, 6, 2)),
    Layer((1, 2, 1, 2), stride=(2, 2), bias=False),
    Layer((1, 2, 2, 2), stride=(2, 2)),
    Layer((1, 5, 6, 3), padding="VALID", zero=7),
    Layer((1, 3, 3, 3), padding="VALID", extreme=True),
    Layer((1, 8, 6, 2), padding="VALID", stride=(2, 2), per_channel=False),
    Layer((1, 6, 4, 5), extreme=True, spread=400.0),
    Layer((1, 6, 4, 5), spread=0.01),
    Layer(added=True, activation="RELU"),
    Layer((2, 6, 6, 2), added=True, stride=(2, 2), extreme=True),
]
OTHERS = [
    Layer(kernel=(5, 5), input=(1, 9, 11, 3)),
    Layer(kernel=(10, 4), input=(1, 49, 10, 1), multiplier=4, stride=(2, 2), zero=83),
    Layer((1, 6, 5, 1), multiplier=3, added=True),
    Layer(dilation=(2, 2), input=(1, 9, 12, 2)),
    Layer(dilation=(3, 1), input=(1, 4, 3, 2), zero=127, padding="SAME"),
    Layer(multiplier=2),
    Layer(kernel=(1, 1), multiplier=3, stride=(3, 2), extreme=True),
    Layer(kernel=(2, 7), input=(2, 4, 20, 2), padding="VALID", stride=(1, 2)),
    Layer(stride=(3, 3), input=(1, 10, 10, 2)),
    Layer(spread=1e5, extreme=True),
    Layer(spread=4e5),
    Layer(added=True, kernel=(5, 1), output_zero=4, spread=2e3),
]


@pytest.mark.parametrize("layer", SLIDING + OTHERS)
def test_outputs_are_those_of_the_reference(layer: Layer, tmp_path: Path) -> None:
    model, inputs = made(layer)
    (expected,) = harness.reference(model, inputs, tmp_path)
    (found,) = harness.run(model, inputs, tmp_path)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layer", [SLIDING[-1], OTHERS[-1]])
def test_the_output_may_lie_over_what_is_added(layer: Layer, tmp_path: Path) -> None:
    model, inputs = made(layer)
    (expected,) = harness.reference(model, inputs, tmp_path)
    step = Step(*model.operators)
    assert depthwise.lower(model, step, "dsp").overwrites == (1,)
    library = ctypes.CDLL(str(harness.compiled(model, step, tmp_path, "plain", ("-O1",))))
    source, other = (np.ascontiguousarray(array) for array in inputs)
    library.run(*(array.ctypes.data_as(ctypes.c_void_p) for array in (source, other, other)))
    np.testing.assert_array_equal(other, expected)


def test_the_output_may_not_lie_over_an_input_that_is_added_to_itself(tmp_path: Path) -> None:
    model, inputs = made(Layer(added=True))
    addition = replace(model.operators[1], inputs=(2, 0))
    model = replace(model, operators=(model.operators[0], addition), inputs=(0,))
    assert depthwise.lower(model, Step(*model.operators), "dsp").overwrites == ()
    (expected,) = harness.reference(model, inputs[:1], tmp_path)
    np.testing.assert_array_equal(harness.run(model, inputs[:1], tmp_path)[0], expected)


@pytest.mark.parametrize("layer", SLIDING)
def test_3x3_filters_slide(layer: Layer) -> None:
    model, _ = made(layer)
    assert lowering("DEPTHWISE_CONV_2D").lower(model, Step(*model.operators), "dsp").kernels == ("ep_depthwise_3x3",)


@pytest.mark.parametrize("layer", [*SLIDING[3:5], SLIDING[-1], OTHERS[0], OTHERS[-1]])
def test_an_emulated_core_agrees(layer: Layer, tmp_path: Path) -> None:
    thumb.needed()
    model, inputs = made(layer)
    (expected,) = harness.reference(model, inputs, tmp_path)
    for compiler in thumb.compilers():
        (found,), _ = thumb.run(model, inputs, tmp_path, compiler)
        np.testing.assert_array_equal(found, expected)


def test_random_layers_agree(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for seed in range(6):
        layer = Layer(
            input=(int(draw.integers(1, 3)), *(int(n) for n in draw.integers(3, 14, 2)), int(draw.integers(1, 6))),
            kernel=(3, 3) if seed % 2 else (int(draw.integers(1, 4)), int(draw.integers(1, 4))),
            stride=(int(draw.integers(1, 3)), int(draw.integers(1, 3))),
            padding=str(draw.choice(["SAME", "VALID"])),
            activation=str(draw.choice(["NONE", "RELU", "RELU6"])),
            zero=int(draw.integers(-128, 128)),
            output_zero=int(draw.integers(-128, 128)),
            extreme=bool(draw.integers(2)),
        )
        model, inputs = made(layer, seed)
        (expected,) = harness.reference(model, inputs, tmp_path)
        (found,) = harness.run(model, inputs, tmp_path)
        np.testing.assert_array_equal(found, expected, err_msg=str(layer))


def _changed(model: Model, index: int, **changes: object) -> Model:
    tensors = list(model.tensors)
    tensors[index] = replace(tensors[index], **changes)  # type: ignore[arg-type]
    return replace(model, tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (0, {"dtype": "int16"}, "input is not int8"),
        (2, {"quantization": None}, "output is not int8"),
        (1, {"data": None}, "computed, not constant"),
        (3, {"data": None}, "computed, not constant"),
        (3, {"dtype": "int64"}, "bias is int64"),
        (3, {"data": np.full(3, 2**31 - 1, np.int32)}, "exceed 32 bits"),
        (1, {"quantization": Quantization((1e9, 1e9, 1e9), (0,) * 3, 3)}, "exceed 32 bits"),
        (1, {"quantization": Quantization((0.1,), (1,))}, "has a zero point"),
        (1, {"quantization": Quantization((0.1, 0.1), (0, 0), 3)}, "neither one nor one for each channel"),
    ],
)
def test_what_cannot_be_exact_is_refused(index: int, changes: dict[str, object], message: str) -> None:
    model, _ = made(Layer())
    with pytest.raises(UnsupportedError, match=message):
        depthwise.check(_changed(model, index, **changes), model.operators[0])


@pytest.mark.parametrize(
    ("option", "value", "message"), [("padding", "WRAP", "WRAP"), ("fused_activation_function", "TANH", "TANH")]
)
def test_unknown_options_are_refused(option: str, value: str, message: str) -> None:
    model, _ = made(Layer())
    operator = replace(model.operators[0], options={**model.operators[0].options, option: value})
    with pytest.raises(UnsupportedError, match=message):
        depthwise.check(model, operator)


def test_a_window_that_does_not_fit_is_refused() -> None:
    model, _ = made(Layer())
    operator = replace(model.operators[0], options={**model.operators[0].options, "padding": "VALID"})
    with pytest.raises(UnsupportedError, match="does not fit"):
        depthwise.check(_changed(model, 0, shape=(1, 2, 6, 3)), operator)
