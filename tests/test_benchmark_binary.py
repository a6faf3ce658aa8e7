"""TFLite's benchmark program, by a stand-in that prints what the real one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.benchmark_binary import measure_by_binary, read_report
from edgeprune.cost import Source
from edgeprune.documents import profile_record
from edgeprune.errors import DeviceError, MeasurementError, UsageError
from edgeprune.links import connect
from edgeprune.profiling import profile
from edgeprune.report.summary import profile_table
from edgeprune.target import load_target

OUTPUT = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [200]
INFO: Num threads: [4]
INFO: Graph: [file-0.tflite]
INFO: #threads used for CPU inference: [4]
INFO: Loaded model file-0.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 0.053
INFO: Initialized session in 0.855ms.
INFO: Running benchmark for at least 5 iterations and at least 0.5 seconds but terminate if exceeding 120 seconds.
INFO: count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

INFO: Running benchmark for at least 200 iterations and at least 1 seconds but terminate if exceeding 120 seconds.
INFO: count=200 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

INFO: Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=0.5 overall=12.8672
"""  # noqa: E501
PROGRAM = """#!/bin/sh
[ -r "${1#--graph=}" ] || exit 1
[ "$2 $3" = "--num_threads=4 --num_runs=200" ] || exit 1
cat >&2 <<'END'
%sEND
"""


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "benchmark_model"
    path.write_text(PROGRAM % OUTPUT)
    return path


def test_what_the_program_reports_is_the_measurement(small_tflite: Path, binary: Path) -> None:
    result = profile(small_tflite, load_target("rpi4"), device=connect("local", "/none"), benchmark_binary=str(binary))
    cost = result.cost
    assert (cost.source, cost.latency_s) == (Source.MEASURED, pytest.approx(33.2094e-3))
    assert cost.latency_interval_s == pytest.approx((32.641e-3, 34.005e-3))
    assert cost.ram_bytes == round(12.8672 * 2**20) and result.load_s == pytest.approx(855e-6)
    assert (result.runs, result.threads, result.precision) == (200, 4, "int8")
    assert (result.p50_s, result.p90_s, result.p99_s) == (None, None, None)
    assert result.runtime_version.startswith("benchmark_model, sha256 ")
    assert any("there are no percentiles" in note for note in result.notes)
    assert result.environment["judged_at"] == "mean" and result.environment["first_run_ns"] == "49060000"
    table = profile_table(profile_record(result, small_tflite))
    assert "33.2 ms (mean of the runs)" in table and "no single runs are known, 200 in all" in table


def test_a_program_that_is_on_the_device_already_is_run_there(
    small_tflite: Path,
    binary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    binary.chmod(0o755)
    monkeypatch.setattr(Path, "is_file", lambda path: path.exists() and path != binary)
    result = profile(small_tflite, load_target("rpi4"), device=connect("local"), benchmark_binary=str(binary))
    assert result.runtime_version == f"{binary} on the device"


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("#!/bin/sh\necho 'ERROR: no model' >&2\nexit 1\n", UsageError, "ended with status 1: ERROR: no model"),
        ("#!/no/such/interpreter\n", DeviceError, "host cannot start the binary"),
        ("#!/bin/sh\necho hello\n", MeasurementError, "reported no runs"),
    ],
)
def test_a_program_that_fails_is_told(
    small_tflite: Path,
    tmp_path: Path,
    script: str,
    kind: type[Exception],
    message: str,
) -> None:
    (tmp_path / "benchmark_model").write_text(script)
    with pytest.raises(kind, match=message):
        profile(
            small_tflite,
            load_target("rpi4"),
            device=connect("local"),
            benchmark_binary=str(tmp_path / "benchmark_model"),
        )


def test_a_program_that_is_nowhere_and_a_file_that_it_cannot_run(small_tflite: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file: benchmark_none"):
        profile(small_tflite, load_target("rpi4"), device=connect("local"), benchmark_binary="benchmark_none")
    with pytest.raises(UsageError, match="runs .tflite files only"):
        measure_by_binary(None, "x", Path("m.onnx"), load_target("rpi4"), "onnxruntime", 1, 9, "int8")


def test_older_and_shorter_reports_are_read() -> None:
    old = read_report("count=25 first=37601 curr=37528 min=37413 max=37601 avg=3.75e+04 std=39\nPeak memory ...\n")
    assert (old.runs, old.mean_s, old.memory_bytes, old.init_s) == (25, pytest.approx(37.5e-3), None, None)
    alike = read_report("INFO: count=50 curr=123(all same)\n")
    assert (alike.mean_s, alike.least_s, alike.most_s) == pytest.approx((123e-6,) * 3)
    newer = read_report("INFO: count=9 first=1 curr=2 min=1 max=9 avg=3 std=1 p5=1 median=2 p95=8\n")
    assert newer.most_s == pytest.approx(9e-6)
    for text in ("", "count=0\n"):
        with pytest.raises(MeasurementError):
            read_report(text)
