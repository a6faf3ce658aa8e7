"""What adb may say, and phones whose exit status cannot be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.children import Ended
from edgeprune.errors import DeviceError, MissingExtraError, UsageError
from edgeprune.links import adb


@pytest.mark.parametrize(
    ("serial", "message"),
    [
        ("gone-1", "there is no device adb:gone-1"),
        ("shy-1", "adb:shy-1 has not allowed this computer"),
        ("old-1", "adb:old-1 mixes stderr into stdout"),
        ("dying-1", "the link to adb:dying-1 broke before the answer was complete: error: closed"),
    ],
)
def test_why_a_phone_does_not_answer_is_said(phone: str, serial: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        adb.connect(f"adb:{serial}").run("head -c 5000 /dev/zero")
    assert message in caught.value.message and caught.value.exit_code == 5
    if serial in ("gone-1", "shy-1"):
        with pytest.raises(DeviceError) as caught:
            adb.connect(f"adb:{serial}").pull(str(tmp_path / "x"), tmp_path / "y")
        assert message in caught.value.message


def test_an_exit_status_that_adb_does_not_confirm_is_no_success(phone: str) -> None:
    link = adb.connect("adb:lying-1")
    assert link.run("exit 0").status == 0
    with pytest.raises(DeviceError, match="adb ended with status 0 where the script on adb:lying-1 ended with 3"):
        link.run("exit 3")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("adb: device offline", "adb:1 is offline"),
        ("error: insufficient permissions for device: user in plugdev group", "this user may not open adb:1"),
        ("error: no devices/emulators found", "there is no device adb:1"),
        ("* failed to start daemon\nerror: cannot connect to daemon", "adb does not reach its own server"),
        ("error: device still authorizing", "adb:1 is not ready yet"),
        ("anything\nelse", "no shell answered at adb:1: else (status 1)"),
    ],
)
def test_what_cannot_be_staged_here_is_known_by_its_words(said: str, message: str) -> None:
    error = adb.connect("adb:1").program.fault(Ended(1, b"", said.encode()))
    assert isinstance(error, DeviceError) and message in error.message


@pytest.mark.parametrize("address", ["adb:", "adb:-s", "adb:a b", "adb:$(id)", "adb://x", "adb:a\n", "adb:ä"])
def test_hostile_serial_numbers_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="cannot read the address"):
        adb.connect(address)


def test_the_serial_number_is_always_said() -> None:
    for serial in ("emulator-5554", "192.168.1.9:5555", "adb-X1._adb-tls-connect._tcp"):
        link = adb.connect(f"adb:{serial}")
        assert link.program.command[:5] == ("adb", "-s", serial, "shell", "-T")
        assert link.name == f"adb:{serial}"


def test_a_file_that_does_not_stay_is_named(phone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sent").write_text("x")
    monkeypatch.setattr(adb.Phone, "_copy", lambda *arguments: None)
    with pytest.raises(DeviceError, match="did not take the file"):
        adb.connect(phone).push(tmp_path / "sent", str(tmp_path / "there"))


def test_a_transfer_that_hangs_is_ended(phone: str, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("x")
    with pytest.raises(DeviceError, match="adb:phone-1 did not finish within 1e-09 s"):
        adb.connect(phone).push(tmp_path / "sent", str(tmp_path / "there"), timeout_s=1e-9)


def test_without_adb_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (lambda: adb.connect("adb:1").run(":"), lambda: adb.connect("adb:1").pull("/x", tmp_path / "y")):
        with pytest.raises(MissingExtraError, match="the program adb is not installed"):
            call()
