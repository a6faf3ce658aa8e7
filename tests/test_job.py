"""What a job adds to the budget that it was given."""

from __future__ import annotations

import pytest

from edgeprune.cost import Budget
from edgeprune.errors import UsageError
from edgeprune.job import aimed, within_memories
from edgeprune.spec import BudgetSpec, Spec, TargetSpec
from edgeprune.target import load_target

BOARD = load_target("nucleo-l4r5zi")


def test_a_microcontrollers_memories_are_limits() -> None:
    held = within_memories(Budget(latency_s=0.1), BOARD, "edgeprune-c")
    assert held == Budget(latency_s=0.1, ram_bytes=BOARD.memory.ram_bytes, size_bytes=BOARD.memory.flash_bytes)


def test_a_lower_limit_stays_and_a_higher_one_ends_at_the_memory() -> None:
    held = within_memories(Budget(ram_bytes=1000, size_bytes=2**40), BOARD, "edgeprune-c")
    assert (held.ram_bytes, held.size_bytes) == (1000, BOARD.memory.flash_bytes)


def test_of_ram_in_pieces_the_block_is_the_limit() -> None:
    board = load_target("stm32h743")
    assert board.memory.ram_block_bytes is not None and board.memory.ram_bytes is not None
    assert within_memories(Budget(), board, "edgeprune-c").ram_bytes == board.memory.ram_block_bytes
    assert board.memory.ram_block_bytes < board.memory.ram_bytes


def test_of_a_library_that_is_not_executed_memories_are_limits_too() -> None:
    board = load_target("esp32-s3")
    held = within_memories(Budget(), board, "edgeprune-c")
    assert (held.ram_bytes, held.size_bytes) == (board.memory.ram_bytes, board.memory.flash_bytes)


def test_a_time_limit_without_a_latency_model_is_refused_at_once() -> None:
    asked = Spec(target=TargetSpec(name="esp32-s3", runtime="edgeprune-c"), budget=BudgetSpec(latency="50ms"))
    with pytest.raises(UsageError, match="no latency model for esp32-s3, edgeprune-c, int8") as caught:
        aimed(asked)
    assert (
        "--ram, --size and --macs need no latency model" in caught.value.hint and "--runtime tflm" in caught.value.hint
    )
    without = aimed(asked.model_copy(update={"budget": BudgetSpec(ram="64KiB", size="512KiB")}))
    assert without.latency is None and without.runtime == "edgeprune-c"


def test_what_is_no_library_is_not_held_to_them() -> None:
    assert within_memories(Budget(), BOARD, "tflm") == Budget()
    assert within_memories(Budget(), load_target("rpi4"), "tflite") == Budget()
    bare = BOARD.model_copy(update={"memory": BOARD.memory.model_copy(update={"ram_bytes": None, "flash_bytes": None})})
    assert within_memories(Budget(), bare, "edgeprune-c") == Budget()
