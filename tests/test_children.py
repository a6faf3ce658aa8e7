"""Child processes end, whatever they do."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from edgeprune.children import Ended, TimeOutError, TooMuchError, run_child


def test_what_a_child_is_given_and_gives_back(tmp_path: Path) -> None:
    script = 'read -r line; pwd; echo "$line, $WORD"; wc -c; echo "not good" >&2; exit 3'
    ended = run_child(
        ["sh", "-c", script],
        head=b"first\n",
        data=io.BytesIO(bytes(300_000)),
        timeout_s=20,
        environment={"WORD": "word", "PATH": "/usr/bin:/bin"},
        folder=tmp_path,
    )
    assert (ended.status, ended.stdout.split()) == (3, [str(tmp_path).encode(), b"first,", b"word", b"300000"])
    assert ended.last_line == "not good" and Ended(0, b"", b" \n").last_line == "no message"


def test_stdin_stays_open_without_data_until_the_child_ends() -> None:
    begun = time.monotonic()
    assert run_child(["sh", "-c", "read -r line; sleep 0.3"], head=b"x\n", timeout_s=20).status == 0
    with pytest.raises(TimeOutError):
        run_child(["sh", "-c", "cat"], timeout_s=0.3)
    assert time.monotonic() - begun < 5


def test_a_child_that_reads_nothing_or_dies_at_once() -> None:
    assert run_child(["true"], head=bytes(10**6), timeout_s=20).status == 0
    assert run_child(["sh", "-c", "kill -9 $$"], data=io.BytesIO(bytes(10**6)), timeout_s=20).status == -9


def test_a_child_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 60 & echo $! >{tmp_path}/pid; while :; do sleep 1; done"
    with pytest.raises(TimeOutError):
        run_child(["sh", "-c", script], timeout_s=0.5)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not runs(pid):
            break
        time.sleep(0.05)
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Whether the process is there and not merely unreaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_that_writes_for_ever_is_ended() -> None:
    with pytest.raises(TooMuchError):
        run_child(["yes"], timeout_s=20, most_bytes=100_000)


def test_an_interrupted_caller_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(["sh", "-c", f"echo $$ >{tmp_path}/pid; cat"], data=Interrupted(), timeout_s=20)
    assert not [
        path for path in tmp_path.glob("pid") if path.read_text() and Path(f"/proc/{path.read_text()}").exists()
    ]


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        run_child(["no-such-program-anywhere"], timeout_s=1)
    assert run_child([sys.executable, "-S", "-c", ""], timeout_s=20).status == 0
