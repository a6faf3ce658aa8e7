"""A device whose operators cost what is written here, in the arithmetic of its own kernels, with noise as asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.backends import tflite
from edgeprune.calibration.design import Entry, design
from edgeprune.calibration.store import Machine
from edgeprune.device.fusion import absorb_padding
from edgeprune.device.ops import Op
from edgeprune.timing import Turns

ROWS, OUTPUTS, INPUTS, LANES = 4, 8, 16, 32  # of a tile, and of a vector of the depthwise kernel
CALL_S = 2e-6
MACHINE = Machine(cpu="Planted 9000", cores=3, system="Nowhere")
VERSION = "planted 1.0"


def _tiles(size: int, tile: int) -> int:
    return (size + tile - 1) // tile


def op_s(op: Op) -> float:
    """Seconds of one operator."""
    if op.kind in ("conv", "dense", "matmul"):
        taps, groups = (op.kernel, op.groups) if op.kind == "conv" else (1, 1)
        blocks = groups * _tiles(op.out_positions, ROWS) * _tiles(op.out_channels // groups, OUTPUTS)
        steps = taps * _tiles(op.in_channels // groups, INPUTS)
        return 3e-7 + blocks * (5e-9 + steps * 8e-9)
    if op.kind == "depthwise":
        return 4e-7 + op.out_positions * (1e-9 + _tiles(op.out_channels, LANES) * op.kernel * 2e-9)
    if op.function == "hard_swish":
        return 2e-7 + 3e-9 * op.out_elements
    return 2e-7 + 2e-10 * (op.in_elements + op.out_elements) + 1e-10 * op.out_elements * op.kernel


@cache
def written(scale: float) -> tuple[tuple[Entry, tuple[Op, ...]], ...]:
    """The design with the operators in its files."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for entry in design(scale):
            path = Path(folder) / "net.tflite"
            tflite.write_network(entry.network, path, "int8")
            found.append((entry, absorb_padding(tflite.read_ops(path))))
    return tuple(found)


def total_s(ops: Sequence[Op]) -> float:
    """Seconds of one inference."""
    return CALL_S + sum(map(op_s, ops))


class PlantedBench:
    """Times files as the planted device does.

    Args:
        noise: Standard deviation (log) of every sample.
        speeds: Factor on all times of each call, from a slow start to its end; the last one stays. (1, 1) is steady.
    """

    def __init__(self, noise: float = 0.0, speeds: Sequence[tuple[float, float]] = ((1.0, 1.0),)) -> None:
        self.noise, self.speeds, self.calls = noise, tuple(speeds), 0

    def __call__(self, turns: Turns) -> Mapping[str, Any]:
        paths, runs = turns.paths, turns.runs
        first, last = self.speeds[min(self.calls, len(self.speeds) - 1)]
        self.calls += 1
        factors = np.linspace(first, last, runs)
        seconds = [total_s(_ops(str(path), path.stat().st_size)) for path in paths]
        samples_ns = []
        for path, own in zip(paths, seconds):
            random = np.random.default_rng([self.calls, *path.name.encode()])
            samples_ns.append((own * 1e9 * factors * np.exp(self.noise * random.standard_normal(runs))).tolist())
        return {"samples_ns": samples_ns, "before": {"clock_mhz": "1000"}, "after": {"clock_mhz": "1010"}}


@cache
def _ops(path: str, size: int) -> tuple[Op, ...]:
    return absorb_padding(tflite.read_ops(Path(path)))
