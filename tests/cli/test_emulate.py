"""`edgeprune emulate`: it asks before it brings anything, and says what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.boards import kit
from tests.boards import stand_in
from tests.cli.conftest import Command


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in.board(tmp_path, monkeypatch)


def test_what_is_there(command: Command, boards: Path) -> None:
    done = command("emulate", "status", "--json")
    found = json.loads(done.out)
    assert (found["schema"], found["folder"]) == ("edgeprune.emulation/1", str(boards))
    assert found["versions"] == kit.host_versions() and found["tools"]["qemu-aarch64"] == "installed"
    assert found["boards"]["rpi4"]["latency"] and "rpi5" in found["boards"]
    assert found["boards"]["rpi5"]["missing"] and not found["boards"]["rpi5"]["latency"]
    text = command("emulate", "status").out
    assert str(boards) in text and "cortex-a76" in text


def test_nothing_is_brought_unasked(command: Command, boards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (boards / "setup.json").unlink()
    monkeypatch.setattr(kit, "set_up", lambda *arguments: pytest.fail("it did not ask"))
    done = command("emulate", "setup", "rpi4")
    assert done.code == 2 and "say --yes" in done.err
    assert (
        "download Debian bookworm for arm64 (about 35 MB" in done.err
        and f"numpy {kit.host_versions()['numpy']}" in done.err
    )
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *arguments, **options: False)
    done = command("emulate", "setup", "rpi4")
    assert done.code == 2 and "nothing was set up" in done.err


def test_with_a_yes_it_is_set_up(command: Command, boards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "set_up", lambda target, progress: 1.0)
    done = command("emulate", "setup", "rpi4", "--yes")
    assert done.code == 0 and f"an emulated rpi4 is in {boards}, set up in 1 s" in done.out
    assert "--device emulator" in done.err


@pytest.mark.parametrize(("name", "message"), [("pixel4", "cannot be emulated"), ("rpi44", "did you mean")])
def test_a_board_that_cannot_be_emulated(command: Command, boards: Path, name: str, message: str) -> None:
    done = command("emulate", "setup", name, "--yes")
    assert done.code == 2 and message in done.err
