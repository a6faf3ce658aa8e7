"""A fit whose files are measured over a link: the verdict rests on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import emulated_board, job, on_device, pipeline
from edgeprune.boards import kit
from edgeprune.boards.execution import Executed
from edgeprune.boards.kit import lay_out
from edgeprune.boards.latency import SCHEMA, TERMS, CountedModel, CountedProfile
from edgeprune.boards.plugin import CLASSES, Tally
from edgeprune.cost import Source
from edgeprune.device.latency import Band
from edgeprune.errors import DeviceError, MissingExtraError, UsageError
from edgeprune.front.grid import grid
from edgeprune.links import connect
from edgeprune.on_device import reached
from edgeprune.progress import SILENT
from edgeprune.record import create
from edgeprune.runner.opener import read_contents
from edgeprune.spec import load_spec
from edgeprune.target import load_target
from tests.digits import workload
from tests.test_on_device import PI, Board
from tests.test_pipeline import BOARD, spec


@pytest.mark.slow
def test_a_fit_measures_its_files_over_the_link(
    address: Callable[[str], str], any_machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


EMULATION = """
[emulation]
cpu = "cortex-a72"
part = "0xd08"
features = ["fp", "asimd"]
cores = 1
l1_bytes = 32768
l1_ways = 2
l2_bytes = 1048576
l2_ways = 16
profile = "test-board.emulated"
"""


def emulated_board_of(folder: Path) -> Path:
    """The made-up board with an emulator and prices of its own; its file."""
    folder.mkdir()
    text = BOARD.read_text().replace("cores = 1\n", "cores = 1\nclock_hz = 1_000_000_000\n", 1)
    (folder / BOARD.name).write_text(text.replace("\n[[source]]", f"{EMULATION}\n[[source]]", 1))
    for file in BOARD.parent.glob("test-board.*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    model = CountedModel(
        runtime="onnxruntime",
        precision="int8",
        threads=1,
        cycles=dict.fromkeys(TERMS, 0.3),
        band=Band(low=0.8, high=1.25),
        source="invented",
    )
    profile = CountedProfile(schema=SCHEMA, target="test-board", models=(model,))
    (folder / "test-board.emulated.json").write_text(profile.model_dump_json(by_alias=True))
    return folder / BOARD.name


@pytest.mark.slow
def test_a_fit_on_an_emulated_board_rests_on_its_counts(
    emulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop as it is; what QEMU would count is taken from the multiplications of the file."""

    def execute(path: Path, runtime: str, kit: Any, **options: Any) -> Executed:
        macs = sum(op.macs for op in read_contents(path, runtime).ops)
        counts = {name: (macs // 4) * (name in ("vector", "integer", "long_multiply")) for name in CLASSES}
        tallies = (Tally(counts, macs // 50, macs // 500, macs, macs),) if kit is not None else ()
        return Executed((np.zeros(10, np.float32),), "int8", "onnxruntime 1", "aarch64", (), tallies, 10**6)

    board = emulated_board_of(tmp_path / "board")
    lay_out(load_target(str(board)))
    monkeypatch.setattr(pipeline, "load_workload", lambda spec: workload())
    monkeypatch.setattr(emulated_board, "execute", execute)
    asked = {"target__name": str(board), "target__device": "emulator"}
    dense = pipeline.fit(spec(tmp_path / "dense", **asked, budget__latency="1s", fit__rounds=1))
    assert (dense.verdict, dense.source) == ("met", Source.EMULATED)
    deployed = next(row for row in dense.costs if row.deployed)
    assert deployed.figures[0].source is Source.EMULATED and dense.latency_interval_ns is not None
    budget_ns = dense.latency_interval_ns[1] * 0.6
    found = pipeline.fit(spec(tmp_path / "less", **asked, budget__latency=f"{budget_ns:.0f}ns", fit__rounds=2))
    assert (found.verdict, found.source) == ("met", Source.EMULATED)
    assert found.latency_interval_ns is not None and found.latency_interval_ns[1] <= budget_ns


def test_an_emulated_board_that_is_set_up_is_used_unless_told_otherwise(emulated: str, tmp_path: Path) -> None:
    def chosen(**target: Any) -> str | None:
        given = {f"target__{key}": value for key, value in target.items()}
        return job.sourced(spec(tmp_path, budget__latency=None, budget__macs="1M", **given)).target.device

    assert chosen(name="rpi4") == "emulator"
    assert chosen(name="rpi4", device="none") == "none" and chosen(name="rpi4", device="local") == "local"
    for other in ({"runtime": "onnxruntime"}, {"threads": 1}):  # of which no latency is known there
        assert chosen(name="rpi4", **other) is None
    for elsewhere in ("host", "rpi5", "nucleo-l4r5zi"):
        assert chosen(name=elsewhere) is None


def test_an_emulated_board_that_cannot_be_used_is_told_and_not_used(
    emulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "host_versions", lambda: {"numpy": "0"})
    notes: list[str] = []
    monkeypatch.setattr(SILENT, "note", notes.append)
    assert job.sourced(spec(tmp_path, target__name="rpi4"), SILENT).target.device is None
    assert len(notes) == 1 and notes[0].startswith("estimated, since the emulated rpi4 cannot be used: the emulated")


def test_what_is_required_says_how_to_get_it(tmp_path: Path) -> None:
    for name, how in (("rpi4", "or once: edgeprune emulate setup rpi4"), ("pixel4", "with --device, or leave")):
        with pytest.raises(UsageError, match=f"what tflite costs on {name} would be estimated") as caught:
            job.check_evidence("emulated", load_target(name), "tflite")
        assert how in caught.value.hint
