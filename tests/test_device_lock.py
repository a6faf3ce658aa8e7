"""The lock on a device: turns are taken across processes, and a lock ends with its process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from edgeprune.device_lock import device_lock


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_no_two_processes_hold_one_device(tmp_path: Path) -> None:
    """Each counts up while it holds the device; none of the steps is lost."""
    script = """
        import sys
        from pathlib import Path
        from edgeprune.device_lock import device_lock
        count = Path(sys.argv[1])
        for _ in range(200):
            with device_lock("host"):
                count.write_text(str(int(count.read_text()) + 1))
    """
    count = tmp_path / "count"
    count.write_text("0")
    both = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(count)]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert count.read_text() == "400"


def test_who_waits_says_so_and_goes_on_when_the_holder_is_killed(tmp_path: Path) -> None:
    script = """
        import sys
        from edgeprune.device_lock import device_lock
        with device_lock("host"), device_lock("ssh://board"):
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"

    class Heard:
        lines: list[str] = []

        def note(self, text: str) -> None:
            self.lines.append(text)
            holder.kill()

        def track(self, items: list[int], label: str, total: int | None = None) -> list[int]:
            return items

    with device_lock("host", Heard()):  # type: ignore[arg-type]
        assert Heard.lines == ["waiting for host: another process measures on it"]
    holder.communicate(timeout=30)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "edgeprune-host.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), device_lock("host"):
        pass
    assert not (tmp_path / "elsewhere").exists()
