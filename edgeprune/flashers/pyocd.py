"""pyOCD: CMSIS-DAP, ST-Link and J-Link probes, for chips that have a CMSIS pack."""

from __future__ import annotations

from edgeprune.flashers import FOUND, IMAGE, Command, Probe

PROGRAM = "pyocd"
PACKAGE = "pyocd (pip install pyocd)"
CHIP = "the target type, as `pyocd list --targets` names it"
SERIAL = True
SEES_MEMORY = True
SECTOR_BYTES = None


def read(probe: Probe, address: int, size: int) -> Command:
    """Read flash or RAM to a file."""
    return (*_connected(probe, "attach"), "-c", f"savemem {address:#x} {size:#x} {FOUND}")


def write(probe: Probe, address: int) -> Command:
    """Erase and write flash."""
    return (*_connected(probe, "halt"), "-c", f"load {IMAGE} {address:#x}")


def start(probe: Probe, poison: tuple[int, int] | None) -> tuple[Command, ...]:
    """Reset and run."""
    put = ("-c", f"write32 {poison[0]:#x} {poison[1]:#x}") if poison else ()
    return ((*_connected(probe, "halt"), *put, "-c", "reset"),)


def _connected(probe: Probe, mode: str) -> Command:
    """Without waiting for a probe, and without a configuration or script that may lie in the folder."""
    chosen = ("-u", probe.serial) if probe.serial else ()
    return (PROGRAM, "commander", "-W", "--no-config", "-j", ".", "-M", mode, "-t", probe.chip, *chosen)
