"""Runs a library on a board that QEMU emulates: outputs, executed instructions, depth of the stack.

For the Cortex-M55, of which Unicorn has no model, and what is executed as one; `qemu-system-arm` is a package of the
system. QEMU's clock is made to advance by a fixed time per instruction, which the firmware reads from SysTick, of 24
bits: once so slow that the count does not wrap, once so fast that it resolves single instructions.
"""

from __future__ import annotations

import resource
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeprune.emulate.cores import Core
from edgeprune.emulate.cortex_m import Call
from edgeprune.emulate.toolchain import MemoryMap, Sources, Toolchain, build
from edgeprune.errors import DeviceError, MissingExtraError, QualityError


@dataclass(frozen=True)
class Board:
    """A board of QEMU.

    Attributes:
        vectors: Where the core reads its first stack pointer and program counter.
        inputs: Memory apart from the library's.
        tick_ns: Nanoseconds of a tick of SysTick.
    """

    machine: str
    vectors: int
    memory: MemoryMap
    inputs: int
    tick_ns: float


# By secure addresses: ITCM, SRAM for code, SRAM, DDR4
CORTEX_M55 = Board("mps3-an547", 0x1000_0000, MemoryMap(0x1100_0000, 2 << 20, 0x3100_0000, 4 << 20), 0x6000_0000, 31.25)
# To compare with the other emulator
CORTEX_M4 = Board("mps2-an386", 0, MemoryMap(0x1000, (4 << 20) - 0x1000, 0x2000_0000, 4 << 20), 0x2100_0000, 40.0)
_FIRMWARE = Path(__file__).with_name("qemu.c")
_HEAD = struct.Struct("<5I")
_WRAP = 1 << 24
_PATIENCE = 10  # times the limit on CPU time: waiting for the processor does not count, within reason
_SHIFTS = (0, 6)  # nanoseconds of an instruction, as powers of two


@dataclass(frozen=True)
class Answer:
    """One call; as `cortex_m.Run`, without blocks, and the stack with the frame of the caller."""

    output: bytes
    returned: int
    stack_bytes: int
    instructions: int


def call(
    toolchain: Toolchain,
    core: Core,
    library: Sources,
    wanted: Call,
    optimisation: str = "-O2",
    board: Board = CORTEX_M55,
) -> tuple[str, tuple[Answer, ...]]:
    """The emulator's name and version, and an answer per input, in order.

    Raises:
        MissingExtraError: QEMU is not installed.
        QualityError: The library faults or does not end.
        DeviceError: QEMU failed.
    """
    found = version()
    sizes = {"INPUT_COUNT": str(len(wanted.inputs)), "LIBRARY_RUN": wanted.entry, "INPUTS": hex(board.inputs)}
    sources = Sources((*library.files, _FIRMWARE), library.include_dirs, {**(library.defines or {}), **sizes})
    with tempfile.TemporaryDirectory(prefix="edgeprune-qemu-") as name:
        folder = Path(name)
        elf = build(
            toolchain,
            core,
            sources,
            "edgeprune_reset",
            board.memory,
            folder / "firmware.elf",
            optimisation,
            board.vectors,
        )
        (folder / "inputs.bin").write_bytes(b"".join(wanted.inputs))
        slow, fine = (_answers(_run(folder, elf, shift, wanted, board), wanted.output_bytes) for shift in _SHIFTS)
    return found, tuple(_combined(a, b, wanted.entry, board.tick_ns) for a, b in zip(slow, fine, strict=True))


@cache
def version() -> str:
    """The emulator's name and version.

    Raises:
        MissingExtraError: QEMU is not installed.
    """
    if not shutil.which("qemu-system-arm"):
        raise MissingExtraError("a Cortex-M55 needs qemu-system-arm", hint="apt-get install qemu-system-arm")
    done = subprocess.run(["qemu-system-arm", "--version"], capture_output=True, text=True, check=False)
    return "qemu-system-arm " + done.stdout.split("version", 1)[-1].split()[0]


def _run(folder: Path, elf: Path, shift: int, wanted: Call, board: Board) -> bytes:
    """What the firmware writes."""
    (folder / "answers.bin").unlink(missing_ok=True)
    command = ["qemu-system-arm", "-M", board.machine, "-nographic", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-icount", f"shift={shift},align=off,sleep=off"]
    command += ["-device", f"loader,file=inputs.bin,addr={board.inputs:#x},force-raw=on", "-kernel", str(elf)]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (wanted.limit_s, wanted.limit_s))
        try:
            _, said = process.communicate(timeout=_PATIENCE * wanted.limit_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise DeviceError(f"qemu-system-arm did not answer within {_PATIENCE * wanted.limit_s} s") from error
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise QualityError(f"{wanted.entry} has not returned after {wanted.limit_s} s of CPU time")
    if process.returncode == 3:
        raise QualityError(f"{wanted.entry} ends in a fault on {board.machine}")
    if process.returncode:
        lines = said.strip().splitlines() or ["no message"]
        raise DeviceError(f"qemu-system-arm failed with status {process.returncode}: {lines[-1]}")
    return (folder / "answers.bin").read_bytes()


def _answers(data: bytes, output_bytes: int) -> list[tuple[tuple[int, ...], bytes]]:
    step = _HEAD.size + output_bytes
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    return [(_HEAD.unpack_from(part), part[_HEAD.size :]) for part in parts]


def _combined(
    slow: tuple[Sequence[int], bytes], fine: tuple[Sequence[int], bytes], entry: str, tick_ns: float
) -> Answer:
    """One answer of two runs: how many wraps from the slow clock, the rest from the fine one."""
    (returned, ticks, empty_ticks, stack_bytes, _), output = fine
    _, slow_ticks, _, _, wrapped = slow[0]
    if wrapped:
        raise QualityError(f"{entry} executes more than {int(_WRAP * tick_ns)} instructions")
    about = slow_ticks * tick_ns
    per_tick = tick_ns / (1 << _SHIFTS[1])
    period = _WRAP * per_tick
    # the empty call executes one instruction, its return
    rest = (ticks - empty_ticks) % _WRAP * per_tick + 1
    return Answer(output, returned, stack_bytes, round(rest + period * round((about - rest) / period)))
