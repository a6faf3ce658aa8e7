"""`edgeprune flash`: an image onto a microcontroller through a debug probe, its self-test there, and the way back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import progress
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.flashing import Firmware, Flashed
    from edgeprune.target import Target

KEPT = "devices"  # in a run's folder: what was on its chips before


def flash(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run for a microcontroller.")],
    device: Annotated[str, typer.Option(metavar="ADDRESS", help="probe:PROGRAM:CHIP[:SERIAL], docs/flash.md.")],
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the chip is, where it is not the run's target.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your own firmware instead of the self-test: .elf or bytes.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="0x…", help="Where in flash an image goes that is no ELF file.")
    ] = None,
    untested: Annotated[
        bool, typer.Option("--untested", help="Accept an image or a program that cannot tell of a self-test.")
    ] = False,
    test_time: Annotated[str, typer.Option(metavar="TIME", help="Limit on the self-test.")] = "2min",
    rollback: Annotated[bool, typer.Option("--rollback", help="Put back what was there before.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Put a run's library on a microcontroller, with its self-test, and test it there.

    What was there is kept first and put back when anything fails.
    """
    from edgeprune import flashing
    from edgeprune.flashers import probe
    from edgeprune.units import parse_time

    chip, report = probe(device), progress(quiet=quiet)
    keep = run / KEPT / re.sub(r"[^A-Za-z0-9.-]+", "-", chip.name)
    if rollback:
        if image is not None or address is not None:
            raise UsageError("--rollback takes no image", where="--rollback", hint="it puts back what was kept")
        found = flashing.put_back(keep, chip, report)
    else:
        board, firmware = _firmware(run, target, image, address)
        found = flashing.flash(
            firmware,
            chip,
            flashing.region_of(board, firmware, chip),
            keep,
            untested=untested,
            test_s=parse_time(test_time, "--test-time"),
            progress=report,
        )
    document = found.model_dump_json(by_alias=True, indent=2)
    typer.echo(document if json else told(found, rollback=rollback))


def _firmware(run: Path, target: str | None, image: Path | None, address: str | None) -> tuple[Target, Firmware]:
    """The target, and what is written to its flash."""
    from edgeprune.deploy.origin import artifact_of
    from edgeprune.flashing import read_firmware, self_test_firmware
    from edgeprune.record import read_record
    from edgeprune.target import load_target

    record = read_record(run)
    board = load_target(target or record.target)
    if board.class_ != "mcu":
        raise UsageError(f"{board.name} is no microcontroller", where=str(run), hint="edgeprune deploy")
    if image is not None:
        return board, read_firmware(image, _parsed(address))
    if address is not None:
        raise UsageError("an address of which image?", where="--address", hint="--image FILE")
    _, library = artifact_of(run, record, "edgeprune-c")
    return board, self_test_firmware(library.parent, board)


def _parsed(address: str | None) -> int | None:
    try:
        return None if address is None else int(address, 0)
    except ValueError:
        raise UsageError(f"not an address: {address!r}", where="--address", hint="write it like 0x08000000") from None


def told(found: Flashed, *, rollback: bool) -> str:
    """What was done, in a few lines."""
    from edgeprune.units import format_size

    if rollback:
        return f"{found.probe} holds what it held before {found.sha256[:16]}: read back, not tested"
    how = "written and read back" if found.written else "was there already"
    lines = [f"{found.probe}: {format_size(found.size_bytes)} at {found.address:#010x}, {found.sha256[:16]}: {how}"]
    tested = "every output value is the reference's" if found.tested else "none: only what is in flash was compared"
    lines.append(f"  self-test on the chip: {tested}")
    if found.cycles is not None:
        lines.append(f"  cycles of one run: {found.cycles:,}, at the clock and wait states that the chip starts with")
    if found.written:
        lines.append(f"  what was there before: {found.kept}, put back by --rollback")
    return "\n".join(lines)
