"""Emulated Linux boards: this machine's shell, with the board's own Python and architecture first on PATH.

What runs in that Python is the board's: its runtimes are the aarch64 builds, and it sees the board's cores. All else is
this machine's, its files above all. Times that are taken there mean nothing: `edgeprune.emulated_board` counts instead.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from edgeprune import links
from edgeprune.boards.kit import folder, kit_of, qemu_version
from edgeprune.boards.overlay import emulation_of
from edgeprune.children import Ended
from edgeprune.device_facts import Facts
from edgeprune.device_shell import LINE, SHORT_S, DeviceShell, Program
from edgeprune.errors import DeviceError, EdgepruneError, UsageError
from edgeprune.target import Target, load_target

FORM = "emulator[:TARGET]"
OF_THE_TARGET = "emulator"  # of the target that is aimed at
_ADDRESS = re.compile(r"emulator(:(?P<board>[a-z0-9][a-z0-9-]*))?")


@dataclass(frozen=True, kw_only=True)
class EmulatedBoard(DeviceShell):
    """The shell of a board that is not there."""

    target: Target

    def describe(self, folder: str = "/", *, timeout_s: float = SHORT_S) -> Facts:
        """What the board is by its target's facts; packages and room as they are.

        Raises:
            DeviceError: The shell of this machine does not answer.
            MissingExtraError: The board is not set up.
        """
        emulated, target = emulation_of(self.target), self.target
        return (
            super()
            .describe(folder, timeout_s=timeout_s)
            .model_copy(
                update={
                    "model": target.description,
                    "system": f"emulated ({qemu_version()})",
                    "cpu": "",
                    "parts": (f"0x41:{emulated.part}",),
                    "cores": target.cpu.cores,
                    "fast_cores": emulated.cores,
                    "clock_hz": target.cpu.clock_hz,
                    "governor": "",
                    "temperature_c": None,
                    "memory_bytes": target.memory.ram_bytes,
                    "available_bytes": None,
                }
            )
        )

    def _ask(self, script: str, arguments: tuple[str, ...], data: BinaryIO | None, timeout_s: float) -> Ended:
        kit_of(self.target, counting=False)
        return super()._ask(script, arguments, data, timeout_s)


def connect(address: str, python: str | None = None) -> EmulatedBoard:
    """The link to `emulator:TARGET`.

    Raises:
        UsageError: It is no such address, names no board, or one that is no target.
        UnsupportedError: Nothing emulates the target.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"cannot read the address {address!r}", where="--device", hint=f"write it as {FORM}")
    if found["board"] is None:
        hint = "name it with --target, or write emulator:rpi4"
        raise UsageError("which board is to be emulated?", where="--device emulator", hint=hint)
    return board(load_target(found["board"]), python)


def board(target: Target, python: str | None = None) -> EmulatedBoard:
    """The link to a target's emulated board.

    Raises:
        UnsupportedError: Nothing emulates the target.
    """
    emulation_of(target)
    programs = folder() / target.name / "bin"
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    program = Program(("/bin/sh", "-c", LINE), "a POSIX shell", _fault, environment)
    return EmulatedBoard(f"emulator:{target.name}", program, python or "python3", own_folder=True, target=target)


def linked(address: str, target: Target | None, python: str | None = None) -> links.Link:
    """The link to any device's address; `emulator` alone is the board of the target.

    Raises:
        UnsupportedError: Nothing emulates the target.
        UsageError: No link has such addresses.
    """
    if address == OF_THE_TARGET and target is not None:
        return board(target, python)
    return links.connect(address, python)


def _fault(ended: Ended) -> EdgepruneError:
    return DeviceError(f"the shell of this machine did not answer: {ended.last_line}", where="/bin/sh")
