"""What is sent to a shell and what is taken for its answer. That it works is tested over every link."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeprune.device_shell import LINE, header, transfer_s
from edgeprune.errors import DeviceError
from edgeprune.links import local


def test_what_is_sent_is_one_line_of_plain_characters() -> None:
    sent = header("echo '$1'\n", ("a\nb", "ä\\"), "mark", fed=False)
    assert sent.count(b"\n") == 1 and sent.endswith(b"\n") and sent.isascii() and b"\\\\" not in sent


SHELLS = ("sh", "dash", "bash", "zsh", "mksh", "busybox", "fish", "tcsh")


@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_the_line_means_the_same_to_every_login_shell_at_hand(shell: str) -> None:
    command = [shell, *(["sh"] if shell == "busybox" else []), "-c", LINE]
    sent = header("printf '%s|' \"$@\"", ("it's", "a b\n$(x)", "!"), "mark", fed=True)
    done = subprocess.run(command, input=sent, capture_output=True, timeout=20, check=False)
    assert done.stdout == b"\nmark begin\nit's|a b\n$(x)|!|\nmark end 0\n" and done.returncode == 0


def test_a_file_of_which_a_part_arrives_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, sent = local.connect("local"), tmp_path / "sent"
    sent.write_bytes(bytes(1000))
    monkeypatch.setattr(Path, "stat", lambda path, **options: type("Stat", (), {"st_size": 2000}))
    with pytest.raises(DeviceError, match="did not take the file: 1000 of 2000 bytes arrived"):
        link.push(sent, str(tmp_path / "there"))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["sent"]


def test_a_device_that_floods_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.device_shell.run_child", flood)
    with pytest.raises(DeviceError, match="host sent far more than was asked for"):
        local.connect("local").run("yes")


def flood(*arguments: object, **options: object) -> None:
    from edgeprune.children import TooMuchError

    raise TooMuchError


def test_large_files_have_more_time() -> None:
    assert transfer_s(0) == 30 and transfer_s(10**8) > 1000
