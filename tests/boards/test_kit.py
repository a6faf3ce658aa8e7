"""What emulated boards need: where it lies, what is missing, setting it up without a network."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from edgeprune.boards import kit
from edgeprune.errors import DeviceError, MissingExtraError
from edgeprune.progress import SILENT
from edgeprune.target import load_target
from tests.boards import stand_in
from tests.links.devices import executable

BOARD = load_target("rpi4")


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for a set-up board."""
    return stand_in.board(tmp_path, monkeypatch)


def test_the_folder_is_the_user_s_to_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(kit.FOLDER_VARIABLE, str(tmp_path))
    assert kit.folder() == tmp_path
    monkeypatch.delenv(kit.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert kit.folder() == Path("/somewhere/edgeprune/boards")
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert kit.folder() == Path.home() / ".cache" / "edgeprune" / "boards"


def test_a_board_is_links_and_its_kernel_s_files(boards: Path) -> None:
    found = kit.kit_of(BOARD, counting=False)
    assert found.root == boards / "rpi4" / "root" and found.versions == kit.host_versions()
    assert (found.root / "usr").resolve() == boards / "root" / "usr"
    assert "0xd08" in (found.root / "proc" / "cpuinfo").read_text()
    command = found.command("-plugin", "x.so")
    assert command[:5] == [str(boards.parent / "qemu" / kit.QEMU), "-cpu", "cortex-a72", "-L", str(found.root)]
    assert command[-1] == str(found.python) and "PYTHONDONTWRITEBYTECODE=1" in command
    uname = subprocess.run([found.programs / "uname", "-m"], capture_output=True, text=True, check=True)
    assert uname.stdout == "aarch64\n"
    system = subprocess.run([found.programs / "uname", "-s"], capture_output=True, text=True, check=True)
    assert system.stdout == f"{os.uname().sysname}\n"


def test_what_is_missing_is_named_with_what_brings_it(boards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match="no emulated rpi5 is set up") as caught:
        kit.kit_of(load_target("rpi5"), counting=False)
    assert caught.value.hint == "edgeprune emulate setup rpi5"
    state = {"versions": {**kit.host_versions(), "numpy": "0.1"}}
    (boards / "setup.json").write_text(json.dumps(state))
    with pytest.raises(MissingExtraError, match="the emulated boards have numpy 0.1, here ") as caught:
        kit.kit_of(BOARD, counting=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtraError, match=f"not installed here: {kit.QEMU}") as caught:
        kit.kit_of(BOARD, counting=False)
    assert "apt-get install -y --no-install-recommends qemu-user" in caught.value.hint


def test_a_damaged_note_of_the_setup_is_none(boards: Path) -> None:
    (boards / "setup.json").write_text("{")
    assert kit.installed() is None and not kit.up_to_date()


def test_tools_that_cannot_be_installed_from_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtraError, match="not installed here: qemu-aarch64, mmdebstrap, cc") as caught:
        kit.install_tools(SILENT)
    assert "gcc libc6-dev mmdebstrap qemu-user" in caught.value.hint


@pytest.fixture
def fakes(tmp_path: Path, boards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that only write down how they are called, and make what a setup expects of them."""
    wheel = tmp_path / "numpy.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("numpy/__init__.py", "")
    programs, log = tmp_path / "fakes", tmp_path / "log"
    programs.mkdir()
    remember = f'#!/bin/sh\necho "$(basename "$0") $*" >>"{log}"\nfor last; do :; done\n'
    executable(programs / "mmdebstrap", remember + 'mkdir -p "$last/usr/bin" "$last/lib" "$last/etc"\n')
    executable(programs / "cc", remember)
    pip = remember + f'while [ $# -gt 0 ]; do [ "$1" = --dest ] && mkdir -p "$2" && cp "{wheel}" "$2"; shift; done\n'
    executable(programs / "python", pip)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(kit.sys, "executable", str(programs / "python"))
    monkeypatch.setattr(kit, "_RUNTIMES", {})
    return log


def test_a_setup_brings_what_the_host_has_and_only_once(fakes: Path, boards: Path) -> None:
    (boards / "setup.json").unlink()
    (boards / "site" / "old").write_text("of another version")
    kit.set_up(BOARD, SILENT)
    lines = fakes.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["mmdebstrap", "python", "python"]
    assert "--architectures=arm64" in lines[0] and f" {kit.SUITE} " in lines[0]
    assert all(f"{name}=={version}" in lines[1] for name, version in kit.host_versions().items())
    assert "manylinux_2_28_aarch64" in lines[1] and "--only-binary=:all:" in lines[1]
    assert kit.up_to_date() and not (boards / "site" / "old").exists()
    assert not list(boards.glob("setup-*"))
    kit.set_up(load_target("rpi5"), SILENT)
    assert fakes.read_text().splitlines() == lines
    assert kit.kit_of(load_target("rpi5"), counting=False).target.name == "rpi5"


def test_a_setup_that_fails_keeps_what_was_there(fakes: Path, boards: Path) -> None:
    (boards / "setup.json").write_text(json.dumps({"versions": {}}))
    executable(fakes.parent / "fakes" / "mmdebstrap", "#!/bin/sh\necho no route >&2\nexit 3\n")
    with pytest.raises(DeviceError, match="mmdebstrap failed: no route") as caught:
        kit.set_up(BOARD, SILENT)
    assert caught.value.hint.startswith("by hand: mmdebstrap")
    assert (boards / "site" / "numpy").is_dir() and not list(boards.glob("setup-*"))


def test_what_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "_REST_S", 0.1)
    with pytest.raises(DeviceError, match="sleep did not finish"):
        kit._run(["sleep", "5"])
