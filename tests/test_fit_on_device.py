"""A fit whose files are measured over a link: the verdict rests on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune import job, on_device, pipeline
from edgeprune.cost import Source
from edgeprune.errors import DeviceError, MissingExtraError, UsageError
from edgeprune.front.grid import grid
from edgeprune.links import connect
from edgeprune.on_device import reached
from edgeprune.progress import SILENT
from edgeprune.record import create
from edgeprune.spec import load_spec
from edgeprune.target import load_target
from tests.digits import workload
from tests.test_on_device import PI, Board
from tests.test_pipeline import BOARD, spec


@pytest.mark.slow
def test_a_fit_measures_its_files_over_the_link(
    address: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "load_workload", lambda spec: workload())
    found = pipeline.fit(spec(tmp_path, target__device=address("local"), budget__latency="50ms", fit__rounds=1))
    assert (found.verdict, found.source) == ("met", Source.MEASURED)
    deployed = next(row for row in found.costs if row.deployed)
    assert deployed.figures[0].source is Source.MEASURED and deployed.figures[0].ram_kind == "process"
    assert found.target == "test-board" and found.exit_code == 0
    assert 'device = "local"' in (found.run / "spec.toml").read_text()


def test_a_device_that_cannot_measure_stops_the_fit_before_anything_is_done(
    phone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "open_model", lambda *arguments: pytest.fail("began"))
    for given, kind in (
        ({"target__device": "adb:gone-1"}, DeviceError),
        ({"target__device": "local", "target__python": "/none"}, MissingExtraError),
        ({"target__device": "emulator"}, UsageError),
    ):
        one = spec(tmp_path / kind.__name__, **given)
        with create(one, "x") as run, pytest.raises(kind):
            job.open_job(run, workload(), SILENT)


def test_a_linked_target_is_measured() -> None:
    target, unlike = reached(Board(), load_target("rpi4"), "tflite", SILENT)
    assert (target.latency, target.name, unlike) == ("measured", "rpi4", "")
    assert "its cores are Cortex-A72" in reached(Board(), load_target("rpi5"), "tflite", SILENT)[1]
    with pytest.raises(UsageError, match="is no runtime that board can run"):
        reached(Board(), load_target("nucleo-l4r5zi"), "tflm", SILENT)
    with pytest.raises(MissingExtraError, match="board has no onnxruntime"):
        reached(Board(PI), load_target("rpi4"), "onnxruntime", SILENT)


def test_a_sweep_uses_no_linked_device(tmp_path: Path) -> None:
    linked = spec(tmp_path, target__device="local")
    with pytest.raises(UsageError, match="a sweep measures on no linked device"):
        grid(linked, (str(BOARD),), {})


def test_a_file_that_the_device_cannot_run_is_estimated_where_it_is_not_the_deployed_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, Any]] = []

    def profile(path: Path, target: Any, *, device: Any, **more: Any) -> Any:
        asked.append((target.latency, device))
        if device is not None:
            raise MissingExtraError("board has no openvino")
        from edgeprune.cost import Cost, Measurement

        return Measurement(
            cost=Cost(source=Source.ESTIMATED),
            target=target.name,
            runtime="openvino",
            runtime_version="",
            threads=1,
            precision="int8",
        )

    monkeypatch.setattr(job, "profile", profile)
    monkeypatch.setattr(job, "inputs", lambda *arguments: __import__("torch").zeros(1))
    board = load_target("rpi4").model_copy(update={"latency": "measured"})
    link = connect("local")
    one: Any = type(
        "Job",
        (),
        {
            "target": board,
            "link": link,
            "runtime": "tflite",
            "deployed": "tflite",
            "threads": 4,
            "budget": type("Budget", (), {"at": "p90"}),
            "progress": SILENT,
        },
    )
    artifact: Any = type("Artifact", (), {"path": tmp_path / "m.xml", "backend": "openvino"})
    found = job.profiled(one, artifact, "openvino")
    assert asked == [("measured", link), ("estimated", None)]
    assert found.notes == ("estimated, not measured: board has no openvino",)
    with pytest.raises(MissingExtraError):
        job.profiled(one, type("Artifact", (), {"path": tmp_path / "m.tflite", "backend": "onnx"}), "tflite")


def test_the_device_is_part_of_the_job() -> None:
    found = load_spec(None, {"target.name": "rpi4", "target.device": "ssh://pi@board"}, needs_data=False)
    assert found.target.device == "ssh://pi@board" and found.target.python is None
    assert on_device.RUNTIMES
