"""A whole calibration: measured, stored, found again by whom it fits, and by nobody else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune import backends
from edgeprune.backends import tflite
from edgeprune.calibration import calibrate as module
from edgeprune.calibration import rounds, store
from edgeprune.calibration.calibrate import Device, calibrate, foretold
from edgeprune.calibration.store import Calibration, find, folder, path_of, read
from edgeprune.cost import Cost, Measurement, Source
from edgeprune.device.latency import LatencyModel
from edgeprune.errors import MeasurementError, MissingExtraError, UnsupportedError, UsageError
from edgeprune.target import load_target
from tests.calibration import planted

HOST = load_target("host")


def planted_device(bench: planted.PlantedBench | None = None, **changes: Any) -> Device:
    parts = {"machine": planted.MACHINE, "runtime_version": planted.VERSION, **changes}
    return Device(bench or planted.PlantedBench(0.003), **parts)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Calibrations of this test, on the planted machine; no pauses."""
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path / "calibrations"))
    monkeypatch.setattr(store, "this_machine", lambda: planted.MACHINE)
    monkeypatch.setattr(store, "installed_version", lambda runtime: planted.VERSION)
    monkeypatch.setattr(rounds, "_COOL_DOWN_S", 0.0)
    return tmp_path / "calibrations"


@pytest.fixture
def calibrated(own_folder: Path) -> Iterator[Calibration]:
    yield calibrate(HOST, quick=True, device=planted_device())


def test_a_calibration_says_what_it_was_measured_on(calibrated: Calibration, own_folder: Path) -> None:
    assert calibrated.machine == planted.MACHINE and calibrated.runtime_version == planted.VERSION
    assert (calibrated.target, calibrated.runtime, calibrated.precision, calibrated.threads) == (
        "host",
        "tflite",
        "int8",
        1,
    )
    assert calibrated.clock_mhz == ("1000", "1010") and calibrated.rounds == module.QUICK_ROUNDS
    assert len(calibrated.rows) == len(planted.written(module.QUICK_SCALE))
    assert 0 < max(row.spread for row in calibrated.rows) < 0.05
    assert calibrated.judged.median < 0.03
    files = list(own_folder.iterdir())
    assert files == [path_of("host", "tflite", "int8", 1, planted.MACHINE)]
    assert read(files[0]) == calibrated


def test_it_foretells_the_device_it_was_measured_on(calibrated: Calibration) -> None:
    for entry, ops in planted.written(1.0):
        if entry.family in ("inverted", "residual"):
            ratio = planted.total_s(ops) / calibrated.model.total_s(ops)
            assert 0.9 < ratio < 1.1, entry.network.name


def test_it_is_found_where_it_fits_and_says_so(calibrated: Calibration, own_folder: Path) -> None:
    found = find(HOST, "tflite", "int8", 1)
    assert found.model == calibrated.model and found.calibrated
    assert f"calibration of {calibrated.date[:10]}" in found.note and str(own_folder) in found.note
    for other in (("tflite", "fp32", 1), ("tflite", "int8", 2), ("onnxruntime", "int8", 1)):
        missed = find(HOST, *other)
        assert not missed.calibrated and not missed.note
    board = find(load_target("rpi4"), "tflite", "int8", 4)
    assert isinstance(board.model, LatencyModel) and not board.note


def test_it_is_not_used_with_another_version_or_on_another_machine(
    calibrated: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "installed_version", lambda runtime: "planted 2.0")
    newer = find(HOST, "tflite", "int8", 1)
    assert isinstance(newer.model, LatencyModel) and not newer.calibrated
    assert "not used, of planted 1.0 where planted 2.0 is installed" in newer.note
    monkeypatch.setattr(store, "this_machine", lambda: planted.MACHINE.model_copy(update={"cores": 4}))
    elsewhere = find(HOST, "tflite", "int8", 1)
    assert isinstance(elsewhere.model, LatencyModel) and not elsewhere.calibrated
    assert "not used, of another machine" in elsewhere.note


def test_a_damaged_file_is_an_error_and_no_silent_fallback(calibrated: Calibration) -> None:
    path = path_of("host", "tflite", "int8", 1, planted.MACHINE)
    path.write_text(path.read_text().replace("edgeprune.calibration/1", "edgeprune.calibration/9"))
    with pytest.raises(UsageError, match="not a calibration: schema"):
        find(HOST, "tflite", "int8", 1)


@pytest.mark.slow
def test_an_interrupted_calibration_goes_on_to_the_same_model(own_folder: Path) -> None:
    class Killed(planted.PlantedBench):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().__call__(*arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        calibrate(HOST, quick=True, device=planted_device(Killed()))
    assert [path.name.endswith(".partial.json") for path in own_folder.iterdir()] == [True]
    rest = planted.PlantedBench()
    resumed = calibrate(HOST, quick=True, device=planted_device(rest))
    whole_bench = planted.PlantedBench()
    whole = calibrate(HOST, quick=True, fresh=True, device=planted_device(whole_bench))
    assert rest.calls == whole_bench.calls - 1
    assert resumed.model_copy(update={"date": whole.date}) == whole
    assert [path.name.endswith(".partial.json") for path in own_folder.iterdir()] == [False]


@pytest.mark.slow
def test_fresh_forgets_what_was_interrupted() -> None:
    steady = planted.PlantedBench()
    calibrate(HOST, quick=True, device=planted_device(steady))
    falling = [(1.0, 1.0), (1.0, 1.4), (1.0, 1.4)]
    with pytest.raises(MeasurementError, match="a batch and its repetition were disturbed"):
        calibrate(HOST, quick=True, device=planted_device(planted.PlantedBench(speeds=falling)))
    again = planted.PlantedBench()
    calibrate(HOST, quick=True, fresh=True, device=planted_device(again))
    assert again.calls == steady.calls


def test_a_target_without_a_link_is_refused() -> None:
    with pytest.raises(UsageError, match="target rpi4 is not this machine, and there is no link to it"):
        calibrate(load_target("rpi4"))


def test_what_a_runtime_does_not_run_or_write_is_refused() -> None:
    with pytest.raises(UsageError, match="disco-f746ng runs no fp32 on tflm"):
        calibrate(load_target("disco-f746ng"), runtime="tflm", precision="fp32")
    with pytest.raises(UnsupportedError, match="no networks can be written for onnxruntime files") as caught:
        calibrate(HOST, runtime="onnxruntime", device=planted_device())
    assert "tflite" in caught.value.hint


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "missing", lambda: "the package is not installed")
    with pytest.raises(MissingExtraError, match="calibrating tflite .* needs the extra 'tflite'"):
        calibrate(HOST)


def test_the_folder_is_where_the_user_or_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert folder() == tmp_path / "calibrations"
    monkeypatch.delenv(store.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert folder() == tmp_path / "data" / "edgeprune" / "calibrations"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".local" / "share" / "edgeprune" / "calibrations"


def test_a_measured_file_is_compared_with_what_was_foretold(calibrated: Calibration, tmp_path: Path) -> None:
    entry, ops = planted.written(1.0)[-1]
    path = tmp_path / "net.tflite"
    backends.writers()["tflite"].write_network(entry.network, path, "int8")
    expected_s = calibrated.model.total_s(ops)
    measured = Measurement(
        cost=Cost(source=Source.MEASURED),
        target="host",
        runtime="tflite",
        runtime_version="1",
        threads=1,
        precision="int8",
        p50_s=expected_s * 1.1,
    )
    assert "expected, p50 is +10.0 % from it" in foretold(path, HOST, measured)
    assert foretold(path, HOST, measured.model_copy(update={"threads": 3})) == ""
