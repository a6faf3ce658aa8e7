from pathlib import Path
from typing import Any

import pytest

from edgeprune import timing
from edgeprune.errors import MissingExtraError, UsageError
from edgeprune.timing import Turns


def test_a_file_that_the_runtime_cannot_run_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=r"onnxruntime cannot run it \(status 1\)"):
        timing.run_bench(Turns((path,), "onnxruntime", 1, 10))


def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="running openvino needs the extra 'openvino'"):
        timing.run_bench(Turns((tmp_path / "m.xml",), "openvino", 1, 10))


def test_a_run_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hang(*arguments: Any, **options: Any) -> None:
        raise timing.subprocess.TimeoutExpired("python", 900)

    monkeypatch.setattr(timing.subprocess, "run", hang)
    with pytest.raises(UsageError, match="the run took more than 900 s"):
        timing.run_bench(Turns((tmp_path / "m.xml",), "openvino", 1, 10))
