"""Padding that moves into convolutions, and padding that stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeprune.backends.c import lowering
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.rewrite import absorb_padding

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
