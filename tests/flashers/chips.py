"""A chip behind every flasher that there is, by way of the stand-in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgeprune import flashers
from edgeprune.flashers import Probe
from tests.flashers import stand_in

STAND_IN = Path(stand_in.__file__)
SERIALS = {"probe-rs": "0483:374b:066FFF"}
CHIPS = {"openocd": "board/st_nucleo_l4.cfg", "esptool": "/dev/ttyUSB0"}


def address_of(program: str) -> str:
    """One of its addresses."""
    chip = CHIPS.get(program, "stm32l4r5zi")
    serial = SERIALS.get(program, "066FFF") if flashers.get(program).SERIAL else ""
    return f"probe:{program}:{chip}" + (f":{serial}" if serial else "")


def first_address(program: str) -> int:
    """Of flash, as the program counts."""
    return 0 if program == "esptool" else stand_in.FLASH


def connected(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    """The program is on the path, and reaches a chip with something in its flash."""
    programs, chip = folder / "programs", folder / "chip"
    programs.mkdir(exist_ok=True)
    chip.mkdir(exist_ok=True)
    started = programs / program
    started.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} {program} "$@"\n', encoding="utf-8")
    started.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("CHIP", str(chip))
    old = stand_in.firmware(b"what was there before", cycles=77)
    (chip / "flash.bin").write_bytes(old + b"\xab" * (stand_in.FLASH_BYTES - len(old)))
    (chip / "ram.bin").write_bytes(bytes(stand_in.RAM_BYTES))
    (chip / "calls").unlink(missing_ok=True)
    return flashers.probe(address_of(program))


def in_flash(folder: Path) -> bytes:
    """All that the chip holds."""
    return (folder / "chip" / "flash.bin").read_bytes()
