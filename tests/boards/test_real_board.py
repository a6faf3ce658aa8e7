"""With QEMU and the aarch64 builds of the runtimes: what runs, what does not, and counts that repeat."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.boards.execution import execute
from edgeprune.boards.kit import Kit
from edgeprune.cost import Source
from edgeprune.errors import UsageError
from edgeprune.links import emulator
from edgeprune.profiling import profile

pytestmark = pytest.mark.slow
AARCH64 = 183  # e_machine


def machine_of(file: Path) -> int:
    """For which architecture an ELF file is."""
    head = file.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    return int(struct.unpack_from("<H", head, 18)[0])


@pytest.fixture
def file(exported: Callable[..., Any]) -> Path:
    """An int8 .tflite file whose answers are not all alike."""
    path: Path = exported("tflite", "residual").path
    return path


def test_its_own_runtime_answers_bit_for_bit_and_counts_the_same_twice(
    real_board: Kit, file: Path, small_net: Any, tmp_path: Path
) -> None:
    samples = small_net("residual").samples
    np.save(tmp_path / "inputs.npy", samples[:1])
    here = execute(file, "tflite", None, runs=1, inputs=tmp_path / "inputs.npy")
    first, second = (execute(file, "tflite", real_board, inputs=tmp_path / "inputs.npy") for _ in range(2))
    assert first.machine == "aarch64" and first.version == here.version and first.precision == "int8"
    assert len(np.unique(here.outputs[0])) > 2 and np.array_equal(first.outputs[0], here.outputs[0])
    runtimes = [Path(name) for name in first.libraries if "ai_edge_litert" in name]
    assert runtimes and all(machine_of(path) == AARCH64 for path in runtimes)
    assert first.tallies[-1] == second.tallies[-1]
    macs = small_net("residual").macs
    assert 0.05 * macs < first.tallies[-1].classes["long_multiply"] * 8 < 10 * macs  # a multiply has 8 lanes
    assert first.tallies[-1].classes["dot"] == first.tallies[-1].classes["sve"] == 0  # no Cortex-A72 has them
    assert first.tallies[0].instructions > first.tallies[-1].instructions > first.tallies[-1].l1_misses > 0


def test_without_fitted_prices_there_is_no_latency(real_board: Kit, exported: Callable[..., Any]) -> None:
    path = exported("onnxruntime", "residual").path
    found = profile(path, real_board.target, device=emulator.board(real_board.target))
    assert found.cost.source is Source.EMULATED and found.cost.latency_s is None
    assert any(note.startswith("no latency: nothing is fitted for onnxruntime") for note in found.notes)
    assert found.board is not None and found.board.instructions > 10_000
    assert found.board.difference <= 0.05 * found.board.largest


def test_a_file_that_the_core_cannot_load_is_refused_by_name(real_board: Kit, exported: Callable[..., Any]) -> None:
    """OpenVINO's int8 kernels of depthwise layers ask for more than a Cortex-A72 has."""
    path = exported("openvino", "depthwise").path
    with pytest.raises(UsageError, match="openvino on an emulated rpi4 cannot run it") as caught:
        execute(path, "openvino", real_board)
    assert caught.value.where == str(path) and caught.value.exit_code == 2
