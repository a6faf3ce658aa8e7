"""What is counted of a C library for a core that nothing here executes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgeprune import backends
from edgeprune.cost import Measurement, Source
from edgeprune.documents import profile_record
from edgeprune.emulate import toolchain
from edgeprune.errors import MissingExtraError, UsageError
from edgeprune.profiling import profile
from edgeprune.report.summary import profile_table
from edgeprune.target import Target, load_target


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if not find_spec("elftools"):
        pytest.skip("needs the extra mcu")
    if not shutil.which("arm-none-eabi-gcc") and not find_spec("ziglang"):
        pytest.skip("needs arm-none-eabi-gcc or ziglang")


@pytest.fixture(scope="module")
def board() -> Target:
    return load_target("esp32-s3")


@pytest.fixture(scope="module")
def file(exported: Callable[..., Any]) -> Path:
    """An int8 .tflite file of 6 convolutions and additions."""
    path: Path = exported("tflite", "residual").path
    return path


@pytest.fixture(scope="module")
def report(file: Path, board: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of its library."""
    c: Any = backends.get("c")
    written: Path = c.convert(file, tmp_path_factory.mktemp("esp32") / "net", "net", board)
    return written


@pytest.fixture(scope="module")
def found(file: Path, board: Target) -> Measurement:
    return profile(file, board, runtime="edgeprune-c")


def test_memory_is_counted_and_called_an_estimate(found: Measurement, report: Path) -> None:
    from edgeprune.backends.c.library import read_report

    library = read_report(report)
    assert found.cost.source is Source.ESTIMATED and found.counts is None
    assert found.cost.ram_bytes == library["arena_bytes"] and found.cost.ram_kind == "arena"
    assert found.cost.size_bytes is not None
    assert library["weights_bytes"] + 1000 < found.cost.size_bytes < library["weights_bytes"] + 32_000
    assert found.cost.macs == sum(op.macs for op in found.ops) > 0


def test_what_is_not_known_is_said(found: Measurement) -> None:
    assert found.cost.latency_s is None and all(op.latency_s is None for op in found.ops)
    model, executed, stack, flash = found.notes
    assert model == "no latency model for esp32-s3, edgeprune-c, int8, 1 thread(s): memory and size only"
    assert executed == "C generated, not executed: there is no emulator for Xtensa LX7 here"
    assert "stack" in stack and "not known" in stack
    assert "weights" in flash and "as compiled for Cortex-M3" in flash and "nothing here compiles for Xtensa" in flash
    assert "emulated" not in profile_table(profile_record(found, Path("net.tflite")))


def test_a_library_costs_what_its_file_does(found: Measurement, report: Path, board: Target) -> None:
    apart = profile(report, board)
    assert apart == found and apart.runtime == "edgeprune-c"


def test_a_core_that_is_compiled_for_stands_for_itself(file: Path, found: Measurement) -> None:
    board = load_target("nucleo-l4r5zi")
    runtime = board.runtime("edgeprune-c").model_copy(update={"emulated": False})
    measured = profile(file, board.model_copy(update={"runtimes": {"edgeprune-c": runtime}}), runtime="edgeprune-c")
    assert measured.environment["core"] == "Cortex-M4" and "since nothing" not in measured.notes[-1]
    assert measured.cost.ram_bytes is not None and measured.cost.source is Source.ESTIMATED


def test_the_default_runtime_of_the_board_stays(file: Path, board: Target) -> None:
    assert board.default_runtime == "tflm" and profile(file, board).runtime == "tflm"


def test_a_missing_compiler_and_another_file_are_told(
    file: Path, board: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="takes files for c"):
        (tmp_path / "m.onnx").write_bytes(b"")
        profile(tmp_path / "m.onnx", board, runtime="edgeprune-c")
    toolchain.find_toolchain.cache_clear()
    monkeypatch.setattr(toolchain, "_command", lambda name: None)
    with pytest.raises(MissingExtraError, match="a compiler for Cortex-M is not installed"):
        profile(file, board, runtime="edgeprune-c")
