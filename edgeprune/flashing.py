"""Putting an image on a microcontroller so that it can be undone: keep what is there, write, read back, test.

There is one place for code on such a chip, so that it is without a working image while it is written. What was there is
therefore kept first, on this computer, and goes back when anything fails. Loss of power while writing is not covered.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeprune.children import Ended, TimeOutError, TooMuchError, run_child
from edgeprune.device_lock import device_lock
from edgeprune.emulate.elf import read_image
from edgeprune.errors import (
    DeployError,
    DeviceError,
    EdgepruneError,
    MissingExtraError,
    QualityError,
    UnknownStateError,
    UsageError,
)
from edgeprune.flashers import FOUND, IMAGE, Command, Probe, get
from edgeprune.progress import SILENT, Progress
from edgeprune.target import Target
from edgeprune.units import format_size
from edgeprune.values import Value

LAST = "flashed.json"  # in the folder of what was kept: the last image that was written
ERASED = 0xFF  # what flash holds where nothing was written
RUNNING = -100  # the value of `selftest_wrong` until the self-test has ended
_WRONG, _CYCLES = "selftest_wrong", "selftest_cycles"
_NOT_COUNTED = 0xFFFF_FFFF
_SHORT_S = 60.0
_SLOWEST = 5_000  # bytes per second that reading and writing must reach
_LOOK_S = 1.0


@dataclass(frozen=True)
class Firmware:
    """Bytes for flash.

    Attributes:
        address: Of the first one.
        wrong: Where in RAM the self-test leaves its result; None where the image has none.
        cycles: Where it leaves the cycles of one run.
    """

    address: int
    data: bytes
    wrong: int | None = None
    cycles: int | None = None

    @property
    def sha256(self) -> str:
        """Of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Region:
    """Flash from an address on."""

    address: int
    size: int

    def holds(self, firmware: Firmware) -> bool:
        """Whether all of it lies there."""
        end = firmware.address + len(firmware.data)
        return self.address <= firmware.address and end <= self.address + self.size


class Flashed(Value):
    """What was done: `edgeprune deploy --json` for a microcontroller, and `flashed.json` beside what was kept.

    Attributes:
        address, size_bytes, sha256: Of the image.
        written: Whether it had to be; False where the chip held it already.
        kept: The file that holds what was there before, from `kept_address` on.
        tested: Whether the self-test ran on the chip; every output value was right then.
        cycles: Of one run, at the clock that the chip starts with; None where the image has no self-test or no counter.
    """

    schema_: Literal["edgeprune.flash/1"] = Field("edgeprune.flash/1", alias="schema")
    probe: str
    address: int
    size_bytes: int
    sha256: str
    written: bool
    kept: str
    kept_address: int
    kept_sha256: str
    tested: bool
    cycles: int | None


def self_test_firmware(library: Path, target: Target) -> Firmware:
    """The library's own example for a board, compiled: start-up code, network and self-test.

    Args:
        library: The folder that `backends.c` wrote for this target.

    Raises:
        MissingExtraError: `make` or `arm-none-eabi-gcc` is not installed.
        QualityError: It does not compile.
        UsageError: The library has no example for the target.
    """
    port = library / "port" / target.name
    if not port.is_dir():
        raise UsageError(
            f"the library has no example for {target.name}", where=str(library), hint="deploy with --image"
        )
    for program, package in (("make", "make"), ("arm-none-eabi-gcc", "gcc-arm-none-eabi")):
        if shutil.which(program) is None:
            raise MissingExtraError(f"the program {program} is not installed", hint=f"install {package}")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        copy = Path(scratch) / "library"
        shutil.copytree(library, copy)
        done = run_child(("make", "-C", str(copy / "port" / target.name)), timeout_s=600)
        if done.status != 0:
            raise QualityError(f"the self-test does not compile: {done.last_line}", where=str(port))
        (elf,) = (copy / "port" / target.name / "build").glob("*.elf")
        return read_firmware(elf, None)


def read_firmware(file: Path, address: int | None) -> Firmware:
    """An image to write: an ELF file, or plain bytes for an address.

    Raises:
        MissingExtraError: pyelftools is not installed.
        UsageError: The file is missing, empty, or plain without an address.
    """
    if not file.is_file() or not file.stat().st_size:
        raise UsageError("there is no image, or it is empty", where=str(file))
    if file.read_bytes()[:4] != b"\x7fELF":
        if address is None:
            raise UsageError("where in flash does it go?", where=str(file), hint="--address 0x08000000")
        return Firmware(address, file.read_bytes())
    if address is not None:
        raise UsageError("an ELF file says its address itself", where="--address")
    image = read_image(file)
    stored = [(segment.stored_at, segment.data) for segment in image.segments if segment.data]
    first = min(start for start, _ in stored)
    data = bytearray([ERASED]) * (max(start + len(piece) for start, piece in stored) - first)
    for start, piece in stored:
        data[start - first : start - first + len(piece)] = piece
    found = {symbol.name: symbol.address for symbol in image.symbols}
    return Firmware(first, bytes(data), found.get(_WRONG), found.get(_CYCLES))


def region_of(target: Target, firmware: Firmware, probe: Probe) -> Region:
    """What is kept before writing: the sectors that are erased where their size is known, else all of the flash.

    Raises:
        UsageError: The image does not lie in the target's flash, or nothing says where that is.
    """
    memory, sector = target.memory, get(probe.program).SECTOR_BYTES
    if sector:
        first = firmware.address // sector * sector
        return Region(first, -(-(firmware.address + len(firmware.data) - first) // sector) * sector)
    if memory.flash_address is None or memory.flash_bytes is None:
        raise UsageError(f"{target.name} does not say where its flash lies", where="memory.flash_address")
    region = Region(memory.flash_address, memory.flash_bytes)
    if not region.holds(firmware):
        raise UsageError(
            f"the image is {format_size(len(firmware.data))} at {firmware.address:#x}, the flash of {target.name} "
            f"{format_size(region.size)} at {region.address:#x}",
            where=target.name,
        )
    return region


def flash(
    firmware: Firmware,
    probe: Probe,
    region: Region,
    keep: Path,
    *,
    untested: bool = False,
    test_s: float = 120.0,
    progress: Progress = SILENT,
) -> Flashed:
    """Write an image, read it back, run its self-test; when anything fails, what was there goes back.

    Args:
        region: What is kept, and put back.
        keep: The folder for what was there, in a file named by its hash.
        untested: Accept an image or a program that cannot tell how the self-test went.
        test_s: The longest that the self-test may take.

    Raises:
        DeployError: It failed; what was there before is there again, read back and compared.
        DeviceError: The chip was not reached; nothing was written.
        MissingExtraError: The program is not installed.
        QualityError: The image was there already, and its self-test fails.
        UnknownStateError: It failed, and what the chip holds now could not be confirmed.
        UsageError: The self-test cannot be run, and that is not accepted.
    """
    testable = firmware.wrong is not None and get(probe.program).SEES_MEMORY
    if not testable and not untested:
        why = "the image has no self-test" if firmware.wrong is None else f"{probe.program} does not see its result"
        raise UsageError(why, where=probe.name, hint="--untested accepts that it is only read back")
    with device_lock(probe.name, progress), _Chip(probe) as chip:
        progress.note(f"keeping the {format_size(region.size)} that are there")
        before = chip.read(region)
        kept = _kept(before, keep)
        there = before[firmware.address - region.address :][: len(firmware.data)] == firmware.data
        cycles = None
        try:
            if not there:
                progress.note(f"writing {format_size(len(firmware.data))}")
                chip.write(firmware.address, firmware.data)
                if chip.read(Region(firmware.address, len(firmware.data))) != firmware.data:
                    raise QualityError(f"what {probe.program} wrote is not what it reads back", where=probe.name)
            progress.note("running the self-test" if testable else "starting the image")
            if testable:
                cycles = _tested(firmware, chip, test_s)
            else:
                chip.start(None)
        except (EdgepruneError, KeyboardInterrupt) as error:
            if there:
                raise
            progress.note("putting back what was there")
            raise _undone(error, before, region, kept, chip) from error
    found = Flashed(
        probe=probe.name,
        address=firmware.address,
        size_bytes=len(firmware.data),
        sha256=firmware.sha256,
        written=not there,
        kept=kept.name,
        kept_address=region.address,
        kept_sha256=hashlib.sha256(before).hexdigest(),
        tested=testable,
        cycles=cycles,
    )
    if found.written:  # otherwise what was kept is the image itself, which nobody wants to go back to
        _replace(keep / LAST, found.model_dump_json(by_alias=True, indent=1).encode())
    return found


def put_back(keep: Path, probe: Probe, progress: Progress = SILENT) -> Flashed:
    """Write back what a chip held before the last `flash`, read it back and start it. Nothing says how to test it.

    Args:
        keep: The folder that `flash` was given.

    Returns:
        What was undone.

    Raises:
        DeviceError: The chip is not reached; nothing was written.
        MissingExtraError: The program is not installed.
        UnknownStateError: It was not written, or not wholly.
        UsageError: Nothing was flashed from here, or what was kept is damaged.
    """
    if not (keep / LAST).is_file():
        raise UsageError("nothing to go back to: no image was written from here", where=str(keep))
    last = Flashed.model_validate_json((keep / LAST).read_bytes())
    kept = keep / last.kept
    data = kept.read_bytes() if kept.is_file() else b""
    if hashlib.sha256(data).hexdigest() != last.kept_sha256:
        raise UsageError("what was kept is not there, or damaged", where=str(kept))
    with device_lock(probe.name, progress), _Chip(probe) as chip:
        chip.read(Region(last.kept_address, 4))
        progress.note(f"putting back {format_size(len(data))}")
        if not _restored(data, last.kept_address, chip):
            raise _unknown(probe, kept, last.kept_address)
    (keep / LAST).unlink()
    return last


class _Chip:
    """One chip through its program, in a folder that both know."""

    def __init__(self, probe: Probe) -> None:
        self.probe, self._flasher = probe, get(probe.program)
        self._scratch = tempfile.TemporaryDirectory(prefix="edgeprune-")
        self._folder = Path(self._scratch.name)

    def __enter__(self) -> _Chip:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def read(self, region: Region) -> bytes:
        """What is there."""
        found = self._folder / FOUND
        found.unlink(missing_ok=True)
        ended = self._run(self._flasher.read(self.probe, region.address, region.size), region.size)
        data = found.read_bytes() if found.is_file() else b""
        if len(data) != region.size:
            raise DeviceError(
                f"{self.probe.program} read {len(data)} of {region.size} bytes at {region.address:#x}: {_said(ended)}",
                where=self.probe.name,
            )
        return data

    def write(self, address: int, data: bytes) -> None:
        """Erase and write."""
        (self._folder / IMAGE).write_bytes(data)
        self._run(self._flasher.write(self.probe, address), len(data))

    def start(self, poison: tuple[int, int] | None) -> None:
        """Reset and run."""
        for command in self._flasher.start(self.probe, poison):
            self._run(command, 0)

    def _run(self, command: Command, size: int) -> Ended:
        timeout_s = _SHORT_S + size / _SLOWEST
        try:
            ended = run_child(command, timeout_s=timeout_s, folder=self._folder)
        except FileNotFoundError:
            raise MissingExtraError(
                f"the program {command[0]} is not installed", hint=f"install {self._flasher.PACKAGE}"
            ) from None
        except TimeOutError:
            raise DeviceError(f"{command[0]} did not finish within {timeout_s:.0f} s", where=self.probe.name) from None
        except TooMuchError:
            raise DeviceError(f"{command[0]} printed far too much", where=self.probe.name) from None
        if ended.status != 0:
            raise DeviceError(f"{command[0]} failed: {_said(ended)}", where=self.probe.name)
        return ended


def _said(ended: Ended) -> str:
    """Its last words; some programs complain on stdout."""
    spoken = ended if ended.stderr.strip() else Ended(ended.status, b"", ended.stdout)
    return spoken.last_line


def _kept(data: bytes, folder: Path) -> Path:
    """The file with these bytes, named by their hash, whole or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    if not file.is_file() or file.read_bytes() != data:
        _replace(file, data)
    return file


def _replace(file: Path, data: bytes) -> None:
    """Write a file that is whole or absent, whatever happens meanwhile."""
    part = file.with_name(f"{file.name}.part")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def _tested(firmware: Firmware, chip: _Chip, test_s: float) -> int | None:
    """The cycles of one run, when every output value was right.

    RAM keeps its contents over a reset, so that an old result could be taken for a new one. The place of the result is
    therefore filled first with a number that no self-test gives.

    Raises:
        DeviceError: The chip is not reached.
        QualityError: The image does not start, does not end in time, or gives wrong values.
    """
    assert firmware.wrong is not None
    poison = secrets.randbelow(2**20) + 2**30
    chip.start((firmware.wrong, poison))
    deadline = time.monotonic() + test_s
    while (wrong := _word(chip, firmware.wrong, signed=True)) in (poison, RUNNING):
        if time.monotonic() > deadline:
            done = "start" if wrong == poison else "end its self-test"
            raise QualityError(f"the image did not {done} within {test_s:g} s", where=chip.probe.name)
        time.sleep(_LOOK_S)
    if wrong:
        found = f"{wrong} output values are wrong" if wrong > 0 else "a run failed, or wrote beside its arena"
        raise QualityError(f"the self-test on the chip failed: {found}", where=chip.probe.name)
    cycles = _word(chip, firmware.cycles, signed=False) if firmware.cycles is not None else 0
    return cycles if cycles not in (0, _NOT_COUNTED) else None


def _word(chip: _Chip, address: int, *, signed: bool) -> int:
    return int.from_bytes(chip.read(Region(address, 4)), "little", signed=signed)


def _undone(error: BaseException, before: bytes, region: Region, kept: Path, chip: _Chip) -> EdgepruneError:
    """What to raise after a failure, once what was there has been put back, or not."""
    why = error.message if isinstance(error, EdgepruneError) else "interrupted"
    if _restored(before, region.address, chip):
        return DeployError(
            f"{why}; what was there before is there again, read back and compared", where=chip.probe.name
        )
    return _unknown(chip.probe, kept, region.address, why)


def _restored(data: bytes, address: int, chip: _Chip) -> bool:
    """Whether the chip holds these bytes again, and was started."""
    try:
        chip.write(address, data)
        same = chip.read(Region(address, len(data))) == data
        chip.start(None)
    except (DeviceError, MissingExtraError):
        return False
    return same


def _unknown(probe: Probe, kept: Path, address: int, why: str = "") -> UnknownStateError:
    return UnknownStateError(
        f"{why}{'; ' if why else ''}what the chip holds now could not be confirmed",
        where=probe.name,
        hint=f"check the connection and the power, then write {kept} to {address:#x}",
    )
