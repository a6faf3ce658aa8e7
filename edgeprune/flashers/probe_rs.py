"""probe-rs: CMSIS-DAP, ST-Link and J-Link probes, chips by its own list."""

from __future__ import annotations

from edgeprune.flashers import FOUND, IMAGE, Command, Probe

PROGRAM = "probe-rs"
PACKAGE = "probe-rs (probe-rs-tools)"
CHIP = "the chip, as `probe-rs chip list` names it"
SERIAL = True
SEES_MEMORY = True
SECTOR_BYTES = None


def read(probe: Probe, address: int, size: int) -> Command:
    """Read flash or RAM to a file."""
    where = ("b8", f"{address:#x}", str(size), "--output", FOUND, "--format", "binary")
    return (PROGRAM, "read", *_connected(probe), *where)


def write(probe: Probe, address: int) -> Command:
    """Erase and write flash."""
    what = ("--binary-format", "bin", "--base-address", f"{address:#x}", "--disable-progressbars", IMAGE)
    return (PROGRAM, "download", *_connected(probe), *what)


def start(probe: Probe, poison: tuple[int, int] | None) -> tuple[Command, ...]:
    """Reset and run."""
    reset = (PROGRAM, "reset", *_connected(probe))
    if poison is None:
        return (reset,)
    return ((PROGRAM, "write", *_connected(probe), "b32", *(f"{number:#x}" for number in poison)), reset)


def _connected(probe: Probe) -> Command:
    chosen = ("--probe", probe.serial) if probe.serial else ()
    return ("--non-interactive", "--chip", probe.chip, *chosen)
