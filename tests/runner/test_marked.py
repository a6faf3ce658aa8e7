"""The script that marks inferences for who counts them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.runner import bench, marked

SCRIPT = Path(marked.__file__)


def test_it_stands_alone_beside_the_other_and_waits_twice(small_tflite: Path, tmp_path: Path) -> None:
    for script in (SCRIPT, Path(bench.__file__)):
        (tmp_path / script.name).write_bytes(script.read_bytes())
    command = [
        sys.executable,
        "-I",
        "-c",
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import marked; sys.exit(marked.main(sys.argv[1:]))",
    ]
    options = ["--runtime", "tflite", "--model", str(small_tflite), "--runs", "2", "--outputs", str(tmp_path / "o.npz")]
    for more in ([], ["--no-delegates"]):
        done = subprocess.run(
            [*command, str(tmp_path), *options, *more], input=b"\n\n", capture_output=True, check=True
        )
        imported, ran = map(json.loads, done.stdout.splitlines())
        assert imported["at"] == "imported" and imported["version"].startswith("ai-edge-litert")
        assert any("litert" in name for name in imported["loaded"])
        assert ran == {"at": "ran", "precision": "int8"}
        with np.load(tmp_path / "o.npz") as saved:
            assert saved["arr_0"].shape == (1, 16, 16, 32)


def test_a_runtime_that_is_not_there_has_its_own_status(tmp_path: Path) -> None:
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('broken')")
    (tmp_path / "tflite_runtime.py").write_text("raise ImportError('broken')")
    command = [sys.executable, str(SCRIPT), "--runtime", "tflite", "--model", "m", "--outputs", "o"]
    done = subprocess.run(command, capture_output=True, check=False, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == bench.EXIT_NO_RUNTIME and b"tflite is not installed" in done.stderr


def test_the_script_is_of_a_python_that_boards_still_have() -> None:
    assert ast.parse(SCRIPT.read_text(), feature_version=(3, 9))


def test_marks_are_calls_on_aarch64_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert marked.marker()(3) is None
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert isinstance(marked.marker()(3), int)  # of this machine another call, which changes nothing either
