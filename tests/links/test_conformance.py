"""What every link must do, on every kind of device that is at hand."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeprune import links
from edgeprune.errors import DeviceError, UsageError
from edgeprune.links import Link, connect

DEVICES = ("local", "ssh", "adb", "emulator")
NOISY = ("noisy ssh", "noisy adb")
ODD_NAMES = ("-two words'", '$(touch x)"', "new\nline\\ä*~")


@pytest.fixture(params=DEVICES)
def link(request: pytest.FixtureRequest, address: Callable[[str], str]) -> Link:
    return connect(address(request.param))


@pytest.fixture(params=DEVICES + NOISY)
def any_link(request: pytest.FixtureRequest, address: Callable[[str], str]) -> Link:
    """Those too whose login shell prints of its own."""
    return connect(address(request.param))


def test_every_link_is_tested() -> None:
    assert set(links.names()) == {name.split()[-1] for name in DEVICES}


@pytest.mark.parametrize("status", [0, 1, 77, 127, 255])
def test_the_exit_status_is_the_script_s(link: Link, status: int) -> None:
    assert link.run('exit "$1"', str(status)).status == status


def test_a_program_that_is_not_there_and_one_that_is_killed(link: Link) -> None:
    assert link.run("no-such-program-anywhere").status == 127
    assert link.run("kill -s KILL $$").status == 137


def test_stdout_is_exact_and_stderr_apart(any_link: Link) -> None:
    ended = any_link.run(r"printf '\000\n\r\n\377end'; printf '\n err\r\n\n' >&2")
    assert ended.stdout == b"\x00\n\r\n\xffend"
    assert ended.stderr == b"\n err\r\n\n"
    silent = any_link.run("exit 255")
    assert (silent.status, silent.stdout, silent.stderr) == (255, b"", b"")


def test_large_outputs_arrive_whole_on_both_at_once(link: Link) -> None:
    ended = link.run("head -c 3000001 /dev/zero & head -c 2000003 /dev/zero >&2; wait")
    assert (len(ended.stdout), len(ended.stderr)) == (3_000_001, 2_000_003)


def test_a_script_has_no_stdin_and_may_be_of_many_lines(link: Link) -> None:
    script = "nothing() {\n  cat\n}\nnothing\n# 'quoted \\n\ncase $1 in *) echo \"it's $# of them\" ;;\nesac\n"
    assert link.run(script, "a", "b").stdout == b"it's 2 of them\n"


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize("name", DEVICES)
def test_no_argument_is_ever_taken_for_anything_else(name: str, address: Callable[[str], str], tmp_path: Path) -> None:
    link, trap = connect(address(name)), tmp_path / "trap"
    hostile = [f"$(touch {trap})", f"`touch {trap}`", f"'; touch {trap}; '", f"\n touch {trap}\n", f"&& touch {trap}"]
    count = {"local": 40, "ssh": 4, "adb": 12, "emulator": 4}[name]

    @settings(max_examples=count, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(TEXT | st.sampled_from(hostile), max_size=12))
    @example([*hostile, *ODD_NAMES, "", "-n", "--", "\\", "\\0101", "%s", "!!", "'", '"', "\r\n", "\x7f\x1b[0m"])
    def check(arguments: list[str]) -> None:
        ended = link.run(r"""for value in "$@"; do printf '%s\000' "$value"; done""", *arguments)
        assert ended.status == 0 and ended.stderr == b""
        assert ended.stdout == b"".join(value.encode() + b"\0" for value in arguments)

    check()
    assert not trap.exists()


def test_an_argument_that_no_program_can_have_is_refused(link: Link) -> None:
    with pytest.raises(ValueError, match="null character"):
        link.run(":", "a\0b")
    with pytest.raises(ValueError, match="at most 100000 are sent"):
        link.run(":", "x" * 100_000)


@pytest.mark.parametrize("size", [0, 65_537, 3_000_001])
def test_files_of_any_size_go_there_and_back(any_link: Link, size: int, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    sent, there, back = tmp_path / "sent", tmp_path / "there" / "file", tmp_path / "back"
    sent.write_bytes(os.urandom(size))
    any_link.push(sent, str(there))
    assert there.read_bytes() == sent.read_bytes()
    any_link.pull(str(there), back)
    assert back.read_bytes() == sent.read_bytes()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]
    assert not list(tmp_path.glob("*.part"))


def test_files_of_any_name_go_there_and_back(link: Link, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ODD_NAMES:
        sent = tmp_path / f"sent {name}"
        sent.write_bytes(name.encode())
        link.push(sent, str(tmp_path / "there" / name))
        link.pull(str(tmp_path / "there" / name), tmp_path / f"back {name}")
        assert (tmp_path / f"back {name}").read_bytes() == name.encode()
    assert {path.name for path in (tmp_path / "there").iterdir()} == set(ODD_NAMES)


def test_a_file_replaces_the_one_before(link: Link, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("before, and longer")
    (tmp_path / "sent").write_text("after")
    link.push(tmp_path / "sent", str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == "after"


def test_a_file_that_cannot_be_written_or_read_is_named(link: Link, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("x")
    with pytest.raises(DeviceError, match="(?i)no such file|nonexistent") as caught:
        link.push(tmp_path / "sent", str(tmp_path / "no folder" / "file"))
    assert "no folder" in caught.value.where or "no folder" in caught.value.message
    with pytest.raises(DeviceError, match="(?i)no such file"):
        link.pull(str(tmp_path / "none"), tmp_path / "back")
    assert not (tmp_path / "back").exists()
    for call in (lambda: link.push(tmp_path / "sent", "file"), lambda: link.pull("file", tmp_path / "back")):
        with pytest.raises(ValueError, match="not an absolute path"):
            call()


def test_what_takes_too_long_is_ended_on_both_sides(link: Link, tmp_path: Path) -> None:
    begun = time.monotonic()
    script = 'echo $$ >"$1"; sleep 60 & echo $! >>"$1"; sleep 60; touch "$1.late"'
    with pytest.raises(DeviceError, match=re.escape(link.name) + " did not finish within 6 s"):
        link.run(script, str(tmp_path / "pids"), timeout_s=6)
    assert time.monotonic() - begun < 30
    pids = [int(text) for text in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    for _ in range(50):
        if not any(runs(pid) for pid in pids):
            break
        time.sleep(0.1)
    assert not any(runs(pid) for pid in pids) and not (tmp_path / "pids.late").exists()


def runs(pid: int) -> bool:
    """Whether the process is there and not merely unreaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_is_left_running_in_the_background_does_not_keep_the_link(link: Link, tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = link.run("sleep 60 >/dev/null 2>&1 & echo $!")
    os.kill(int(ended.stdout), 9)
    assert time.monotonic() - begun < 20 and ended.status == 0


def test_the_device_describes_itself(any_link: Link, tmp_path: Path) -> None:
    facts = any_link.describe(str(tmp_path))
    assert facts.machine == ("aarch64" if any_link.name.startswith("emulator") else os.uname().machine)
    assert facts.kernel == f"{os.uname().sysname} {os.uname().release}"
    assert facts.cores >= 1 and facts.memory_bytes and facts.free_bytes
    assert 0 < facts.free_bytes <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_its_runtimes_are_those_of_the_python_that_is_asked(address: Callable[[str], str], tmp_path: Path) -> None:
    fake = tmp_path / "own python"
    fake.write_text("#!/bin/sh\ncase $2 in *platform*) echo 3.12.1 ;; *) printf 'package\\tnumpy 2.1\\n' ;; esac\n")
    fake.chmod(0o755)
    for name in ("local", "adb"):
        facts = connect(address(name), str(fake)).describe()
        assert (facts.python, facts.packages, facts.runs_python) == ("3.12.1", {"numpy": "2.1"}, True)
    assert connect("local", str(tmp_path / "none")).describe().python == ""


@pytest.mark.parametrize("unknown", ["telnet:1", "", "ssh", "pi@board", "SSH://pi@board", "__init__"])
def test_an_address_of_no_link_names_those_there_are(unknown: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(unknown)
    assert caught.value.where == "--device"
    assert "ssh://user@host[:port]" in caught.value.hint
