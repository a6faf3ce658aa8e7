"""`edgeprune profile`: the file or the run's artifact is measured on the target asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cost import Cost, Measurement, OpCost, Source
from edgeprune.record import create
from edgeprune.spec import Spec
from tests.cli.conftest import Command
from tests.report.made_up import infeasible_record, made_up_record


@pytest.fixture
def asked(stand_in: Any) -> list[dict[str, Any]]:
    """What the profiler was asked; it answers with a fixed measurement."""
    calls: list[dict[str, Any]] = []

    def profile(path: Path, target: Any, **more: Any) -> Measurement:
        calls.append({"path": path, "target": target.name, **more})
        return Measurement(
            cost=Cost(
                source=Source.MEASURED,
                latency_s=0.0021,
                latency_interval_s=(0.002, 0.0021),
                ram_bytes=2**20,
                ram_kind="process",
                size_bytes=4096,
            ),
            target=target.name,
            runtime="tflite",
            runtime_version="2.3.0",
            threads=1,
            precision="int8",
            runs=200,
            p50_s=0.0015,
            p90_s=0.002,
            p99_s=0.003,
            ops=(OpCost(name="head", kind="dense", latency_s=0.0001, macs=640),),
            notes=("a note",),
        )

    import_module("edgeprune.calibration.calibrate")  # takes names of the profiler that the stand-in lacks
    stand_in("profiling", profile=profile)
    return calls


def run_folder(folder: Path, record: Any) -> Path:
    with create(Spec(out=folder), "demo") as run:
        artifacts = {name: run.path / path.relative_to(record.run) for name, path in record.artifacts.items()}
        for path in artifacts.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        run.finish(record.model_copy(update={"run": run.path, "artifacts": artifacts}))
    return run.path


def test_a_file_is_profiled_on_this_machine_unless_said_otherwise(
    command: Command, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    assert command("profile", "m.tflite").code == 0
    line = "profile m.tflite --target rpi4 --runtime tflite --threads 2 --runs 500 --at p99"
    assert command(*line.split()).code == 0
    assert asked == [
        {"path": Path("m.tflite"), "target": "host", "runtime": None, "threads": None, "at": "p90", "runs": 200},
        {"path": Path("m.tflite"), "target": "rpi4", "runtime": "tflite", "threads": 2, "at": "p99", "runs": 500},
    ]


def test_the_numbers_are_printed_with_their_source(
    command: Command, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    out = command("profile", "m.tflite").out
    for text in ("host (measured)", "2.1 ms (99 % upper bound", "tflite 2.3.0, 1 thread", "1.0 MiB (process)", "head"):
        assert text in out
    document = json.loads(command("profile", "m.tflite", "--json").out)
    assert (document["schema"], document["latency_ns"], document["artifact"]) == (
        "edgeprune.profile/1",
        2_100_000,
        "m.tflite",
    )
    assert len(asked) == 2


def test_of_a_run_the_deployed_artifact_is_taken_with_the_runs_settings(
    command: Command, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    run = run_folder(tmp_path, made_up_record())
    assert command("profile", str(run)).code == 0
    assert command("profile", str(run), "--target", "host", "--runtime", "onnxruntime").code == 0
    first, second = asked
    assert (first["path"].name, first["target"], first["runtime"], first["threads"]) == (
        "model.tflite",
        "rpi4",
        "tflite",
        4,
    )
    assert (second["path"].name, second["target"], second["threads"]) == ("model.onnx", "host", None)


def test_a_run_that_was_moved_still_finds_its_artifact(
    command: Command, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    moved = run_folder(tmp_path / "old", made_up_record()).rename(tmp_path / "moved")
    assert command("profile", str(moved)).code == 0
    assert asked[0]["path"] == moved / "artifacts/model.tflite"
    (moved / "artifacts/model.tflite").unlink()
    done = command("profile", str(moved))
    assert done.code == 2 and "no such file: " in done.err


@pytest.mark.parametrize(
    ("line", "message"),
    [("profile none.tflite", "no such file: none.tflite"), ("profile x --at p95", "unknown percentile 'p95'")],
)
def test_a_bad_argument_is_named(command: Command, asked: list[dict[str, Any]], line: str, message: str) -> None:
    done = command(*line.split())
    assert done.code == 2 and message in done.err and asked == []


def test_a_run_without_that_artifact_says_what_there_is(
    command: Command, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    run = run_folder(tmp_path, made_up_record())
    done = command("profile", str(run), "--runtime", "openvine")
    assert done.code == 2 and "no artifact for openvine" in done.err and "did you mean openvino" in done.err
    empty = command("profile", str(run_folder(tmp_path, infeasible_record())))
    assert empty.code == 2 and "nothing was exported" in empty.err and asked == []


def test_of_a_c_library_its_folder_is_enough(command: Command, tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    report = tmp_path / "net" / "net.c.json"
    report.parent.mkdir()
    report.write_text("{}")
    assert command("profile", "net", "--target", "nucleo-l4r5zi").code == 0
    assert (asked[0]["path"], asked[0]["target"]) == (Path("net/net.c.json"), "nucleo-l4r5zi")


def test_of_a_run_for_a_microcontroller_the_library_is_taken(
    command: Command, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    record = made_up_record()
    artifacts = {**record.artifacts, "c": record.run / "artifacts/model/model.c.json"}
    changes = {"target": "nucleo-l4r5zi", "runtime": "edgeprune-c", "threads": 1, "artifacts": artifacts}
    run = run_folder(tmp_path, record.model_copy(update=changes))
    assert command("profile", str(run)).code == 0
    assert (asked[0]["path"].name, asked[0]["runtime"]) == ("model.c.json", "edgeprune-c")
    assert command("profile", str(run), "--runtime", "x-cube-ai").code == 0
    assert asked[1]["path"].name == "model.tflite"


def test_a_file_for_a_microcontroller_is_executed_and_counted(
    command: Command, exported: Callable[..., Any], tmp_path: Path
) -> None:
    if not find_spec("unicorn"):
        pytest.skip("needs the extra mcu")
    if not shutil.which("arm-none-eabi-gcc") and not find_spec("ziglang"):
        pytest.skip("needs arm-none-eabi-gcc or ziglang")
    path = exported("tflite", "residual").path
    document = json.loads(command("profile", str(path), "--target", "nucleo-l4r5zi", "--json").out)
    assert (document["source"], document["runtime"], document["mismatches"]) == ("emulated", "edgeprune-c", 0)
    counts = ("instructions", "arena_bytes", "arena_bound_bytes", "stack_bytes", "flash_bytes", "code_bytes")
    assert all(document[name] > 0 for name in counts) and 0 < document["cycles"][0] < document["cycles"][1]
    assert document["ops"] and all(row["instructions"] > 0 for row in document["ops"])
