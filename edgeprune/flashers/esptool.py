"""esptool: Espressif's chips through their boot loader on a serial port. It sees nothing of a program that runs."""

from __future__ import annotations

from edgeprune.flashers import FOUND, IMAGE, Command, Probe

PROGRAM = "esptool"
PACKAGE = "esptool 5 (pip install esptool)"
CHIP = "the serial port, such as /dev/ttyUSB0"
SERIAL = False
SEES_MEMORY = False
SECTOR_BYTES = 4096


def read(probe: Probe, address: int, size: int) -> Command:
    """Read flash or RAM to a file."""
    return (*_connected(probe), "read-flash", "--no-progress", f"{address:#x}", f"{size:#x}", FOUND)


def write(probe: Probe, address: int) -> Command:
    """Erase and write flash."""
    return (*_connected(probe), "write-flash", "--no-progress", f"{address:#x}", IMAGE)


def start(probe: Probe, poison: tuple[int, int] | None) -> tuple[Command, ...]:
    """Reset and run."""
    assert poison is None, "it sees no memory"
    return ((*_connected(probe), "run"),)


def _connected(probe: Probe) -> Command:
    return (PROGRAM, "--port", probe.chip)
