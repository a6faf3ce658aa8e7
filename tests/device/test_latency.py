import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.latency import Band, LatencyModel, moved_elements
from edgeprune.device.ops import Op
from edgeprune.device.profiles import read_profile
from edgeprune.errors import UsageError

KINDS = (
    "conv depthwise dense matmul add mul activation pool mean concat pad resize softmax norm move rnn quantize other"
).split()

MODEL = LatencyModel(
    runtime="tflite",
    precision="int8",
    threads=4,
    conv_s_per_mac=2e-11,
    first_conv_s_per_mac=8e-11,
    depthwise_s_per_mac=2e-10,
    element_s=6e-10,
    weight_s=4e-10,
    per_op_s=1e-5,
    first_conv_extra_channels=16,
    gathers_patches=True,
    band=Band(low=0.8, high=1.3),
)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    kind = draw(st.sampled_from(KINDS))
    width = draw(st.integers(1, 40))
    same = kind not in ("conv", "dense", "matmul", "rnn")
    positions = draw(st.sampled_from([1, 4, 49, 1024]))
    return Op(
        "y",
        kind,  # type: ignore[arg-type]
        ("x",),
        "y",
        in_channels=width,
        out_channels=width if same else draw(st.integers(1, 40)),
        in_positions=positions,
        out_positions=positions,
        kernel=draw(st.sampled_from([1, 9, 25])),
        groups=width if kind == "depthwise" else 1,
    )


@given(ops())
def test_every_op_costs_something(op: Op) -> None:
    assert MODEL.op_s(op) >= MODEL.per_op_s
    assert moved_elements(op) >= 0 and moved_elements(op, gathers_patches=True) >= 0


@given(ops(), st.integers(0, 12), st.integers(0, 12))
def test_more_channels_never_cost_less(op: Op, more_in: int, more_out: int) -> None:
    if op.kind == "depthwise":
        more_out = more_in
    wider = op.resized(op.in_channels + more_in, op.out_channels + more_out)
    assert MODEL.op_s(wider) >= MODEL.op_s(op)


def test_the_price_of_a_convolution_is_the_sum_of_its_terms() -> None:
    op = Op("y", "conv", ("x",), "y", 32, 64, in_positions=1024, out_positions=256, kernel=9, stride=4)
    by_hand = 256 * 64 * 288 * 2e-11 + (256 * 288 + 256 * 64) * 6e-10 + 64 * 288 * 4e-10 + 1e-5
    assert MODEL.op_s(op) == pytest.approx(by_hand)
    first = replace(op, in_channels=3)
    by_hand = 256 * (64 + 16) * 27 * 8e-11 + (256 * 27 + 256 * 64) * 6e-10 + 64 * 27 * 4e-10 + 1e-5
    assert MODEL.op_s(first) == pytest.approx(by_hand)


def test_patches_read_in_place_cost_the_input_once() -> None:
    op = Op("y", "conv", ("x",), "y", 32, 64, in_positions=1024, out_positions=256, kernel=9, stride=4)
    assert moved_elements(op, gathers_patches=True) == 256 * 288 + 256 * 64
    assert moved_elements(op, gathers_patches=False) == 1024 * 32 + 256 * 64


def test_a_fully_connected_layer_costs_its_weights() -> None:
    op = Op("y", "dense", ("x",), "y", 640, 128)
    assert MODEL.op_s(op) == pytest.approx(640 * 128 * 4e-10 + 1e-5)


def test_the_interval_is_the_band_around_the_sum() -> None:
    op = Op("y", "add", ("x", "z"), "y", 8, 8, in_positions=100, out_positions=100)
    total = MODEL.total_s([op, op])
    assert total == pytest.approx(2 * (3 * 800 * 6e-10 + 1e-5))
    assert MODEL.interval_s([op, op]) == pytest.approx((0.8 * total, 1.3 * total))


def test_a_band_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match=r"low 2\.0 above high 1\.0"):
        Band(low=2.0, high=1.0)


def test_a_profile_that_is_absent_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such profile: a\.json"):
        read_profile(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UsageError, match="not a device profile"):
        read_profile(tmp_path / "b.json")
    (tmp_path / "c.json").write_text(json.dumps({"schema": "other/1"}))
    with pytest.raises(UsageError, match="not a device profile"):
        read_profile(tmp_path / "c.json")


def test_a_profile_comes_back_as_written(tmp_path: Path) -> None:
    tree = {"schema": "edgeprune.device-profile/1", "target": "t", "runtime": "tflite", "models": [MODEL.model_dump()]}
    (tmp_path / "t.json").write_text(json.dumps(tree))
    assert read_profile(tmp_path / "t.json").models == (MODEL,)
