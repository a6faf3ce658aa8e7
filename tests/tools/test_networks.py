import csv
import os
from pathlib import Path

import pytest

from edgeprune.device.memory import memory_plan
from tools import ncnn_detectors, ncnn_networks
from tools.detectors import yolox
from tools.networks import build, divisible, family

MEASUREMENTS = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[3] / "shared")) / "measurements"
# Published figures known to be counted otherwise or doubtful: (low, high) of built over published MACs.
DOUBTFUL = {
    "efficientnet_lite": (0.94, 0.97),
    "mobilenet_v1_0.75": (1.02, 1.03),
    "mobilenet_v1_0.25_192": (0.88, 0.90),
    "mobilenet_v3_small_1.0": (0.85, 0.86),
    "mobilenet_v3_small_minimalistic": (0.80, 0.81),
}


def published(*families: str) -> list[dict[str, str]]:
    if not (MEASUREMENTS / "models.csv").is_file():
        return []
    with (MEASUREMENTS / "models.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["family"] in families]


needs_measurements = pytest.mark.skipif(
    not published("ncnn"), reason="needs the published measurements (EDGEPRUNE_SHARED)"
)


@needs_measurements
def test_macs_agree_with_the_published_figures() -> None:
    seen = 0
    for row in published("tflite", "mlperf_tiny"):
        ops = build(row["model_id"])
        if ops is None:
            continue
        seen += 1
        macs = sum(op.macs for op in ops) / 1e6
        low, high = next((v for k, v in DOUBTFUL.items() if row["model_id"].startswith(k)), (0.99, 1.01))
        slack = 0.5 * 10 ** -len(row["macs_m"].partition(".")[2])  # the table's rounding
        table = float(row["macs_m"])
        slack = max(slack, 1.0) if table < 100 and low == 0.99 and row["family"] == "tflite" else slack
        assert low * (table - slack) <= macs <= high * (table + slack), row["model_id"]
    assert seen >= 50


@needs_measurements
def test_macs_of_ncnn_networks_agree_kind_by_kind() -> None:
    seen = 0
    for row in published("ncnn"):
        ops = ncnn_networks.build(row["model_id"]) or ncnn_detectors.build(row["model_id"])
        if ops is None or "efficientnetv2" in row["model_id"]:  # its table figure counts one stage at twice its size
            continue
        seen += 1
        dense = [op for op in ops if op.kind in ("conv", "dense")]
        small = [op for op in dense if op.kernel == 1 and op.groups == 1]  # the table splits them by position
        spatial = [op for op in dense if op.kernel > 1 or op.groups > 1]
        for found, columns in (
            ([op for op in ops if op.kind == "depthwise"], ("macs_depthwise_m",)),
            (small, ("macs_pointwise_m", "macs_fc_m")),
            (spatial, ("macs_other_conv_m",)),
        ):
            table = sum(float(row[column]) for column in columns)
            slack = 2.3 if "yolo" in row["model_id"] else 0.02  # the table leaves out an upsampling convolution
            assert sum(op.macs for op in found) / 1e6 == pytest.approx(table, abs=slack), row["model_id"]
        assert sum(op.weights for op in ops) / 1e6 == pytest.approx(float(row["params_m"]), rel=0.04)
    assert seen >= 25


@pytest.mark.parametrize(
    ("model_id", "macs", "weights"),
    [
        ("mobilenet_v2_1.0_224", 300_775_552, 3_471_040),
        ("resnet50_v1.5_224", 4_089_184_256, 25_502_912),
        ("tiny_ic_resnet8", 12_501_632, 77_360),
        ("tiny_kws_dscnn", 2_656_768, 22_016),
        ("tiny_vww_mobilenet_0.25", 7_489_664, 208_112),
        ("tiny_ad_autoencoder", 264_192, 264_192),
    ],
)
def test_definitions_give_exact_counts(model_id: str, macs: int, weights: int) -> None:
    ops = build(model_id)
    assert ops is not None
    assert (sum(op.macs for op in ops), sum(op.weights for op in ops)) == (macs, weights)


@pytest.mark.parametrize("letter", ["s", "m", "l"])
def test_detectors_have_their_published_size(letter: str) -> None:
    published_params_m, published_gflops = {"s": (9.0, 26.8), "m": (25.3, 73.8), "l": (54.2, 155.6)}[letter]
    ops = yolox(letter)
    assert sum(op.weights for op in ops) / 1e6 == pytest.approx(published_params_m, rel=0.01)
    assert 2 * sum(op.macs for op in ops) / 1e9 == pytest.approx(published_gflops, rel=0.01)


TABLES = {
    **{name: build(name) for name in ("mobilenet_v3_small_1.0_224", "efficientnet_lite0", "resnet18_224")},
    "yolox": yolox("s"),
    **{f"ncnn {name}": ncnn_networks.build(name) for name in ncnn_networks.BUILDERS},
    **{f"ncnn {name}": ncnn_detectors.build(name) for name in ncnn_detectors.BUILDERS},
}


@pytest.mark.parametrize("model_id", TABLES)
def test_tables_are_programs(model_id: str) -> None:
    ops = TABLES[model_id]
    assert ops is not None
    known = {"input"}
    for op in ops:
        assert set(op.inputs) <= known, op
        known.add(op.output)
    assert memory_plan(ops).total_bytes > 0


def test_widths_follow_the_published_rounding() -> None:
    assert [divisible(w) for w in (11.2, 16, 22.4, 33.6, 44.8)] == [16, 16, 24, 32, 48]


def test_unknown_networks_are_nothing_and_families_are_known() -> None:
    assert build("vision_transformer_b") is None
    assert family("mobilenet_v3_large_1.0_224") == "mobilenet_v3"
    assert family("netspresso_resnet34_224") == family("resnet50_v1.5_224") == "resnet"
    assert family("ncnn_mobilenetv2_yolov3") == family("mnasnet_1.0_224") == "mobilenet_v2"
    assert family("ncnn_mobilenet_yolo") == "mobilenet_v1" != family("efficientnet_b0_224") == "efficientnet"
    assert ncnn_networks.build("ncnn_vision_transformer") is ncnn_detectors.build("vgg16_224") is None
    assert family("vgg16_224") == "vgg16_224"
