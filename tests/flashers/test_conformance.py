"""Every flasher reads, writes and starts a chip through the command line of its program."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune import flashers
from edgeprune.errors import UsageError
from edgeprune.flashers import Probe
from edgeprune.flashing import Region, _Chip
from tests.flashers import stand_in
from tests.flashers.chips import address_of, connected, first_address, in_flash


@pytest.fixture(params=flashers.names())
def probe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return connected(request.param, tmp_path, monkeypatch)


def test_an_address_is_read_and_named(probe: Probe) -> None:
    assert probe.name == address_of(probe.program)
    flasher = flashers.get(probe.program)
    assert flasher.PROGRAM and flasher.PACKAGE and flasher.CHIP
    assert flasher.SECTOR_BYTES is None or flasher.SECTOR_BYTES > 0


def test_what_is_written_is_read_back_and_runs_after_a_start(probe: Probe, tmp_path: Path) -> None:
    first, before = first_address(probe.program), in_flash(tmp_path)
    image = stand_in.firmware(b"new" * 50, wrong=7)
    with _Chip(probe) as chip:
        assert chip.read(Region(first, stand_in.FLASH_BYTES)) == before
        chip.write(first, image)
        assert chip.read(Region(first, len(image))) == image
        if flashers.get(probe.program).SEES_MEMORY:
            chip.start((stand_in.RAM + 8, 0x1234_5678))
            assert chip.read(Region(stand_in.RAM, 4)) == (7).to_bytes(4, "little")
            assert chip.read(Region(stand_in.RAM + 8, 4)) == 0x1234_5678.to_bytes(4, "little")
        else:
            chip.start(None)
    assert (tmp_path / "chip" / "ram.bin").read_bytes()[:4] == (7).to_bytes(4, "little")


def test_every_call_is_one_command_without_a_shell(probe: Probe) -> None:
    flasher = flashers.get(probe.program)
    starts = flasher.start(probe, (stand_in.RAM, 1) if flasher.SEES_MEMORY else None)
    for command in (flasher.read(probe, 0, 4), flasher.write(probe, 0), *starts, *flasher.start(probe, None)):
        assert command[0] == flasher.PROGRAM
        assert probe.chip in command


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ssh://pi@board", "not the address of a probe"),
        ("probe:", "not the address of a probe"),
        ("probe:pyocd", "does not say"),
        ("probe:pyocd:", "does not say"),
        ("probe:pyocd:-x", "does not say"),
        ("probe:openocd:../../evil.cfg", "does not say"),
        ("probe:openocd:a;shutdown", "does not say"),
        ("probe:openocd:a.cfg:x;exec", "serial number"),
        ("probe:pyocd:chip:", "serial number"),
        ("probe:esptool:/dev/ttyUSB0:1", "serial number"),
        ("probe:pyodc:chip", "no flasher is called"),
    ],
)
def test_what_is_no_address_is_refused(address: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        flashers.probe(address)
