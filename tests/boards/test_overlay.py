"""What a board's kernel would say of its cores."""

from __future__ import annotations

import pytest

from edgeprune.boards.overlay import emulation_of, files, midr
from edgeprune.device_facts import CORES
from edgeprune.errors import UnsupportedError
from edgeprune.target import Emulation, Target, load_target, target_names

EMULATED = [name for name in target_names() if load_target(name).emulation is not None]


@pytest.fixture(params=EMULATED)
def board(request: pytest.FixtureRequest) -> Target:
    return load_target(request.param)


def test_the_boards_whose_cores_there_are() -> None:
    assert set(EMULATED) >= {"rpi4", "rpi5", "rpi3b-plus", "rpi-zero2w", "rk3399", "rk3588", "jetson-nano"}


def test_its_part_number_is_that_of_its_core(board: Target) -> None:
    emulated = emulation_of(board)
    core = CORES[f"0x41:{emulated.part}"]
    assert core in board.cpu.core and emulated.cpu == core.lower()
    assert emulated.cores <= board.cpu.cores
    dot = "asimddp" in emulated.features
    assert dot == ("dotprod" in board.cpu.isa)


def test_each_cpu_is_described_alike_everywhere(board: Target) -> None:
    emulated, found = emulation_of(board), files(board)
    blocks = found["proc/cpuinfo"].split("\n\n")
    assert len(blocks) == emulated.cores + 1 and blocks[-1].startswith("Model")
    for index, block in enumerate(blocks[:-1]):
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        assert (said["processor"], said["CPU part"]) == (str(index), emulated.part)
        assert said["Features"].split() == list(emulated.features) and said["CPU implementer"] == "0x41"
        register = int(found[f"sys/devices/system/cpu/cpu{index}/regs/identification/midr_el1"], 16)
        assert register == midr(emulated)
        assert register >> 4 & 0xFFF == int(emulated.part, 16) and register >> 24 == 0x41
        assert register >> 20 & 15 == int(said["CPU variant"], 16) and register & 15 == int(said["CPU revision"])
    assert found["sys/devices/system/cpu/online"] == f"0-{emulated.cores - 1}\n"
    assert all(text.endswith("\n") and not name.startswith("/") for name, text in found.items())


def test_the_register_of_a_pi_4() -> None:
    assert midr(emulation_of(load_target("rpi4"))) == 0x410FD083


def test_a_clock_is_told_where_it_is_known() -> None:
    board = load_target("rpi4")
    clock = "sys/devices/system/cpu/cpu3/cpufreq/cpuinfo_max_freq"
    assert files(board)[clock] == "1800000\n"
    assert clock not in files(board.model_copy(update={"cpu": board.cpu.model_copy(update={"clock_hz": None})}))


@pytest.mark.parametrize("name", ["odroid-n2plus", "pixel4", "host", "nucleo-l4r5zi"])
def test_cores_that_nothing_emulates_are_named(name: str) -> None:
    target = load_target(name)
    with pytest.raises(UnsupportedError, match=f"no emulator here of {target.cpu.core}"):
        files(target)


def test_the_model_of_everything_is_refused() -> None:
    facts = emulation_of(load_target("rpi4")).model_dump()
    with pytest.raises(ValueError, match="pattern"):
        Emulation(**{**facts, "cpu": "max"})
