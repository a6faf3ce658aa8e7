from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeprune import backends
from edgeprune.errors import MissingExtraError, UsageError
from edgeprune.runner import opener
from edgeprune.runner.opener import read_contents, read_times


def test_contents_of_a_child_are_those_of_the_backend(exported: Any) -> None:
    path = exported("tflite", "residual").path
    contents = read_contents(path, "tflite", arena=True)
    tflite = backends.get("tflite")
    assert contents.ops == tflite.read_ops(path)
    assert contents.inspection == tflite.inspect(path)
    assert contents.arena_bytes is not None and contents.arena_bytes >= 64 * 16
    assert read_contents(exported("onnxruntime", "residual").path, "onnxruntime", arena=True).arena_bytes is None


def test_operator_times_come_from_a_child(exported: Any, small_net: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", small_net("residual").samples[:2])
    rows = read_times(exported("onnxruntime", "residual").path, "onnxruntime", 5, 1, tmp_path / "inputs.npy")
    assert len(rows) >= 5 and all(seconds > 0 for _, _, seconds in rows)


def test_a_damaged_file_is_refused_with_the_child_s_reason(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\xff" * 64)
    with pytest.raises(UsageError, match="damaged") as caught:
        read_contents(path, "tflite")
    assert caught.value.where == str(path)


def answers(monkeypatch: pytest.MonkeyPatch, status: int = 0, stdout: bytes = b"", stderr: bytes = b"") -> None:
    done = SimpleNamespace(returncode=status, stdout=stdout, stderr=stderr)
    monkeypatch.setattr(opener.subprocess, "run", lambda *arguments, **options: done)


def test_a_file_that_kills_the_runtime_kills_the_child_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, status=-11)
    with pytest.raises(UsageError, match="ended its process with signal 11"):
        read_contents(Path("m.tflite"), "tflite")


def test_a_child_without_an_answer_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, status=1, stderr=b"first\nMemoryError: too much\n")
    with pytest.raises(UsageError, match="cannot open it: MemoryError: too much"):
        read_contents(Path("m.tflite"), "tflite")


def test_a_missing_extra_in_the_child_is_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, stdout=b'{"error": "MISSING_EXTRA", "message": "needs it", "where": "", "hint": "pip"}')
    with pytest.raises(MissingExtraError, match="needs it"):
        read_contents(Path("m.tflite"), "tflite")


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*arguments: Any, **options: Any) -> None:
        raise opener.subprocess.TimeoutExpired("python", 600)

    monkeypatch.setattr(opener.subprocess, "run", hang)
    with pytest.raises(UsageError, match="took more than 600 s"):
        read_contents(Path("m.tflite"), "tflite")
