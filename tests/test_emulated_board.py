"""What a profile on an emulated board makes of what was executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import emulated_board
from edgeprune.boards import kit
from edgeprune.boards.execution import Executed
from edgeprune.boards.plugin import CLASSES, Tally
from edgeprune.cost import Measurement, Source
from edgeprune.documents import profile_record
from edgeprune.emulated_board import emulated_target
from edgeprune.errors import MissingExtraError, UnsupportedError, UsageError
from edgeprune.links import emulator
from edgeprune.profiling import profile
from edgeprune.report.summary import profile_table
from edgeprune.target import load_target
from tests.boards import stand_in

RPI4 = load_target("rpi4")
TALLY = Tally({name: 1_000_000 * (at < 8) for at, name in enumerate(CLASSES)}, 50_000, 4_000, 10**7, 10**6)


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in.board(tmp_path, monkeypatch)


def executed(values: list[float], *, board: bool, version: str = "ai-edge-litert 2.3.0") -> Executed:
    output = np.array([values], np.float32)
    return Executed((output,), "int8", version, "aarch64", (), (TALLY, TALLY) if board else (), 3_000_000)


@pytest.fixture
def profiled(boards: Path, monkeypatch: pytest.MonkeyPatch, small_tflite: Path) -> Any:
    """`profiled(there, here, **more)`: the profile of a file that gave these answers."""

    def run(there: Executed, here: Executed, **more: Any) -> Measurement:
        monkeypatch.setattr(emulated_board, "execute", lambda path, runtime, kit, **options: there if kit else here)
        return profile(small_tflite, RPI4, device=emulator.board(RPI4), **more)

    return run


def test_counts_answers_and_an_interval(profiled: Any, small_tflite: Path) -> None:
    found = profiled(executed([1, 2, 3], board=True), executed([1, 2, 3], board=False))
    assert found.cost.source is Source.EMULATED and found.cost.ram_bytes == 3_000_000
    assert found.cost.size_bytes == small_tflite.stat().st_size and found.cost.macs > 0
    low, high = found.cost.latency_interval_s
    assert 0 < low < found.cost.latency_s < high and found.cost.latency_upper_s == high
    assert (found.board.instructions, found.board.l2_misses, found.board.differing) == (8_000_000, 4_000, 0)
    assert found.runs == 0 and found.p50_s is None and found.threads == 4
    assert found.environment["device"] == "emulator:rpi4" and "cortex-a72" in found.environment["core"]
    document = profile_record(found, small_tflite)
    assert document.board == found.board and '"l2_misses": 4000' in document.to_json()
    text = profile_table(document)
    assert "8,000,000 (" in text and "3 of 3 output values are those of this machine" in text
    assert "50,000 of the first level, 4,000 of the second (simulated)" in text


def test_answers_that_differ_are_told(profiled: Any, small_tflite: Path) -> None:
    found = profiled(executed([1, 2, 3], board=True), executed([1, 2, 4], board=False))
    assert (found.board.differing, found.board.difference, found.board.largest) == (1, 1.0, 4.0)
    assert "answers differ from this machine's by up to 25.0 % of the largest" in found.notes
    assert "the others up to 1 apart (largest 4)" in profile_table(profile_record(found, small_tflite))
    other = profiled(executed([0], board=True), executed([0], board=False, version="ai-edge-litert 1"))
    assert "compared with ai-edge-litert 1 on this machine" in other.notes


def test_threads_that_nothing_is_published_of_have_no_latency(profiled: Any) -> None:
    found = profiled(executed([1], board=True), executed([1], board=False), threads=1)
    assert found.cost.latency_s is None and found.cost.latency_interval_s is None
    assert found.notes[0] == "no latency: nothing is fitted for tflite, int8, 1 thread(s) on an emulated rpi4"


def test_what_cannot_be_profiled_there(profiled: Any, boards: Path, small_tflite: Path) -> None:
    same = executed([1], board=True), executed([1], board=False)
    with pytest.raises(UsageError, match="a benchmark program cannot be counted"):
        profiled(*same, benchmark_binary="b")
    with pytest.raises(UsageError, match="emulator:rpi4 is not the target rpi5"):
        profile(small_tflite, load_target("rpi5"), device=emulator.board(RPI4))
    with pytest.raises(MissingExtraError, match="no emulated rpi5 is set up"):
        profile(small_tflite, load_target("rpi5"), device=emulator.board(load_target("rpi5")))


def test_a_fit_s_target_is_run_but_not_measured(boards: Path) -> None:
    target = emulated_target(emulator.board(RPI4), RPI4, "tflite")
    assert target.latency == "estimated" and target.runtime("tflite").emulated
    assert not target.runtime("onnxruntime").emulated
    with pytest.raises(UsageError, match="no latency is known of onnxruntime on an emulated rpi4, 4 thread"):
        emulated_target(emulator.board(RPI4), RPI4, "onnxruntime")
    with pytest.raises(UsageError, match="is not the target"):
        emulated_target(emulator.board(RPI4), load_target("rpi5"), "tflite")
    (boards / "setup.json").unlink()
    with pytest.raises(MissingExtraError, match="no emulated rpi4 is set up"):
        emulated_target(emulator.board(RPI4), RPI4, "tflite")


def test_addresses_of_emulated_boards(boards: Path) -> None:
    assert emulator.linked("emulator", RPI4).name == emulator.linked("emulator:rpi4", None).name == "emulator:rpi4"
    assert emulator.linked("local", RPI4).name == "host"
    with pytest.raises(UsageError, match="which board is to be emulated"):
        emulator.linked("emulator", None)
    for wrong in ("emulator:", "emulator:RPI4", "emulator:../x"):
        with pytest.raises(UsageError, match="cannot read the address"):
            emulator.connect(wrong)
    with pytest.raises(UsageError, match="unknown target"):
        emulator.connect("emulator:none")
    with pytest.raises(UnsupportedError, match="pixel4 cannot be emulated"):
        emulator.connect("emulator:pixel4")


def test_the_link_describes_the_board_and_not_this_machine(boards: Path) -> None:
    facts = emulator.board(RPI4).describe()
    assert (facts.machine, facts.parts, facts.cores, facts.clock_hz) == ("aarch64", ("0x41:0xd08",), 4, 1_800_000_000)
    assert facts.model == RPI4.description and facts.memory_bytes == RPI4.memory.ram_bytes
    assert facts.cpu == "" and facts.system == f"emulated ({kit.qemu_version()})"
    (boards / "setup.json").unlink()
    with pytest.raises(MissingExtraError, match="no emulated rpi4 is set up"):
        emulator.board(RPI4).run("true")
