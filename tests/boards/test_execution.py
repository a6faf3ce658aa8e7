"""Running a file there and here: what is said of it, what memory counts, what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgeprune.boards import execution, kit, plugin
from edgeprune.boards.execution import anonymous_bytes, execute
from edgeprune.errors import DeviceError, UsageError
from edgeprune.target import load_target
from tests.boards import stand_in
from tests.links.devices import executable

SMAPS = """\
00400000-00916000 r-xp 00000000 fe:00 2575951                            /root/usr/bin/python3.11
Rss:                1000 kB
Anonymous:             0 kB
5581aa000000-5581ab000000 rw-p 00000000 00:00 0                          [heap]
Rss:                2000 kB
7f00aa000000-7f00ab000000 rwxp 00000000 00:00 0 
Rss:                4000 kB
7f00ac000000-7f00ad000000 rw-p 00000000 00:00 0 
Size:              16384 kB
Rss:                   9 kB
Swap:                  3 kB
7f00ae000000-7f00af000000 r--p 00000000 00:00 0 
Rss:                   8 kB
7ffdaa000000-7ffdab000000 rw-p 00000000 00:00 0                          [stack]
Rss:                 100 kB
"""  # noqa: W291


def test_memory_without_a_name_that_is_no_code_counts() -> None:
    assert anonymous_bytes(SMAPS) == 20 * 1024
    assert anonymous_bytes("") == 0
    own = Path(f"/proc/{os.getpid()}/smaps").read_text()
    before, held = anonymous_bytes(own), np.ones(64 << 20, np.uint8)  # so much is never taken from what is free
    after = anonymous_bytes(Path(f"/proc/{os.getpid()}/smaps").read_text())
    assert abs(after - before - held.nbytes) < 4 << 20


def test_a_file_runs_here_without_counts(small_tflite: Path) -> None:
    found = execute(small_tflite, "tflite", None, runs=1)
    assert found.precision == "int8" and found.tallies == () and found.machine == os.uname().machine
    assert [output.shape for output in found.outputs] == [(1, 16, 16, 32)]
    assert any("litert" in name for name in found.libraries)
    again = execute(small_tflite, "tflite", None, runs=2, delegates=False)
    distance = np.abs(found.outputs[0].astype(int) - again.outputs[0].astype(int))
    assert distance.max() <= 1 and found.outputs[0].std() > 1  # XNNPACK's kernels and TFLite's own round otherwise


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x" * 100)
    with pytest.raises(UsageError, match="tflite on this machine cannot run it") as caught:
        execute(tmp_path / "m.tflite", "tflite", None)
    assert caught.value.where == str(tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo gone >&2; exit 7", DeviceError, "tflite on an emulated rpi4 cannot be loaded: gone"),
        ("kill -s ILL $$", UsageError, "ended by SIGILL"),
        ("exit 139", UsageError, "ended by SIGSEGV"),
        ("echo '{}'; read x; echo oh >&2; exit 1", UsageError, "cannot run it: oh"),
        ("exec sleep 60", DeviceError, "no answer within"),
    ],
)
def test_what_the_emulator_does_not_run(
    script: str, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.board(tmp_path, monkeypatch)
    monkeypatch.setattr(plugin, "option", lambda emulated, counts: [])
    monkeypatch.setattr(execution, "_TIMEOUT_S", 2.0)
    executable(tmp_path / "qemu" / kit.QEMU, f"#!/bin/sh\n{script}\n")
    (tmp_path / "m.tflite").write_bytes(b"x")
    with pytest.raises(kind, match=message):
        execute(tmp_path / "m.tflite", "tflite", kit.kit_of(load_target("rpi4"), counting=False))
    monkeypatch.setattr("shutil.which", lambda name: "/nowhere/qemu-aarch64")
    with pytest.raises(DeviceError, match="/nowhere/qemu-aarch64 cannot be started"):
        execute(tmp_path / "m.tflite", "tflite", kit.kit_of(load_target("rpi4"), counting=False))
