"""`edgeprune profile --device`: measured where the link leads, with errors that say what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_a_file_is_measured_over_ssh(command: Command, ssh_board: str, small_tflite: Path, any_machine: None) -> None:
    where = ("--device", ssh_board, "--python", sys.executable, "--threads", "1")
    done = command("profile", str(small_tflite), *where, "--target", "rpi4", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["schema"], found["source"], found["target"]) == ("edgeprune.profile/1", "measured", "rpi4")
    assert found["environment"]["device"] == "ssh://board" and found["runs"] >= 200 and found["p90_ns"] > 0
    assert "asking ssh://board what it is" in done.err


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("--device emulator", 2, "which board is to be emulated?"),
        ("--device emulator --target pixel4", 2, "pixel4 cannot be emulated: there is no emulator here of"),
        ("--device emulator:rpi5 --target rpi4", 2, "emulator:rpi5 is not the target rpi4"),
        ("--device telnet:1", 2, "known: adb:SERIAL, emulator[:TARGET], local, ssh://user@host[:port]"),
        ("--device ssh://-oProxyCommand=x", 2, "cannot read the address"),
        ("--python python3", 2, "--python and --benchmark-binary are about a device"),
        ("--benchmark-binary b", 2, "--python and --benchmark-binary are about a device"),
        ("--device adb:gone-1", 5, "there is no device adb:gone-1"),
        ("--device local --target rpi4 --python /none", 7, "host has no Python"),
        ("--device local --target nucleo-l4r5zi", 2, "is no runtime that host can run"),
        ("--device adb:dying-1 --target rpi4", 5, "the link to adb:dying-1 broke"),
    ],
)
def test_what_is_wrong_ends_with_its_own_code(
    command: Command, phone: str, tmp_path: Path, where: str, code: int, message: str
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    done = command("profile", "m.tflite", *where.split())
    assert done.code == code and message in done.err and done.out == ""


@pytest.mark.parametrize("host", ["unknown", "changed", "stranger", "closed"])
def test_a_board_that_is_not_reached_is_exit_code_5(
    command: Command, ssh_board: str, host: str, tmp_path: Path
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    assert command("profile", "m.tflite", "--device", f"ssh://{host}", "--target", "rpi4").code == 5
