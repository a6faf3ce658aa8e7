"""Published networks as files: the same operators and sizes as in the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.emulator import NETS, counted
from bench.emulator_nets import network, written
from edgeprune import backends
from edgeprune.device.networks import shapes
from edgeprune.errors import UsageError
from edgeprune.progress import SILENT
from tools.engines import tflite_network


@pytest.mark.parametrize("model_id", sorted({key.rpartition("/")[2] for key in NETS}))
def test_a_network_has_the_published_operators(model_id: str) -> None:
    ops, made = tflite_network(model_id), network(model_id)
    assert ops is not None and len(made.layers) == len(ops)
    for op, layer, (height, width, channels) in zip(ops, made.layers, shapes(made)[1:], strict=True):
        assert (channels, height * width) == (op.out_channels, op.out_positions), op
        assert layer.kind == op.kind


def test_a_written_file_has_the_macs_of_the_table(tmp_path: Path) -> None:
    if reason := backends.get("tflite").missing():
        pytest.skip(reason)
    name = "mobilenet_v2_0.35_96"
    path = written(name, "int8", tmp_path / "new")
    ops = tflite_network(name)
    assert ops is not None and sum(op.macs for op in backends.get("tflite").read_ops(path)) == sum(
        op.macs for op in ops
    )


def test_a_network_that_is_not_defined_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no published network is called"):
        network("mobilenet_v9")
    for key in ("ruy/int8/mobilenet_v9", "gemm/int8/mobilenet_v2_0.35_96", "ruy/int4/mobilenet_v2_0.35_96"):
        with pytest.raises(UsageError, match="no network"):
            counted(key, tmp_path, SILENT)
