"""Padding that moves into convolutions, and padding that stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends.c import lowering
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.rewrite import absorb_padding
from tests.backends.c.harness import reference, run

REAL = lowering.lowerings
INT8 = Quantization((0.5,), (3,))
EDGES = np.array([[0, 0], [1, 2], [3, 4], [0, 0]], np.int32)


class Padding:
    PADS = True


class Plain:
    pass


def padded(edges: Any = EDGES, padding: str = "VALID", kind: str = "CONV_2D") -> Model:
    """An image, padded by 1, 2, 3 and 4 pixels, through a convolution."""
    tensors = (
        Tensor("image", (1, 5, 5, 4), "int8", INT8),
        Tensor("edges", edges.shape, "int32", None, edges),
        Tensor("padded", (1, 8, 12, 4), "int8", INT8),
        Tensor("weights", (2, 3, 3, 4), "int8", INT8, np.zeros((2, 3, 3, 4), np.int8)),
        Tensor("answer", (1, 6, 10, 2), "int8", INT8),
        Tensor("other", (1, 6, 10, 2), "int8", INT8),
    )
    pad, conv = Operator("PAD", (0, 1), (2,)), Operator(kind, (2, 3, None), (4,), {"padding": padding})
    return Model(tensors, (pad, conv), (0,), (4,))


@pytest.fixture(autouse=True)
def _who_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "lowerings", lambda: {"CONV_2D": Padding(), "FULLY_CONNECTED": Plain()})


def test_a_convolution_reads_what_its_padding_read() -> None:
    conv = absorb_padding(padded()).operators[1]
    assert conv.inputs == (0, 3, None)
    assert conv.options == {
        "padding": "EXPLICIT", "pad_top": 1, "pad_bottom": 2, "pad_left": 3, "pad_right": 4
    }  # fmt: skip


@pytest.mark.parametrize(
    "net",
    [
        padded(padding="SAME"),
        padded(kind="FULLY_CONNECTED"),
        padded(kind="MAX_POOL_2D"),
        padded(np.array([[0, 0], [1, 2], [3, 4], [0, 1]], np.int32)),
        padded(np.array([[1, 0], [1, 2], [3, 4], [0, 0]], np.int32)),
    ],
)
def test_padding_that_a_convolution_cannot_take_stays(net: Model) -> None:
    assert absorb_padding(net).operators == net.operators


def image_net(kind: str, edges: tuple[int, int, int, int], stride: int, seed: int) -> Model:
    """A PAD by rows above and below and columns left and right, then a 3x3 convolution of the padded image."""
    rng = np.random.default_rng(seed)
    channels, (top, bottom, left, right) = 4, edges
    shape = (1, 7 + top + bottom, 6 + left + right, channels)
    out = (1, (shape[1] - 3) // stride + 1, (shape[2] - 3) // stride + 1, channels)
    filters = (channels, 3, 3, channels) if kind == "CONV_2D" else (1, 3, 3, channels)
    axis = 0 if kind == "CONV_2D" else 3
    scales, int8 = tuple(np.float32(rng.uniform(0.001, 0.01, channels)).tolist()), Quantization((0.5,), (-7,))
    tensors = (
        Tensor("image", (1, 7, 6, channels), "int8", int8),
        Tensor("edges", (4, 2), "int32", None, np.array([[0, 0], edges[:2], edges[2:], [0, 0]], np.int32)),
        Tensor("padded", shape, "int8", int8),
        Tensor(
            "weights", filters, "int8", Quantization(scales, (0,) * 4, axis), rng.integers(-127, 128, filters, np.int8)
        ),
        Tensor(
            "bias", (channels,), "int32", Quantization(tuple(0.5 * scale for scale in scales), (0,) * 4),
            rng.integers(-999, 999, channels).astype(np.int32),
        ),
        Tensor("answer", out, "int8", Quantization((0.6,), (5,))),
    )  # fmt: skip
    options = {"padding": "VALID", "stride_h": stride, "stride_w": stride, "fused_activation_function": "RELU"}
    options |= {"dilation_h_factor": 1, "dilation_w_factor": 1}
    if kind == "DEPTHWISE_CONV_2D":
        options["depth_multiplier"] = 1
    operators = (Operator("PAD", (0, 1), (2,), {}, 2), Operator(kind, (2, 3, 4), (5,), options, 3))
    return Model(tensors, operators, (0,), (5,))


@pytest.mark.parametrize("variant", ["plain", "dsp"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("edges", [(1, 1, 1, 1), (2, 0, 0, 2), (0, 1, 3, 0), (3, 4, 5, 2)])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_a_convolution_that_pads_is_the_reference_after_its_padding(
    kind: str, edges: Any, stride: int, variant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowering, "lowerings", REAL)
    net = image_net(kind, edges, stride, seed=sum(edges) + stride)
    image = [np.random.default_rng(1).integers(-128, 128, net.tensor(0).shape, np.int8)]
    padding = absorb_padding(net).operators[1]
    assert padding.options["padding"] == "EXPLICIT"
    found = run(replace(net, operators=(padding,)), image, tmp_path, variant)
    assert np.array_equal(found[0], reference(net, image, tmp_path)[0])


def changed(net: Model, index: int, **values: Any) -> Model:
    tensors = list(net.tensors)
    tensors[index] = replace(tensors[index], **values)
    return replace(net, tensors=tuple(tensors))


def test_padding_that_others_see_or_that_says_something_else_stays() -> None:
    net = padded()
    rescaled = changed(net, 2, quantization=Quantization((0.25,), (3,)))
    computed = changed(net, 1, data=None)
    constant = changed(net, 0, data=np.zeros((1, 5, 5, 4), np.int8))
    unscaled = changed(net, 0, quantization=None)
    read = replace(net, operators=(*net.operators, Operator("RELU", (2,), (5,))))
    output = replace(net, outputs=(4, 2))
    valued = replace(net, operators=(replace(net.operators[0], inputs=(0, 1, 0)), net.operators[1]))
    for kept in (rescaled, computed, constant, unscaled, read, output, valued):
        assert absorb_padding(kept).operators == kept.operators
