"""`edgeprune flash`: a run's library or an image onto a chip, told as text or JSON, and what is refused before that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.flashing import Firmware, Region
from tests.cli.conftest import Command
from tests.flashers import stand_in
from tests.flashers.chips import address_of, connected, in_flash
from tests.report.made_up import made_up_record

ADDRESS = address_of("openocd")


@pytest.fixture
def run(tmp_path: Path, stand_in_record: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run for a microcontroller whose self-test is made up, and a chip."""
    connected("openocd", tmp_path, monkeypatch)
    stand_in_record("nucleo-l4r5zi")
    firmware = Firmware(stand_in.FLASH, stand_in.firmware(b"self-test"), stand_in.RAM, stand_in.RAM + 4)
    monkeypatch.setattr("edgeprune.deploy.origin.artifact_of", lambda *_: ("c", tmp_path / "model" / "model.c.json"))
    monkeypatch.setattr("edgeprune.flashing.self_test_firmware", lambda *_: firmware)
    monkeypatch.setattr("edgeprune.flashing.region_of", lambda *_: Region(stand_in.FLASH, stand_in.FLASH_BYTES))
    return tmp_path / "run"


@pytest.fixture
def stand_in_record(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def put(target: str) -> None:
        monkeypatch.setattr("edgeprune.record.read_record", lambda _: made_up_record(target=target))

    return put


def test_a_runs_self_test_goes_onto_the_chip_and_what_was_there_comes_back(
    command: Command, run: Path, tmp_path: Path
) -> None:
    before = in_flash(tmp_path)
    done = command("flash", str(run), "--device", ADDRESS, "--json", "-q")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["schema"], found["written"], found["tested"]) == ("edgeprune.flash/1", True, True)
    assert (run / "devices" / "probe-openocd-board-st-nucleo-l4.cfg-066FFF" / found["kept"]).read_bytes() == before
    again = command("flash", str(run), "--device", ADDRESS, "-q")
    assert again.code == 0 and "was there already" in again.out and "put back by" not in again.out
    assert "self-test on the chip: every output value is the reference's" in again.out
    assert "cycles of one run: 4,321, at the clock" in again.out
    back = command("flash", str(run), "--device", ADDRESS, "--rollback", "-q")
    assert back.code == 0 and "read back, not tested" in back.out
    assert in_flash(tmp_path) == before


def test_an_image_of_ones_own_is_accepted_untested(command: Command, run: Path, tmp_path: Path) -> None:
    image = tmp_path / "app.bin"
    image.write_bytes(stand_in.firmware(b"mine"))
    words = ("flash", str(run), "--device", ADDRESS, "--image", str(image), "--address", hex(stand_in.FLASH), "-q")
    refused = command(*words)
    assert refused.code == 2 and "the image has no self-test" in refused.err and "--untested" in refused.err
    done = command(*words, "--untested")
    assert done.code == 0 and "none: only what is in flash was compared" in done.out
    assert "put back by --rollback" in done.out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("--device ssh://pi@board", 2, "not the address of a probe"),
        (f"--device {ADDRESS} --rollback", 2, "nothing to go back to"),
        (f"--device {ADDRESS} --rollback --image a.bin", 2, "--rollback takes no image"),
        (f"--device {ADDRESS} --address 0x0", 2, "an address of which image?"),
        (f"--device {ADDRESS} --image a.bin --address flash", 2, "not an address: 'flash'"),
        (f"--device {ADDRESS} --target rpi4", 2, "rpi4 is no microcontroller"),
        (f"--device {ADDRESS} --test-time 5", 2, "'5' has no unit"),
    ],
)
def test_what_cannot_be_flashed_is_refused(
    command: Command, run: Path, tmp_path: Path, words: str, code: int, says: str
) -> None:
    before = in_flash(tmp_path)
    done = command("flash", str(run), *words.split(), "-q")
    assert done.code == code and says in done.err
    assert in_flash(tmp_path) == before


def test_a_chip_is_no_device_to_deploy_to(command: Command, tmp_path: Path) -> None:
    done = command("verify", "--device", ADDRESS, "--name", "net")
    assert done.code == 2 and "edgeprune flash" in done.err
