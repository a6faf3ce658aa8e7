import csv
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import UsageError
from tools.mcu_fitting import KERNELS, ZOO, tiny_groups, work_of
from tools.mcu_published import FILE, judged, read_microcontrollers, unseen, write_microcontrollers
from tools.mcu_recipes import fit_all

COLUMNS = (
    "device", "core", "clock_mhz", "runtime", "runtime_version", "precision", "model_id", "latency_ms", "note",
    "quality", "backend", "soc", "ram_kb", "flash_kb", "source_repo_or_page",
)  # fmt: skip
NETWORKS = ("tiny_ad_autoencoder", "tiny_ic_resnet8", "tiny_kws_dscnn", "tiny_vww_mobilenet_0.25")


def row(device: str, clock_mhz: float, model_id: str, version: str) -> dict[str, str]:
    """A result that follows the counts exactly, at 1.3 cycles per instruction."""
    work = work_of(model_id)
    assert work is not None
    cycles = 1.3 * float(np.dot(work, KERNELS["blocked"]))
    known = {
        "device": device,
        "core": "Cortex-M4",
        "clock_mhz": str(clock_mhz),
        "runtime": "engine",
        "runtime_version": version,
        "precision": "int8",
        "model_id": model_id,
        "latency_ms": str(cycles / clock_mhz * 1e-3),
        "quality": "ok",
        "source_repo_or_page": "github.com/mlcommons/tiny_results_v1.0",
    }
    return {column: known.get(column, "") for column in COLUMNS}


def write(folder: Path, rows: list[dict[str, str]]) -> Path:
    folder.mkdir()
    for name, content in (("mlperf_tiny.csv", rows), (ZOO, [])):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(content)
    return folder


def test_shipped_models_are_judged_on_networks_and_boards_they_have_not_seen(tmp_path: Path) -> None:
    some = [row(device, clock, name, "1") for device, clock in (("a", 100), ("b", 200)) for name in NETWORKS[:3]]
    measurements = write(tmp_path / "some", some)
    path = write_microcontrollers(measurements, tmp_path)
    assert path == tmp_path / FILE
    first = path.read_bytes()
    fit_all.cache_clear()
    assert write_microcontrollers(measurements, tmp_path).read_bytes() == first
    new = [row("a", 100, NETWORKS[3], "1"), row("c", 50, NETWORKS[0], "1"), row("d", 50, NETWORKS[1], "9")]
    other = write(tmp_path / "other", [*some, *new])
    found = judged(other, tmp_path)
    assert found["without_a_model"] == 0
    assert {kind: entry["results"] for kind, entry in found.items() if kind != "without_a_model"} == {
        "seen": 6,
        "unseen": 1,
        "board not seen": 2,
    }
    for kind in ("seen", "unseen", "board not seen"):
        assert found[kind]["median"] < 0.02
    assert found["board not seen"]["inside_band"] == 1  # the band of a board's own model has no width here
    assert unseen(other)["MLPerf Tiny"]["median"] < 0.02
    foreign = [{**row("e", 50, NETWORKS[0], "1"), "runtime": "another"}]
    assert judged(write(tmp_path / "foreign", foreign), tmp_path) == {"without_a_model": 1}


def test_a_folder_without_the_tables_has_no_groups(tmp_path: Path) -> None:
    assert tiny_groups(tmp_path) == ()
    assert unseen(tmp_path)["MLPerf Tiny"] == {}


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text('{"schema": "other"}')
    with pytest.raises(UsageError, match="not a file of microcontroller models"):
        read_microcontrollers(tmp_path)
