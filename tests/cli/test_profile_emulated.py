"""`edgeprune profile` with the aarch64 runtimes of an emulated board: as such, and as a board over ssh."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.boards.kit import Kit
from tests.cli.conftest import Command

pytestmark = pytest.mark.slow
AARCH64 = 183  # e_machine


@pytest.fixture
def file(exported: Callable[..., Any]) -> Path:
    """An int8 .tflite file whose answers are not all alike."""
    path: Path = exported("tflite", "residual").path
    return path


def test_a_profile_there_is_emulated_and_says_what_it_is(real_board: Kit, file: Path, command: Command) -> None:
    done = command("profile", str(file), "--target", "rpi4", "--device", "emulator", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["source"], found["target"], found["runs"], found["p50_ns"]) == ("emulated", "rpi4", 0, None)
    low, high = found["latency_interval_ns"]
    assert low < found["latency_ns"] < high
    assert found["board"]["differing"] == 0 and found["board"]["values"] == 10
    assert sum(found["board"]["classes"].values()) == found["board"]["instructions"]
    assert found["environment"]["machine"] == "aarch64"
    shown = command("profile", str(file), "--device", "emulator:rpi4")
    assert "estimate from what was counted" in shown.out and "(simulated)" in shown.out


def test_a_board_over_ssh_runs_the_aarch64_runtime(
    real_board: Kit, aarch64_board: tuple[str, Path], any_machine: None, file: Path, command: Command
) -> None:
    """A real sshd, whose commands run with the board's programs first on PATH, as on the board itself."""
    address, log = aarch64_board
    where = ("--device", address, "--threads", "1", "--at", "p50")
    done = command("profile", str(file), *where, "--target", "rpi4", "--runs", "20", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert "aarch64" in found["environment"]["system"] and "glibc2.36" in found["environment"]["system"]
    assert found["runtime_version"].startswith("ai-edge-litert")
    assert "--model" in log.read_text() and struct.unpack_from("<H", real_board.python.read_bytes(), 18) == (AARCH64,)
