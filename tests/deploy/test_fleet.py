"""Many devices: canaries first, stop at the limit, and a code that is 0 only where all hold the release."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.deploy.documents import DeployRecord
from edgeprune.deploy.fleet import Place, exit_code, in_turn, read_fleet
from edgeprune.errors import DeviceError, EdgepruneError, QualityError, UnknownStateError, UsageError

PLACES = [Place(address=f"ssh://board-{number}") for number in range(5)]


def outcomes(failing: dict[int, EdgepruneError], canary: int = 1, max_failures: int = 1) -> list[DeployRecord]:
    def one(place: Place) -> DeployRecord:
        number = PLACES.index(place)
        if number in failing:
            raise failing[number]
        return DeployRecord(device=place.address, app="app", outcome="deployed", release="r")

    return list(in_turn(PLACES, one, canary, max_failures, "app"))


@pytest.mark.parametrize(
    ("failing", "canary", "max_failures", "ends", "code"),
    [
        ({}, 1, 1, "ddddd", 0),
        ({0: DeviceError("gone")}, 1, 9, "fllll", 5),
        ({1: DeviceError("gone")}, 2, 9, "dflll", 5),
        ({1: DeviceError("gone")}, 1, 1, "dflll", 5),
        ({1: QualityError("wrong"), 3: DeviceError("gone")}, 1, 2, "dfdfl", 4),
        ({1: QualityError("wrong"), 3: UnknownStateError("?")}, 1, 9, "dfdfd", 10),
        ({0: DeviceError("gone")}, 0, 2, "fdddd", 5),
    ],
)
def test_a_fleet_stops_where_it_should(
    failing: dict[int, EdgepruneError], canary: int, max_failures: int, ends: str, code: int
) -> None:
    records = outcomes(failing, canary, max_failures)
    assert "".join(record.outcome[0] for record in records) == ends and exit_code(records) == code
    assert [record.device for record in records] == [place.address for place in PLACES]


def test_a_fleet_file_lists_devices_in_order(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[[device]]\naddress = "ssh://pi@a"\npython = "/p"\n[[device]]\naddress = "adb:1"\nroot = "/r"\n')
    assert read_fleet(file) == (Place(address="ssh://pi@a", python="/p"), Place(address="adb:1", root="/r"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the fleet: No such file"),
        ("[[device]", "not valid TOML"),
        ("", "not a fleet: device: Field required"),
        ("device = []", "not a fleet: device"),
        ('[[device]]\naddress = "ssh://a"\nport = 1\n', "not a fleet: device.0.port"),
        ('[[device]]\naddress = "telnet:a"\n', "no link has the address"),
        ('[[device]]\naddress = "ssh://-oX"\n', "cannot read the address"),
        ('[[device]]\naddress = "ssh://a"\n' * 2, "ssh://a is there twice"),
    ],
)
def test_a_file_that_is_no_fleet_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "fleet.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_fleet(file)
