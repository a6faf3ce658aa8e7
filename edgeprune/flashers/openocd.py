"""OpenOCD: whatever probe and chip it has a configuration for."""

from __future__ import annotations

from edgeprune.flashers import FOUND, IMAGE, Command, Probe

PROGRAM = "openocd"
PACKAGE = "openocd"
CHIP = "the configuration of the board, such as board/st_nucleo_l4.cfg"
SERIAL = True
SEES_MEMORY = True
SECTOR_BYTES = None


def read(probe: Probe, address: int, size: int) -> Command:
    """Read flash or RAM to a file."""
    return (*_connected(probe), "-c", f"dump_image {FOUND} {address:#x} {size:#x}", "-c", "shutdown")


def write(probe: Probe, address: int) -> Command:
    """Erase and write flash."""
    steps = ("reset init", f"flash write_image erase {IMAGE} {address:#x} bin", "shutdown")
    return (*_connected(probe), *(word for step in steps for word in ("-c", step)))


def start(probe: Probe, poison: tuple[int, int] | None) -> tuple[Command, ...]:
    """Reset and run."""
    put = ("-c", "halt", "-c", f"mww {poison[0]:#x} {poison[1]:#x}") if poison else ()
    return ((*_connected(probe), *put, "-c", "reset run", "-c", "shutdown"),)


def _connected(probe: Probe) -> Command:
    """Without servers, which it would open otherwise."""
    chosen = ("-c", f"adapter serial {probe.serial}") if probe.serial else ()
    closed = tuple(word for port in ("gdb", "tcl", "telnet") for word in ("-c", f"{port}_port disabled"))
    return (PROGRAM, *closed, "-f", probe.chip, *chosen, "-c", "init")
