import ast
import json
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.runner import bench

SCRIPT = Path(bench.__file__)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, check=False, timeout=120, **options
    )


@pytest.mark.parametrize("runtime", ["tflite", "onnxruntime", "openvino"])
def test_a_copied_script_times_a_file_and_prints_one_document(runtime: str, exported: Any, tmp_path: Path) -> None:
    path = exported(runtime, "residual").path
    script = tmp_path / "bench.py"
    script.write_bytes(SCRIPT.read_bytes())
    quick = ["--min-runs", "50", "--min-time", "0.1"]
    command = [sys.executable, "-I", str(script), "--runtime", runtime, "--model", str(path), *quick]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120, cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["schema"] == "edgeprune.bench/1"
    assert document["precision"] == ["int8"] and document["threads"] == 1
    assert document["runtime_version"].split()[1][0].isdigit()
    (samples,) = document["samples_ns"]
    assert len(samples) >= 50 and min(samples) > 0
    assert sum(count for count, _ in document["slices"]) == len(samples)
    assert document["warm_up"]["runs"] >= 5 and document["warm_up"]["seconds"] >= 0.5
    assert document["peak_rss_bytes"] > document["empty_rss_bytes"] > 1_000_000
    assert document["first_ns"] > 0 and document["load_ns"] > 0
    assert "load" in document["before"] and "load" in document["after"]


def test_the_script_imports_nothing_of_the_package() -> None:
    assert "edgeprune" not in {line.split()[1].split(".")[0] for line in _import_lines()}


def test_the_script_is_of_a_python_that_boards_still_have() -> None:
    assert ast.parse(SCRIPT.read_text(), feature_version=(3, 9)).body[1].module == "__future__"  # type: ignore[attr-defined]


def _import_lines() -> list[str]:
    lines = [line.strip() for line in SCRIPT.read_text().splitlines()]
    return [line for line in lines if line.startswith(("import ", "from "))]


def test_real_inputs_are_taken_in_the_layout_of_the_model(exported: Any, small_net: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", small_net("residual").samples[:4])
    artifact = exported("tflite", "residual")
    call, precision, _ = bench.load_tflite(str(artifact.path), 1, np.load(tmp_path / "inputs.npy"))
    call()
    assert precision() == "int8"
    with pytest.raises(ValueError, match="Dimension mismatch"):
        bench.load_tflite(str(artifact.path), 1, np.zeros((1, 3, 9, 9), np.float32))


def test_several_models_are_timed_in_turns(exported: Any) -> None:
    path = str(exported("onnxruntime", "residual").path)
    options = bench.parse(
        ["--runtime", "onnxruntime", "--model", path, "--model", path, "--min-runs", "5", "--min-time", "0.05"]
    )
    document = bench.bench(options)
    assert [len(samples) >= 5 for samples in document["samples_ns"]] == [True, True]
    assert document["models"] == [path, path]


def test_a_reference_is_timed_after_every_stretch(exported: Any) -> None:
    path, other = (str(exported("onnxruntime", "residual", kind).path) for kind in ("int8", "fp32"))
    quick = ["--min-runs", "20", "--min-time", "0.2"]
    document = bench.bench(bench.parse(["--runtime", "onnxruntime", "--model", path, "--reference", other, *quick]))
    (samples,) = document["samples_ns"]
    assert sum(runs for runs, _ in document["stretches"]) == len(samples) >= 20
    assert sum(samples) >= 0.2e9 and len(document["stretches"]) >= 4
    assert all(reference > 0 for _, reference in document["stretches"]) and document["slices"] == []


def test_a_slow_reference_takes_no_more_time_than_the_model() -> None:
    spent = {"model": 0.0, "reference": 0.0}

    def sleeping(name: str, seconds: float) -> bench.Call:
        def call() -> None:
            bench.time.sleep(seconds)
            spent[name] += seconds

        return call

    samples, stretches = bench.measure_beside(sleeping("model", 0.002), sleeping("reference", 0.05), 50, 0.0, 9.0)
    assert len(samples) >= 50 and len(stretches) >= 2
    assert spent["reference"] <= 2 * spent["model"] + 0.2


def test_a_reference_goes_with_one_model() -> None:
    done = run("--runtime", "tflite", "--model", "a", "--model", "b", "--reference", "c")
    assert done.returncode == 2 and b"--reference goes with one --model" in done.stderr


def test_a_runtime_that_is_not_installed_ends_with_status_7(tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('not here')")
    done = run("--runtime", "openvino", "--model", "m.xml", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == bench.EXIT_NO_RUNTIME
    assert b"openvino is not installed" in done.stderr


def test_a_missing_model_is_a_usage_error() -> None:
    done = run("--runtime", "tflite")
    assert done.returncode == 2 and b"--model is missing" in done.stderr


def test_measuring_stops_at_the_cap_and_counts_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, slices = bench.measure(lambda: None, 10**9, 0.0, 0.25)
    assert sum(count for count, _ in slices) == len(samples)
    assert 2 <= len(slices) <= 4


def test_a_warm_up_that_never_settles_ends_at_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum(np.full(10_000, 0.01)))
    lengths = cycle([10**8] * 5 + [2 * 10**8] * 5)  # two speeds, window after window
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(bench, "timed", lambda call: int(next(lengths)))
    outcome = bench.warm_up(lambda: None)
    assert not outcome["settled"] and outcome["seconds"] >= bench.WARM_UP_CAP_S


def test_noise_covers_the_whole_range_of_integers() -> None:
    values = bench._noise((1000,), np.dtype("int8"))
    assert values.dtype == np.int8 and values.min() < -120 and values.max() > 120
