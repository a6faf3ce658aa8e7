from pathlib import Path

import numpy as np
import pytest

from tests.tools.published_rows import PRICES, TFLITE_NETWORKS, inference_row, seconds_of, write_table
from tools import rows as tables
from tools.board_recipes import BOARD_RECIPES, ODROID, PI4, RK3588, Many
from tools.engines import ENGINES

STEP = 0.8  # XNNPACK's time over ruy's, on every board
DEPLOYED = ("mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224", "mobilenet_v3_large_1.0_224", "resnet50_224")


def on(many: Many, scale: float) -> list[dict[str, object]]:
    return [
        inference_row(
            name, scale * seconds_of(name, precision=precision), device=many.device, precision=precision,
            runtime_version=many.version,
        )
        for name in TFLITE_NETWORKS
        for precision in ("int8", "fp32")
    ]  # fmt: skip


def deployed_s(name: str, scale: float, precision: str) -> float:
    # the six amounts that the deployed engine prices, at ruy's prices times the step; the price of an operator stays
    prices = (*(STEP * scale * price for price in PRICES[:-1]), PRICES[-1])
    return seconds_of(name, prices, "xnnpack", precision)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_table(tmp_path, tables.INFERENCE, [*on(PI4, 1.0), *on(RK3588, 0.5), *on(ODROID, 2.0)])
    few: list[dict[str, object]] = []
    for device, scale in (("Raspberry Pi 4B", 1.0), ("Raspberry Pi 5", 0.5)):
        for name in DEPLOYED:
            for precision, stated in (("fp32", "fp16"), ("int8", "int8")):
                time_s = deployed_s(name, scale, precision) * (0.5 if stated == "int8" else 1.0)
                few.append(
                    inference_row(name, 0, device=device, precision=stated, backend="cpu", latency_ms=1e3 * time_s)
                )
    write_table(tmp_path, tables.NETSPRESSO, few)
    write_table(tmp_path, tables.VENDOR, [])
    return tmp_path


def test_a_board_with_few_rows_of_what_is_deployed_is_carried_over(folder: Path) -> None:
    models = {model.precision: model for model in BOARD_RECIPES["rpi4", "tflite"](folder)}
    assert set(models) == {"int8", "fp32"} and models["fp32"].threads == 4
    for precision, halved in (("fp32", 1.0), ("int8", 0.5)):
        ops = ENGINES["xnnpack"].network("mobilenet_v2_0.75_160")
        assert ops is not None
        estimated_s = float(np.dot(ENGINES["xnnpack"].amounts(ops, precision), models[precision].prices_s))
        assert estimated_s == pytest.approx(halved * deployed_s("mobilenet_v2_0.75_160", 1.0, precision), rel=0.15)
        assert models[precision].band[0] < 1 < models[precision].band[1]
        assert models[precision].provenance["deployed"]["rows"] == len(DEPLOYED)


def test_a_board_without_such_rows_borrows_the_step_of_others(folder: Path) -> None:
    models = {model.precision: model for model in BOARD_RECIPES["odroid-n2plus", "tflite"](folder)}
    for precision, halved in (("fp32", 1.0), ("int8", 0.5)):
        model = models[precision]
        assert model.threads == 6 and "borrow" not in model.source and "other boards" in model.source
        ops = ENGINES["xnnpack"].network("mobilenet_v2_0.75_160")
        assert ops is not None
        estimated_s = float(np.dot(ENGINES["xnnpack"].amounts(ops, precision), model.prices_s))
        assert estimated_s == pytest.approx(halved * deployed_s("mobilenet_v2_0.75_160", 2.0, precision), rel=0.2)
        assert model.provenance["step"]["rows"] == 4 * len(DEPLOYED)
        assert model.provenance["step_left_out_board"]["median"] < 0.15
    wide = models["fp32"].band
    narrow = BOARD_RECIPES["rpi4", "tflite"](folder)[0].band
    assert wide[0] < 1 < wide[1] and narrow[0] < 1 < narrow[1]


def test_vendor_rows_are_of_the_words_and_threads_asked_for() -> None:
    row = {"device": "Pixel 1", "note": "big cores", "runtime": "XNNPACK end2end_bench", "cores_used": "1"}
    assert tables.VendorRows("Pixel 1", "XNNPACK", threads="1").selects(row)
    assert tables.VendorRows("Pixel 1", "big").selects(row)
    assert not tables.VendorRows("Pixel 1", "XNNPACK", threads="4").selects(row)
    assert not tables.VendorRows("Pixel 2", "XNNPACK").selects(row)
    assert not tables.VendorRows("Pixel 1", "TFLite").selects(row)
