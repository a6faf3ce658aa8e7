"""What a job adds to the budget that it was given."""

from __future__ import annotations

from edgeprune.cost import Budget
from edgeprune.job import within_memories
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


def test_what_is_not_executed_is_not_held_to_them() -> None:
    assert within_memories(Budget(), BOARD, "tflm") == Budget()
    assert within_memories(Budget(), load_target("rpi4"), "tflite") == Budget()
    bare = BOARD.model_copy(update={"memory": BOARD.memory.model_copy(update={"ram_bytes": None, "flash_bytes": None})})
    assert within_memories(Budget(), bare, "edgeprune-c") == Budget()
