"""A microcontroller ends with the new image, tested, or with what it held before; success is never said otherwise."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeprune import flashers, flashing
from edgeprune.errors import (
    DeployError,
    DeviceError,
    EdgepruneError,
    MissingExtraError,
    QualityError,
    UnknownStateError,
    UsageError,
)
from edgeprune.flashers import Probe
from edgeprune.flashing import Firmware, Flashed, Region, flash, put_back, read_firmware, region_of
from edgeprune.target import load_target
from tests.flashers import stand_in
from tests.flashers.chips import connected, first_address, in_flash

FAULTS = ("dies", "half", "flips", "lies")


@pytest.fixture(params=flashers.names())
def probe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return connected(request.param, tmp_path, monkeypatch)


@pytest.fixture
def openocd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return connected("openocd", tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashing, "_LOOK_S", 0.0)


def image(program: str = "openocd", **behaviour: int) -> Firmware:
    seen = flashers.get(program).SEES_MEMORY
    places = (stand_in.RAM, stand_in.RAM + 4) if seen else (None, None)
    return Firmware(first_address(program), stand_in.firmware(bytes(range(200)), **behaviour), *places)


def flashed(probe: Probe, folder: Path, firmware: Firmware, test_s: float = 30.0) -> Flashed:
    region = Region(first_address(probe.program), stand_in.FLASH_BYTES)
    untested = not flashers.get(probe.program).SEES_MEMORY
    return flash(firmware, probe, region, folder / "kept", untested=untested, test_s=test_s)


def test_an_image_is_written_read_back_and_tested_and_what_was_there_is_kept(probe: Probe, tmp_path: Path) -> None:
    before, new = in_flash(tmp_path), image(probe.program)
    found = flashed(probe, tmp_path, new)
    assert in_flash(tmp_path)[: len(new.data)] == new.data
    assert (tmp_path / "kept" / found.kept).read_bytes() == before
    assert Flashed.model_validate_json((tmp_path / "kept" / flashing.LAST).read_bytes()) == found
    assert found.kept_sha256 == hashlib.sha256(before).hexdigest()
    assert (found.written, found.sha256, found.size_bytes) == (True, new.sha256, len(new.data))
    assert found.tested == flashers.get(probe.program).SEES_MEMORY
    assert found.cycles == (4321 if found.tested else None)


def test_what_is_there_already_is_tested_and_not_written(probe: Probe, tmp_path: Path) -> None:
    flashed(probe, tmp_path, image(probe.program))
    again = flashed(probe, tmp_path, image(probe.program))
    assert not again.written
    assert again.tested == flashers.get(probe.program).SEES_MEMORY


def test_what_was_kept_goes_back(probe: Probe, tmp_path: Path) -> None:
    before = in_flash(tmp_path)
    found = flashed(probe, tmp_path, image(probe.program))
    assert not flashed(probe, tmp_path, image(probe.program)).written  # which leaves nothing else to go back to
    assert put_back(tmp_path / "kept", probe) == found
    assert in_flash(tmp_path) == before
    with pytest.raises(UsageError, match="nothing to go back to"):
        put_back(tmp_path / "kept", probe)
    assert (tmp_path / "chip" / "ram.bin").read_bytes()[4:6] == bytes([77, 0])


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ({"wrong": 3}, "3 output values are wrong"),
        ({"wrong": -2}, "beside its arena"),
        ({"wrong": flashing.RUNNING}, "did not end its self-test within"),
        ({"boots": 0}, "did not start within"),
    ],
)
def test_an_image_that_fails_its_test_is_taken_back(
    openocd: Probe, behaviour: dict[str, int], says: str, tmp_path: Path
) -> None:
    before = in_flash(tmp_path)
    with pytest.raises(DeployError, match=says):
        flashed(openocd, tmp_path, image(**behaviour), test_s=0.0)
    assert in_flash(tmp_path) == before


def test_an_image_that_does_not_start_is_not_taken_for_the_one_that_ran_before(openocd: Probe, tmp_path: Path) -> None:
    """RAM keeps the zero that the old image left where the new one would write its result."""
    flashed(openocd, tmp_path, image())
    with pytest.raises(DeployError, match="did not start"):
        flashed(openocd, tmp_path, image(boots=0), test_s=0.0)


def test_what_is_there_already_and_fails_has_nothing_to_go_back_to(openocd: Probe, tmp_path: Path) -> None:
    bad = image(wrong=1)
    (tmp_path / "chip" / "flash.bin").write_bytes(bad.data.ljust(stand_in.FLASH_BYTES, b"\xff"))
    with pytest.raises(QualityError, match="1 output values are wrong"):
        flashed(openocd, tmp_path, bad)


def outcome(probe: Probe, folder: Path, before: bytes, new: Firmware) -> str:
    """How a faulty deployment ended; whatever was said must be so."""
    try:
        found = flashed(probe, folder, new)
    except EdgepruneError as error:
        after, kept = in_flash(folder), list((folder / "kept").glob("*.bin"))
        if isinstance(error, DeployError):
            assert after == before
        elif isinstance(error, UnknownStateError):
            assert [file.read_bytes() for file in kept] == [before]
            assert str(kept[0]) in error.hint
        else:
            assert isinstance(error, DeviceError)
            assert after == before
        return type(error).__name__
    assert in_flash(folder)[: len(new.data)] == new.data
    assert found.tested == flashers.get(probe.program).SEES_MEMORY
    return "flashed"


@pytest.mark.parametrize("fault", ["dies", "half"])
def test_whatever_fails_at_whatever_call_nothing_is_said_that_is_not_so(
    fault: str, openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at_every_call(fault, openocd, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_with_whatever_program_nothing_is_said_that_is_not_so(
    fault: str, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at_every_call(fault, probe, tmp_path, monkeypatch)


def fails_at_every_call(fault: str, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flashed(probe, tmp_path, image(probe.program))
    calls = len((tmp_path / "chip" / "calls").read_bytes())
    assert calls >= 4
    ends = []
    for number in range(1, calls + 1):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        probe = connected(probe.program, folder, monkeypatch)
        monkeypatch.setenv("FAULT", f"{fault}@{number}")
        ends.append(outcome(probe, folder, in_flash(folder), image(probe.program)))
        monkeypatch.delenv("FAULT")
    if fault == "dies":
        assert ends[0] == "DeviceError"
        assert set(ends[1:]) <= {"DeployError", "UnknownStateError"}


def test_a_chip_that_is_lost_while_it_is_written_is_in_an_unknown_state(
    openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_flash(tmp_path)
    monkeypatch.setenv("FAULT", "half@2")
    working = flashing._Chip.write

    def once(self: flashing._Chip, address: int, data: bytes) -> None:
        if len(data) == stand_in.FLASH_BYTES:
            raise DeviceError("unplugged")
        working(self, address, data)

    monkeypatch.setattr(flashing._Chip, "write", once)
    with pytest.raises(UnknownStateError, match="could not be confirmed") as caught:
        flashed(openocd, tmp_path, image())
    assert in_flash(tmp_path) != before
    (kept,) = (tmp_path / "kept").glob("*.bin")
    assert str(kept) in caught.value.hint


def test_an_interruption_puts_back_what_was_there(
    openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_flash(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flashing, "_tested", interrupted)
    with pytest.raises(DeployError, match="interrupted"):
        flashed(openocd, tmp_path, image())
    assert in_flash(tmp_path) == before


def test_a_program_that_hangs_is_ended(openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "hangs@1")
    monkeypatch.setattr(flashing, "_SHORT_S", 0.5)
    with pytest.raises(DeviceError, match="did not finish within"):
        flashed(openocd, tmp_path, image())


def test_a_program_that_prints_without_end_is_ended(
    openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "programs" / "openocd").write_text("#!/bin/sh\nexec yes\n", encoding="utf-8")
    with pytest.raises(DeviceError, match="printed far too much"):
        flashed(openocd, tmp_path, image())


def test_a_program_that_is_missing_is_named(openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    (tmp_path / "programs" / "openocd").unlink()
    with pytest.raises(MissingExtraError, match="the program openocd is not installed"):
        flashed(openocd, tmp_path, image())


@pytest.mark.parametrize(
    ("program", "wrong", "says"), [("openocd", None, "no self-test"), ("esptool", stand_in.RAM, "does not see")]
)
def test_what_cannot_be_tested_is_refused_until_that_is_accepted(
    program: str, wrong: int | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, before = connected(program, tmp_path, monkeypatch), in_flash(tmp_path)
    firmware = Firmware(first_address(program), stand_in.firmware(), wrong)
    region = Region(firmware.address, stand_in.FLASH_BYTES)
    with pytest.raises(UsageError, match=says):
        flash(firmware, probe, region, tmp_path / "kept")
    assert in_flash(tmp_path) == before
    assert not flash(firmware, probe, region, tmp_path / "kept", untested=True).tested


def test_what_is_kept_is_whole_or_not_taken(openocd: Probe, tmp_path: Path) -> None:
    found = flashed(openocd, tmp_path, image())
    kept, after = tmp_path / "kept" / found.kept, in_flash(tmp_path)
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(UsageError, match="not there, or damaged"):
        put_back(tmp_path / "kept", openocd)
    kept.unlink()
    with pytest.raises(UsageError, match="not there, or damaged"):
        put_back(tmp_path / "kept", openocd)
    assert in_flash(tmp_path) == after


def test_going_back_that_fails_is_not_called_success(
    openocd: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_flash(tmp_path)
    flashed(openocd, tmp_path, image())
    calls = len((tmp_path / "chip" / "calls").read_bytes())
    monkeypatch.setenv("FAULT", f"half@{calls + 2}")
    with pytest.raises(UnknownStateError, match="could not be confirmed"):
        put_back(tmp_path / "kept", openocd)
    monkeypatch.delenv("FAULT")
    put_back(tmp_path / "kept", openocd)
    assert in_flash(tmp_path) == before


def test_all_flash_is_kept_or_the_sectors_that_are_erased() -> None:
    board = load_target("nucleo-l4r5zi")
    inside = Firmware(0x0800_0000, bytes(5000))
    assert region_of(board, inside, Probe("openocd", "x")) == Region(0x0800_0000, 2_097_152)
    espressif = Probe("esptool", "/dev/ttyUSB0")
    assert region_of(load_target("esp32-s3"), Firmware(0x1_0010, bytes(5000)), espressif) == Region(0x1_0000, 8192)
    with pytest.raises(UsageError, match="the flash of nucleo-l4r5zi"):
        region_of(board, Firmware(0x0800_0000, bytes(2_097_153)), Probe("openocd", "x"))
    with pytest.raises(UsageError, match="does not say where its flash lies"):
        region_of(load_target("esp32-s3"), inside, Probe("openocd", "x"))


def test_an_image_is_an_elf_file_or_bytes_with_an_address(tmp_path: Path) -> None:
    plain = tmp_path / "app.bin"
    with pytest.raises(UsageError, match="no image"):
        read_firmware(plain, 0)
    plain.write_bytes(b"")
    with pytest.raises(UsageError, match="empty"):
        read_firmware(plain, 0)
    plain.write_bytes(b"abc")
    with pytest.raises(UsageError, match="where in flash"):
        read_firmware(plain, None)
    assert read_firmware(plain, 16) == Firmware(16, b"abc")
    elf = tmp_path / "app.elf"
    elf.write_bytes(b"\x7fELF and more")
    with pytest.raises(UsageError, match="says its address itself"):
        read_firmware(elf, 16)
