"""What ssh itself may say, each as one clear error, and addresses that could be taken for something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeprune.children import Ended
from edgeprune.errors import DeviceError, MissingExtraError, UsageError
from edgeprune.links import ssh


@pytest.mark.parametrize(
    ("host", "message", "hint"),
    [
        ("unknown", "the host key of ssh://unknown is not known here", "ssh unknown"),
        ("changed", "the host key of ssh://changed has changed", "ssh-keygen -R changed"),
        ("stranger", "ssh://stranger refused the log-in", "ssh-copy-id stranger"),
        ("closed", "nothing listens for ssh at ssh://closed", "is sshd on"),
        ("nowhere", "there is no host of the name in ssh://nowhere", "check the name"),
    ],
)
def test_why_a_board_is_not_reached_is_said(ssh_board: str, host: str, message: str, hint: str) -> None:
    with pytest.raises(DeviceError) as caught:
        ssh.connect(f"ssh://{host}").run(":")
    assert message in caught.value.message and hint in caught.value.hint and caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ssh: connect to host b port 22: No route to host", "there is no route to ssh://pi@b:2222"),
        ("ssh: connect to host b port 22: Network is unreachable", "there is no route"),
        ("ssh: connect to host b port 22: Connection timed out", "does not answer"),
        ("Connection timed out during banner exchange", "does not answer"),
        ("Received disconnect from b: 2: Too many authentication failures", "refused the log-in"),
        ("kex_exchange_identification: Connection closed by remote host", "closed the connection"),
        ("Connection to b closed by remote host.", "closed the connection"),
        ("Connection reset by b port 22", "closed the connection"),
        ("something\nunheard of", "no shell answered at ssh://pi@b:2222: unheard of (status 255)"),
        ("", "no message (status 255)"),
    ],
)
def test_what_cannot_be_staged_here_is_known_by_its_words(said: str, message: str) -> None:
    error = ssh.connect("ssh://pi@b:2222").program.fault(Ended(255, b"", said.encode()))
    assert isinstance(error, DeviceError) and message in error.message
    assert error.where == "ssh://pi@b:2222"


def test_steps_by_hand_name_user_and_port() -> None:
    error = ssh.connect("ssh://pi@b:2222").program.fault(Ended(255, b"", b"Host key verification failed."))
    assert "ssh -p 2222 pi@b" in error.hint
    changed = b"@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed."
    assert "ssh-keygen -R '[b]:2222'" in ssh.connect("ssh://pi@b:2222").program.fault(Ended(255, b"", changed)).hint


def test_a_link_that_dies_in_the_middle_is_named(ssh_board: str, tmp_path: Path) -> None:
    link = ssh.connect("ssh://dying")
    with pytest.raises(DeviceError, match="the link to ssh://dying broke before the answer was complete"):
        link.run("head -c 5000 /dev/zero; exit 0")
    (tmp_path / "there").write_bytes(bytes(5000))
    with pytest.raises(DeviceError, match="broke before the answer was complete"):
        link.pull(str(tmp_path / "there"), tmp_path / "back")
    assert not list(tmp_path.glob("back*"))


@pytest.mark.parametrize(
    "address",
    [
        "ssh://",
        "ssh:board",
        "ssh://-oProxyCommand=x",
        "ssh://-oProxyCommand=x@board",
        "ssh://pi@-board",
        "ssh://pi@board;id",
        "ssh://pi@board id",
        "ssh://pi@$(id)",
        "ssh://pi@board\n",
        "ssh://pi@board/../x",
        "ssh://pi@board:0",
        "ssh://pi@board:22x",
        "ssh://pi@board:65536",
        "ssh://pi:word@board",
        "ssh://pi@bo%ard",
        "ssh://pi@böard",
    ],
)
def test_hostile_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="cannot read the address") as caught:
        ssh.connect(address)
    assert caught.value.where == "--device"


def test_an_address_becomes_arguments_of_their_own() -> None:
    command = ssh.connect("ssh://Pi@Board.local:2222/").program.command
    assert command[command.index("-l") + 1] == "Pi" and command[command.index("-p") + 1] == "2222"
    assert command[-3:-1] == ("--", "board.local")
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=5"):
        assert command[command.index(option) - 1] == "-o"
    assert ssh.connect("ssh://[fe80::1]:22").program.command[-2] == "fe80::1"
    names = [ssh.connect(address).name for address in ("ssh://BOARD/", "ssh://pi@board:22", "ssh://[fe80::1]")]
    assert names == ["ssh://board", "ssh://pi@board:22", "ssh://[fe80::1]"]


def test_without_ssh_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("ssh") is None
    with pytest.raises(MissingExtraError, match="the program ssh is not installed") as caught:
        ssh.connect("ssh://board").run(":")
    assert "openssh-client" in caught.value.hint
