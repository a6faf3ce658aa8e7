"""Flashers: one file per program that writes a microcontroller's flash through a debug probe or a boot loader.

A flasher is a module in this package; its file name, with hyphens for underscores, is the word after `probe:` in an
address, and nothing lists it elsewhere. It only says which command does what: every command runs in a folder of its
own, where it finds and leaves files under constant names, and whether it did what it should is seen by reading back,
since not all of these programs fail when what they were told to do failed.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass
from typing import Protocol, cast

from edgeprune.errors import UsageError, did_you_mean

IMAGE = "image.bin"  # what is written
FOUND = "found.bin"  # what was read
FORM = "probe:PROGRAM:CHIP[:SERIAL]"

_WORD = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_./+-]*")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")

Command = tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """A chip within reach of a program.

    Attributes:
        program: The flasher's name, one of `names()`.
        chip: What the program calls the chip, the board's configuration or the port: see the flasher's `CHIP`.
        serial: The probe's, where several are connected.
    """

    program: str
    chip: str
    serial: str | None = None

    @property
    def name(self) -> str:
        """In messages, and of its lock."""
        return f"probe:{self.program}:{self.chip}" + (f":{self.serial}" if self.serial else "")


class Flasher(Protocol):
    """What a file in this package provides.

    Attributes:
        PROGRAM: The program on the path.
        PACKAGE: Where it is from, for who does not have it.
        CHIP: What stands for CHIP in its addresses.
        SERIAL: Whether a serial number may follow there.
        SEES_MEMORY: Whether it reads and writes the RAM of a program that runs.
        SECTOR_BYTES: What it erases at least; None where that depends on the chip.
    """

    PROGRAM: str
    PACKAGE: str
    CHIP: str
    SERIAL: bool
    SEES_MEMORY: bool
    SECTOR_BYTES: int | None

    def read(self, probe: Probe, address: int, size: int) -> Command:
        """Write `size` bytes from an address of flash or RAM to `FOUND`; what the chip runs goes on running."""
        ...

    def write(self, probe: Probe, address: int) -> Command:
        """Erase what `IMAGE` touches and write it to an address of flash."""
        ...

    def start(self, probe: Probe, poison: tuple[int, int] | None) -> tuple[Command, ...]:
        """Reset the chip and let it run; with `poison` (address, value), that 32-bit value is in RAM before."""
        ...


def names() -> tuple[str, ...]:
    """The programs that are known, as addresses spell them."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def get(name: str) -> Flasher:
    """The flasher of that name, one of `names()`."""
    return cast(Flasher, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def probe(address: str) -> Probe:
    """The probe of an address such as `probe:openocd:board/st_nucleo_l4.cfg`.

    Raises:
        UsageError: It has another form, names a program that is not known, or holds what no chip or probe is called.
    """
    kind, _, rest = address.partition(":")
    program, _, rest = rest.partition(":")
    chip, _, serial = rest.partition(":")
    if kind != "probe" or not program:
        raise UsageError(f"not the address of a probe: {address!r}", where="--device", hint=FORM)
    if program not in names():
        raise UsageError(f"no flasher is called {program!r}", where="--device", hint=did_you_mean(program, names()))
    flasher = get(program)
    form = f"probe:{program}:CHIP[:SERIAL]" if flasher.SERIAL else f"probe:{program}:CHIP"
    if not _WORD.fullmatch(chip) or ".." in chip:
        raise UsageError(f"{address!r} does not say {flasher.CHIP}", where="--device", hint=form)
    if rest != chip and not (flasher.SERIAL and _SERIAL.fullmatch(serial)):
        raise UsageError(f"not a probe's serial number: {serial!r}", where="--device", hint=form)
    return Probe(program, chip, serial or None)
