"""Devices to reach: this machine, an sshd of our own on a loopback port, stand-ins for adb and for an emulated board.

`ssh_board` starts the sshd with keys and configuration in a temporary folder and puts an `ssh` first on PATH that reads
nothing else. How a host behaves follows from its name, as in a user's own configuration:

    board       answers
    noisy       prints before and after every command, as a login shell's rc file may
    dying       breaks off in the middle of every answer
    pi          answers with the programs of `aarch64_board` first on PATH
    unknown     has a host key that nobody has seen
    changed     has another host key than it had
    stranger    does not know our key
    closed      is a port where nobody listens
    nowhere     has a name that does not resolve
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeprune.boards import kit
from edgeprune.boards.kit import Kit, kit_of
from edgeprune.errors import MissingExtraError
from edgeprune.target import load_target
from tests.boards import stand_in

STAND_IN = Path(__file__).with_name("adb_stand_in.py")

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
"""
SSH = """
Host closed
  Port {closed}
Host nowhere
  HostName nowhere.invalid
Host unknown
  UserKnownHostsFile /dev/null
Host changed
  UserKnownHostsFile {folder}/known-before
Host noisy dying pi stranger
  IdentityFile {folder}/%n
Host * !stranger
  IdentityFile {folder}/board
Host *
  HostName 127.0.0.1
  HostKeyAlias board
  Port {port}
  User {user}
  IdentitiesOnly yes
  RemoteCommand /bin/false
  IdentityAgent none
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile /dev/null
"""
NOISY = """#!/bin/sh
echo "Welcome, all of you"
echo "stty: not a tty" >&2
/bin/sh -c "$SSH_ORIGINAL_COMMAND"
status=$?
echo "logout"
exit $status
"""
DYING = """#!/bin/sh
/bin/sh -c "$SSH_ORIGINAL_COMMAND" | head -c 1000
sleep 1
kill -KILL $PPID
"""


PI = """#!/bin/sh
PATH="$(cat {folder}/programs):$PATH" exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that holds the program `ssh` of whoever uses the running sshd."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    client, keys = shutil.which("ssh"), shutil.which("ssh-keygen")
    if not server or not client or not keys:
        pytest.skip("needs the tool sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # which an sshd of root's insists on
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "board", "noisy", "dying", "pi", "stranger", "before"):
        subprocess.run([keys, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)

    def public(name: str) -> str:
        return (folder / f"{name}.pub").read_text()

    lines = [public("board")]
    for name, script in (("noisy", NOISY), ("dying", DYING), ("pi", PI.format(folder=folder))):
        executable(folder / f"{name}.sh", script)
        lines.append(f'command="{folder}/{name}.sh" {public(name)}')
    (folder / "authorized").write_text("".join(lines))
    (folder / "known").write_text(f"board {public('host')}")
    (folder / "known-before").write_text(f"board {public('before')}")
    port, closed = free_port(), free_port()
    (folder / "sshd_config").write_text(SSHD.format(port=port, folder=folder))
    (folder / "ssh_config").write_text(SSH.format(port=port, closed=closed, folder=folder, user=getpass.getuser()))
    (folder / "bin").mkdir()
    executable(folder / "bin" / "ssh", f'#!/bin/sh\nexec {client} -F {folder}/ssh_config "$@"\n')
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([server, "-D", "-e", "-f", folder / "sshd_config"], stdin=-3, stdout=log, stderr=log)
    try:
        wait_for(port, process, folder / "log")
        yield folder / "bin"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def ssh_board(sshd: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a board that answers over ssh."""
    monkeypatch.setenv("PATH", f"{sshd}:{os.environ['PATH']}")
    return "ssh://board"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a phone that answers to adb."""
    (tmp_path / "adb-bin").mkdir()
    executable(tmp_path / "adb-bin" / "adb", f"#!{sys.executable} -IS\n" + STAND_IN.read_text())
    monkeypatch.setenv("PATH", f"{tmp_path / 'adb-bin'}:{os.environ['PATH']}")
    return "adb:phone-1"


@pytest.fixture
def emulated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an emulated board, whose emulator is a stand-in."""
    stand_in.board(tmp_path_factory.mktemp("emulated"), monkeypatch)
    return "emulator:rpi4"


SET_UP = kit.folder()  # where the user's boards are, before tests are given a folder of their own


@pytest.fixture
def real_board(monkeypatch: pytest.MonkeyPatch) -> Kit:
    """An emulated Raspberry Pi 4 with its own aarch64 runtimes, where one is set up."""
    monkeypatch.setenv(kit.FOLDER_VARIABLE, str(SET_UP))
    try:
        return kit_of(load_target("rpi4"))
    except MissingExtraError as error:
        pytest.skip(f"needs an emulated board: edgeprune emulate setup rpi4 ({error.message})")


@pytest.fixture
def aarch64_board(real_board: Kit, sshd: Path, ssh_board: str, tmp_path: Path) -> tuple[str, Path]:
    """The address of a board over ssh that runs aarch64 programs, and the file that says what its Python ran."""
    asked, programs = tmp_path / "asked", tmp_path / "programs"
    programs.mkdir()
    spy = '#!/bin/sh\necho "$*" >>{asked}\nexec {python} "$@"\n'
    python = shlex.quote(str(real_board.programs / "python3"))
    executable(programs / "python3", spy.format(asked=shlex.quote(str(asked)), python=python))
    (programs / "uname").symlink_to(real_board.programs / "uname")
    (sshd.parent / "programs").write_text(str(programs))
    return "ssh://pi", asked


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """`address("noisy ssh")`: of a device that is there and behaves so."""

    def found(name: str) -> str:
        manner, _, kind = name.rpartition(" ")
        if kind == "ssh":
            plain: str = request.getfixturevalue("ssh_board")
            return f"ssh://{manner}" if manner else plain
        if kind == "adb":
            plain = request.getfixturevalue("phone")
            return f"adb:{manner}-1" if manner else plain
        if kind == "emulator":
            board: str = request.getfixturevalue("emulated")
            return board
        return kind

    return found


def executable(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)


def free_port() -> int:
    """A port of the loopback address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody listens there."""
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"sshd does not listen: {log.read_text()}")
