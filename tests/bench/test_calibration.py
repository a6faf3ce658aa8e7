"""What the benchmark of calibrations measures, on a tiny network and with a model that was not calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import calibration
from edgeprune.device.profiles import load_latency_model
from edgeprune.progress import SILENT
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.trace import trace
from edgeprune.target import load_target
from tests.pruning.nets import NETS


def test_errors_are_those_of_the_estimates() -> None:
    model = load_latency_model(load_target("host"), "tflite", "int8", 1)
    assert model is not None and (model.band.low, model.band.high) == (0.33, 3.0)
    measured = np.array([1.0, 2.0, 4.0, 8.0])
    found = calibration._errors(measured * [1.0, 1.1, 0.8, 4.0], measured, model)
    assert found["median"] == pytest.approx(0.15) and found["largest"] == pytest.approx(3.0)
    assert found["in_band"] == 0.75 and found["rank_correlation"] == pytest.approx(1.0)


def test_random_widths_are_repeatable_and_every_other_ones_are_multiples_of_eight() -> None:
    import torch

    groups = channel_groups(trace(calibration._resnet20(), torch.zeros(1, 3, 32, 32)).graph)
    plans = [calibration.random_widths(groups, seed) for seed in range(8)]
    assert plans[3] == calibration.random_widths(groups, 3)
    widths = np.array([plan.widths(groups) for plan in plans])
    assert len(np.unique(widths, axis=0)) == 8
    assert np.any(widths[1::2] % 8) and not np.any(widths[::2] % 8)


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about themselves
@pytest.mark.slow
def test_files_are_exported_once_and_judged_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calibration.NETS, "tiny", (NETS["residual"], 16))
    model = load_latency_model(load_target("host"), "tflite", "int8", 1)
    assert model is not None
    paths = calibration._exported("tiny", 2, tmp_path, SILENT)
    times = [path.stat().st_mtime_ns for path in paths]
    assert calibration._exported("tiny", 2, tmp_path, SILENT) == paths
    assert [path.stat().st_mtime_ns for path in paths] == times
    found = calibration._judged("tiny", model, paths)
    assert len(found["measured_ns"]) == len(found["planned_ns"]) == len(found["from_file_ns"]) == 3
    assert min(found["measured_ns"]) > 0 and found["noise"] >= 0
    assert found["planned_ns"] == pytest.approx(found["from_file_ns"], rel=0.2)
