"""The fuzzer of the .tflite reader: it finds nothing in the reader, and it would find what there was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import fuzz_tflite
from bench.fuzz_tflite import Counts, broken_promises, fuzz, main, mutated, seeds
from edgeprune.backends.c.model import Model, Quantization
from tests.backends.c.examples import example


@pytest.fixture(scope="module")
def corpus() -> list[bytes]:
    return seeds()


def test_damaged_files_are_refused_or_keep_their_promises(corpus: list[bytes], tmp_path: Path) -> None:
    counts = fuzz(corpus, 0, range(1000), tmp_path / "model.tflite")
    assert counts.findings == [] and counts.files == 1000
    assert counts.accepted > 50 and set(counts.refused) == {"USAGE", "UNSUPPORTED"}
    assert counts.accepted + sum(counts.refused.values()) == 1000


@pytest.mark.slow
def test_damaged_files_are_refused_in_children_of_limited_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "90", "--seed", "7"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["files"] > 5_000 and counts["findings"] == []


def test_a_file_follows_from_seed_and_number(corpus: list[bytes]) -> None:
    first, again, other = (mutated(corpus, np.random.default_rng((3, number))) for number in (5, 5, 6))
    assert first == again != other


def test_crashes_and_slow_reads_are_findings(
    corpus: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(path: Path) -> Model:
        raise struct_error

    struct_error = IndexError("out of range")
    monkeypatch.setattr(fuzz_tflite, "read", crash)
    (found,) = fuzz(corpus, 0, [4], tmp_path / "model.tflite").findings
    assert found.startswith("4: Traceback") and "IndexError: out of range" in found
    monkeypatch.undo()
    monkeypatch.setattr(fuzz_tflite, "SLOWEST_S", 0.0)
    assert "9: took 0.0 s" in fuzz(corpus, 0, [9], tmp_path / "model.tflite").findings


def test_broken_promises_are_findings() -> None:
    model = example("CONV_2D", np.random.default_rng(0))
    assert broken_promises(model) == []

    def broken(index: int, **changes: object) -> list[str]:
        tensors = list(model.tensors)
        tensors[index] = replace(tensors[index], **changes)  # type: ignore[arg-type]
        return broken_promises(replace(model, tensors=tuple(tensors)))

    assert broken(1, shape=(3,)) and broken(1, dtype="int32") and broken(0, shape=(-1, 2))
    assert broken(0, quantization=Quantization((0.0,), (0,))) and broken(2, quantization=Quantization((1.0,), (1,)))
    assert broken(1, quantization=Quantization((1.0,) * 77, (0,) * 77)) and broken(1, data=None)
    assert broken(model.outputs[0], dtype="float32")
    assert broken_promises(replace(model, operators=2 * model.operators))
    assert broken_promises(replace(model, operators=()))


def test_the_command_counts_in_children(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "more.tflite"
    file.write_bytes(seeds()[0])
    assert main([str(file), "--files", "30", "--first", "100", "--seed", "2"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["files"] == 30 and counts["seed"] == 2 and counts["peak_mib"] > 10


def test_a_child_that_is_ended_is_a_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(command: list[str], **options: object) -> None:
        Path(command[command.index("--child") + 1]).write_text("12                  ")
        raise fuzz_tflite.subprocess.TimeoutExpired("python", 300)

    monkeypatch.setattr(fuzz_tflite.subprocess, "run", killed)
    assert main(["--files", "3", "--first", "10"]) == 1
    counts = json.loads(capsys.readouterr().out)
    assert counts["findings"][0] == "12: its process did not end in 300 s" and counts["files"] == 3


def test_what_a_child_says_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    done = fuzz_tflite.subprocess.CompletedProcess([], -11, b"", b"Segmentation fault")
    monkeypatch.setattr(fuzz_tflite.subprocess, "run", lambda *arguments, **options: done)
    counts = fuzz_tflite._batch([], 0, 7, 5)
    assert counts == Counts(files=1, findings=["7: its process ended with status -11: Segmentation fault"])
