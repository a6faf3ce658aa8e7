"""The benchmark of device models on small folders of planted prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import device_models
from bench.tables import page
from tests.tools.published_rows import inference_row, seconds_of, write_boards, write_ncnn, write_table
from tools import rows as tables
from tools.mcu_published import write_microcontrollers
from tools.published import write_published

FEW = ("mobilenet_v1_0.75_160", "mobilenet_v2_0.75_160", "efficientnet_lite1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_boards(tmp_path / "rows", noise=0.02)
    write_published(tmp_path / "rows", tmp_path / "profiles" / "published")
    write_microcontrollers(tmp_path / "rows", tmp_path / "profiles")
    return tmp_path


def results(folder: Path, *options: str) -> dict[str, Any]:
    file = folder / "results.json"
    fixed = ["--profiles", str(folder / "profiles"), "--results", str(file), "--quiet"]
    assert device_models.main([*fixed, *options]) == 0
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return {key: cell["result"] for key, cell in cells.items()}


def test_planted_prices_are_predicted_and_macs_alone_are_not_enough(folder: Path) -> None:
    write_ncnn(folder / "rows")
    found = results(folder, "--measurements", str(folder / "rows"))
    own = found["unseen/ruy"]["int8"]
    assert own["model"]["groups"] == 3 and own["model"]["median"] < 0.05
    assert own["family"]["median"] < own["family, affine in MACs"]["median"] < own["family, MACs only"]["median"]
    assert own["device"]["groups"] == 2 and own["device"]["measured_3"] < 0.1
    assert own["widths"]["pairs"] == 12 and own["widths"]["median"] < 0.1
    assert 0 <= own["coverage"]["by_family"] <= 1
    assert found["unseen/ncnn"]["fp32"]["family"]["median"] < 0.05
    assert found["rows"]["networks_timed"] == 3 * 12 + 3 * 12
    third = found["third"]["ruy int8"]
    assert 0 < third["rows"] < 36 and third["networks_of_the_fit"] == {"groups": 0}  # what is judged took no part
    assert third["other_networks_all_rows"]["median"] < 0.05
    assert found["shipped"]["ncnn fp32"]["groups_with_a_model"] == 0  # nothing was fitted on these


def test_shipped_models_are_judged_on_rows_they_have_not_seen(folder: Path) -> None:
    for factor in (1.0, 3.0):
        rows = [inference_row(name, factor * seconds_of(name), device="one") for name in FEW]
        rows += [inference_row("mobilenet_v1_1.0_192", seconds_of("mobilenet_v1_1.0_192"), device="one")]
        rows += [inference_row(FEW[0], 1.0, device="nobody's")]
        write_table(folder / "others", tables.INFERENCE, rows)
        judged = results(folder, "--measurements", str(folder / "others"), "--fresh")["shipped"]["ruy int8"]
        assert (judged["groups"], judged["groups_with_a_model"]) == (2, 1)
        assert judged["rows_with_a_model"] == 4
        assert judged["other_networks_all_rows"]["rows"] == 3
        assert judged["other_networks_all_rows"]["median"] == pytest.approx(abs(1 / factor - 1), abs=0.08)
        assert judged["other_networks_inside_band"] == (1.0 if factor == 1 else 0.0)


def test_figures_of_other_rows_stand_beside_and_older_profiles_are_redone(folder: Path) -> None:
    rows = device_models.digest(folder / "rows")
    shipped = device_models.digest(folder / "profiles")
    plain, stale = device_models.results_of(rows, shipped, folder)
    assert (plain.name, stale) == ("device-models.json", False)
    plain.write_text(
        json.dumps({"schema": "edgeprune.bench/1", "settings": {"rows": rows, "shipped": shipped}}), encoding="utf-8"
    )
    assert device_models.results_of(rows, shipped, folder) == (plain, False)
    assert device_models.results_of(rows, "other profiles", folder) == (plain, True)
    beside, stale = device_models.results_of("0123456789ab", shipped, folder)
    assert (beside.name, stale) == ("device-models-0123456789ab.json", False)


def test_the_page_and_stdout_show_the_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(folder, "--measurements", str(folder / "rows"))
    (folder / "results.json").rename(folder / "device-models.json")
    text = page(folder)
    own = found["unseen/ruy"]["int8"]["model"]
    assert f"| ruy int8 | network | 3 | {100 * own['median']:.1f} |" in text
    assert "| ruy int8 | 36 | 36 |" in text
    shown = capsys.readouterr().out
    assert shown.count("|") > 50 and shown.strip() in text


def test_missing_measurements_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--measurements", str(tmp_path / "none"), "--results", str(tmp_path / "r.json"), "--quiet"]
    assert device_models.main(options) == 2
    assert "no such folder of measurements" in capsys.readouterr().err
