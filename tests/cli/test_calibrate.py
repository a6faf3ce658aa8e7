"""`edgeprune calibrate` in the real runtime, with very short turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.calibration import calibrate, design, rounds, store
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def _short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of no worth, in seconds; a busy machine is no fault here."""
    entries = tuple(entry for entry in design.design(0.01) if not entry.network.name.endswith(("-2", "-3")))
    monkeypatch.setattr(calibrate, "design", lambda scale: entries)
    monkeypatch.setattr(calibrate, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(rounds, "_TURNS_S", 0.001)
    monkeypatch.setattr(rounds, "_FEWEST_RUNS", 2)
    monkeypatch.setattr(rounds, "_SLOWER", 100.0)
    monkeypatch.setattr(rounds, "_APART", 100.0)
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path))


@pytest.mark.slow
def test_a_calibration_is_measured_shown_stored_and_used(
    command: Command, tmp_path: Path, exported: object, any_machine: None
) -> None:
    done = command("calibrate", "--quick", "--precision", "int8", "--quiet")
    assert done.code == 0, done.err
    for words in ("machine", "ai-edge-litert", "rank correlation", "pointwise", "80 %", str(tmp_path)):
        assert words in done.out
    assert len(list(tmp_path.glob("host.tflite.int8.1.*.json"))) == 1
    shown = command("targets", "show", "host")
    assert "tflite, int8: device model: calibration of" in shown.out
    path = exported("tflite", "residual").path  # type: ignore[operator]
    notes = json.loads(command("profile", str(path), "--runs", "50", "--at", "p50", "--json").out)["notes"]
    assert any("device model: calibration of" in note and "expected, p50 is" in note for note in notes)


@pytest.mark.slow
def test_json_holds_rows_and_model(command: Command, any_machine: None) -> None:
    document = json.loads(command("calibrate", "--quick", "--precision", "fp32", "--quiet", "--json").out)
    (one,) = document["calibrations"]
    assert document["schema"] == "edgeprune.calibrated/1" and one["schema"] == "edgeprune.calibration/1"
    assert one["precision"] == one["model"]["precision"] == "fp32" and Path(one["file"]).is_file()
    assert all(row["latency_s"] > 0 for row in one["rows"]) and one["model"]["laws"]["spatial"]["rows"] > 1


def test_usage_errors_end_with_2(command: Command) -> None:
    unknown = command("calibrate", "--precision", "int4")
    assert unknown.code == 2 and "unknown precision 'int4'" in unknown.err
    board = command("calibrate", "--target", "rpi4")
    assert board.code == 2 and "no link to it" in board.err and "--target host" in board.err


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_an_interrupted_calibration_says_how_to_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int
) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise stop

    monkeypatch.setattr(calibrate, "time_all", stopped)
    done = command("calibrate", "--quiet")
    assert done.code == code and "the same command continues" in done.err
