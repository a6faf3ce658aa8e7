"""What a profile for a microcontroller counts when it executes a file's C library on an emulated core."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgeprune import backends
from edgeprune.cost import Measurement, Source
from edgeprune.documents import profile_record
from edgeprune.emulate import qemu
from edgeprune.emulated import profile_emulated
from edgeprune.errors import BudgetError, MissingExtraError, QualityError, UnsupportedError, UsageError
from edgeprune.profiling import profile
from edgeprune.target import Target, load_target

ROOM = 64 * 1024


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if not find_spec("unicorn"):
        pytest.skip("needs the extra mcu")
    if not shutil.which("arm-none-eabi-gcc") and not find_spec("ziglang"):
        pytest.skip("needs arm-none-eabi-gcc or ziglang")


@pytest.fixture(scope="module")
def board() -> Target:
    return load_target("nucleo-l4r5zi")


@pytest.fixture(scope="module")
def file(exported: Callable[..., Any]) -> Path:
    """An int8 .tflite file of 6 convolutions and additions."""
    path: Path = exported("tflite", "residual").path
    return path


@pytest.fixture(scope="module")
def found(file: Path, board: Target) -> Measurement:
    """Its profile."""
    return profile(file, board)


def small(board: Target, flash_bytes: int, ram_bytes: int) -> Target:
    """The board with other memories."""
    memory = board.memory.model_copy(update={"flash_bytes": flash_bytes, "ram_bytes": ram_bytes})
    return board.model_copy(update={"memory": memory})


def library(file: Path, folder: Path, board: Target) -> Path:
    """The report of the file's library."""
    c: Any = backends.get("c")
    report: Path = c.convert(file, folder / "net", "net", board)
    return report


def test_a_file_is_executed_where_the_target_is_a_microcontroller(found: Measurement, board: Target) -> None:
    counts, cost = found.counts, found.cost
    assert counts is not None and cost.source is Source.EMULATED
    assert (found.target, found.runtime, found.threads, found.precision) == (board.name, "edgeprune-c", 1, "int8")
    assert counts.mismatches == 0 and counts.compared == 100
    assert cost.ram_bytes == counts.arena_bytes + counts.stack_bytes and cost.ram_kind == "arena"
    assert 0 < counts.arena_bound_bytes <= counts.arena_bytes
    assert cost.size_bytes == counts.flash_bytes >= counts.code_bytes + counts.weights_bytes
    assert counts.cycles is not None and cost.latency_interval_s is not None and board.cpu.clock_hz
    assert cost.latency_interval_s[1] == pytest.approx(counts.cycles[1] / board.cpu.clock_hz, rel=1e-5)
    assert found.environment["core"] == "Cortex-M4" and "not run on a board" in found.notes[0]


def test_its_layers_hold_all_but_the_call_itself(found: Measurement) -> None:
    assert found.counts is not None and found.ops and all(op.instructions for op in found.ops)
    inside = sum(op.instructions or 0 for op in found.ops)
    assert 0.98 * found.counts.instructions < inside <= found.counts.instructions
    assert sum(op.macs for op in found.ops) == found.cost.macs
    assert found.cost.macs is not None and found.counts.instructions > found.cost.macs / 4


def test_it_counts_the_same_again(file: Path, board: Target, found: Measurement) -> None:
    assert profile_emulated(file, board) == found


def test_a_library_is_profiled_like_the_file_beside_it(
    file: Path, board: Target, found: Measurement, tmp_path: Path
) -> None:
    report = library(file, tmp_path, board)
    apart = profile(report, board)
    assert apart.counts is not None and found.counts is not None
    assert apart.counts.mismatches is None and apart.counts.compared == 0
    assert apart.cost == found.cost and apart.counts.instructions == found.counts.instructions
    shutil.copy(file, tmp_path / "net.tflite")
    beside = profile(report, board)
    assert beside.counts == found.counts and beside.ops == found.ops
    (tmp_path / "net.tflite").write_bytes(b"another file")
    assert profile(report, board) == apart


def without_weights(report: Path, where: str) -> None:
    """The library with the first layer's weights 0 where the preprocessor's condition holds."""
    source = report.parent / "src" / "net_weights.c"
    text = source.read_text()
    start = text.index("{", text.index("const int8_t"))
    end = text.index("}", start) + 1
    source.write_text(f"{text[:start]}\n#if {where}\n{{0}}\n#else\n{text[start:end]}\n#endif\n{text[end:]}")


def test_a_library_that_answers_otherwise_than_its_file_is_told(file: Path, board: Target, tmp_path: Path) -> None:
    report = library(file, tmp_path, board)
    shutil.copy(file, tmp_path / "net.tflite")
    without_weights(report, "1")
    counts = profile(report, board).counts
    assert counts is not None and counts.mismatches and counts.compared == 100


def test_a_library_that_answers_otherwise_on_the_core_than_here_is_refused(
    file: Path, board: Target, tmp_path: Path
) -> None:
    report = library(file, tmp_path, board)
    without_weights(report, "defined(__arm__)")
    with pytest.raises(QualityError, match=r"\d of 10 output values differ between the emulated Cortex-M4 and this"):
        profile(report, board)


def test_memories_that_are_too_small_are_errors_only_where_it_must_fit(
    file: Path, board: Target, found: Measurement
) -> None:
    with pytest.raises(BudgetError, match=r"flash|FLASH"):
        profile(file, small(board, 1024, ROOM))
    with pytest.raises(BudgetError, match=r"RAM|ram"):
        profile(file, small(board, 2 * ROOM, 1024))
    roomy = profile(file, small(board, 1024, 1024), must_fit=False)
    assert roomy.cost == found.cost and roomy.counts == found.counts


def test_what_cannot_be_executed_is_said(file: Path, board: Target, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say its flash_address"):
        memory = board.memory.model_copy(update={"flash_address": None})
        profile(file, board.model_copy(update={"memory": memory}))
    report = library(file, tmp_path, board)
    document = json.loads(report.read_text())
    report.write_text(json.dumps({**document, "inputs": document["inputs"] * 2}))
    with pytest.raises(UnsupportedError, match="a network with 2 inputs cannot be executed"):
        profile(report, board)


def test_another_runtime_of_the_board_is_still_estimated(file: Path, board: Target) -> None:
    estimated = profile(file, board, runtime="tflm")
    assert estimated.cost.source is Source.ESTIMATED and estimated.counts is None


def test_the_document_holds_every_count(found: Measurement) -> None:
    assert found.counts is not None
    document = json.loads(profile_record(found, Path("m.tflite")).to_json())
    counts = json.loads(found.counts.model_dump_json())
    assert counts.items() <= document.items() and document["source"] == "emulated"
    assert [row["instructions"] for row in document["ops"]] == [op.instructions for op in found.ops]


@pytest.mark.parametrize("name", ["mps3-an547", "ek-ra8d1"])
def test_a_core_with_helium_is_executed_without_an_estimate_of_time(file: Path, name: str) -> None:
    if not shutil.which("qemu-system-arm"):
        pytest.skip("needs qemu-system-arm")
    target = load_target(name)
    measured = profile(file, target, runtime="edgeprune-c")
    counts, cost = measured.counts, measured.cost
    assert counts is not None and (counts.mismatches, counts.compared) == (0, 100)
    assert counts.cycles is None and cost.latency_s is None and cost.latency_interval_s is None
    assert cost.macs is not None and 0 < counts.instructions < 0.6 * cost.macs
    assert cost.ram_bytes == counts.arena_bytes + counts.stack_bytes and cost.size_bytes == counts.flash_bytes
    assert measured.environment["core"] == target.cpu.core and measured.environment["emulator"].startswith("qemu")
    assert measured.notes[-1].startswith("cycles: none, and no latency: ")
    assert any("executed as a Cortex-M55" in note for note in measured.notes) == (name == "ek-ra8d1")


def test_without_its_emulator_nothing_is_begun(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu.version.cache_clear()
    found = shutil.which
    monkeypatch.setattr(qemu.shutil, "which", lambda tool: None if tool == "qemu-system-arm" else found(tool))
    with pytest.raises(MissingExtraError, match="a Cortex-M55 needs qemu-system-arm") as caught:
        profile(file, load_target("mps3-an547"))
    assert "qemu-system-arm" in caught.value.hint
    qemu.version.cache_clear()
