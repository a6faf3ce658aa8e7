"""Networks written from sizes alone: every backend that writes them says the truth about their sizes and runs them."""

from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import backends
from edgeprune.backends import noise
from edgeprune.device.networks import Layer, Network, shapes
from edgeprune.errors import UnsupportedError

WRITERS = sorted(backends.writers())
EVERY_KIND = Network(
    "every-kind",
    (8, 8, 5),
    (
        Layer("conv", (0,), 12, 3, 2, activation="relu"),
        Layer("depthwise", (1,), kernel=3, activation="relu6"),
        Layer("conv", (2,), 12, groups=2),
        Layer("add", (3, 1), activation="relu"),
        Layer("activation", (4,), activation="hard_swish"),
        Layer("pool", (5,), kernel=2, stride=2, activation="max"),
        Layer("resize", (6,), stride=2),
        Layer("pool", (7,), kernel=3, activation="average"),
        Layer("pad", (8,), kernel=3),
        Layer("conv", (9,), 7, 3, 2),
        Layer("concat", (10, 10)),
        Layer("mean", (11,)),
        Layer("dense", (12,), 14),
        Layer("activation", (13,), activation="logistic"),
        Layer("mul", (11, 14)),
        Layer("move", (15,), activation="slice"),
        Layer("move", (16,), activation="strided"),
        Layer("move", (17,), activation="strided"),
        Layer("move", (18,), activation="transpose"),
        Layer("matmul", (19, 19)),
        Layer("softmax", (20,)),
    ),
)


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> Any:
    backend = backends.get(request.param)
    if reason := backend.missing():
        pytest.skip(reason)
    return backend


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_every_kind_of_layer_is_written_read_and_run(writer: Any, precision: Any, tmp_path: Path) -> None:
    path = tmp_path / f"net{writer.SUFFIXES[0]}"
    writer.write_network(EVERY_KIND, path, precision)
    ops = writer.read_ops(path)
    sizes = shapes(EVERY_KIND)
    assert [op.kind for op in ops] == [layer.kind for layer in EVERY_KIND.layers]
    for op, layer, after in zip(ops, EVERY_KIND.layers, sizes[1:]):
        before = sizes[layer.inputs[0]]
        assert (op.out_positions, op.out_channels) == (after[0] * after[1], after[2]), op.name
        assert (op.in_positions, op.in_channels) == (before[0] * before[1], before[2]), op.name
        if layer.kind in ("conv", "depthwise", "pool"):
            assert (op.kernel, op.stride) == (layer.kernel**2, layer.stride**2), op.name
    assert [op.function for op in ops if op.kind in ("pool", "activation", "move")] == [
        layer.activation for layer in EVERY_KIND.layers if layer.kind in ("pool", "activation", "move")
    ]
    inspection = writer.inspect(path)
    assert (inspection.integer_macs > 0) == (precision == "int8") and not inspection.faults
    answer = writer.load(path).run(noise((2, 5, 8, 8)))
    assert answer.shape[0] == 2 and answer[0].size == prod(sizes[-1])
    assert abs(answer).max() <= 1 and answer[0].sum() == pytest.approx(prod(sizes[-1][:2]), abs=0.1 * answer[0].size)


@given(data=st.data())
@settings(max_examples=20)
def test_sizes_of_convolutions_are_those_of_the_layers(data: st.DataObject, tmp_path_factory: Any) -> None:
    backend = backends.writers()["tflite"]
    widths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    sides = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    layers = tuple(
        Layer("conv", (n,), width, data.draw(st.sampled_from([1, 3, 5])), data.draw(st.integers(1, 2)))
        for n, width in enumerate(widths)
    )
    network = Network("drawn", (*sides, 3), layers)
    path = tmp_path_factory.mktemp("drawn") / "net.tflite"
    backend.write_network(network, path, "int8")
    sizes = shapes(network)
    macs = [
        height * width * channels * layer.kernel**2 * before[2]
        for (height, width, channels), before, layer in zip(sizes[1:], sizes, layers)
    ]
    assert [op.macs for op in backend.read_ops(path)] == macs


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_same_network_gives_the_same_bytes(writer: Any, precision: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}{writer.SUFFIXES[0]}" for n in range(2)]
    for path in paths:
        writer.write_network(EVERY_KIND, path, precision)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_kind_that_cannot_be_written_is_named(writer: Any, tmp_path: Path) -> None:
    network = Network("odd", (4, 4, 4), (Layer("rnn", (0,)), Layer("norm", (1,))))
    with pytest.raises(UnsupportedError, match="cannot write layers of kind norm, rnn"):
        writer.write_network(network, tmp_path / "net", "int8")
