"""Device model of an Espressif chip from the kernel times that ESP-NN's authors publish.

Each kernel is an operator of its own, so the six prices follow from the kernels alone and whole networks are left to
judge them.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.device.latency import work
from edgeprune.device.ops import Op
from tools.fitting import Prior, Row, fit
from tools.mcu_fitting import KERNELS, OTHER, work_of

KERNEL_TABLE = "kernels_esp_nn.csv"
# Vector kernels like Helium's; how far a price may lie from their counts (log), the common scale free.
SIGMAS = (0.5, 0.7, 0.5, 0.8, 0.5, 0.5)
NOISE = 0.1


def operator(kernel: str, shape: str) -> Op | None:
    """The operator that a row of the table timed; None for kinds that are not priced by their own."""
    sizes = [int(number) for number in re.findall(r"\d+", shape)]
    if kernel == "convolution":
        height, width, out, kh, kw, channels = sizes[:6]
        positions = (height - kh + 1) * (width - kw + 1)
        return Op("k", "conv", ("x",), "k", channels, out, height * width, positions, kernel=kh * kw)
    if kernel == "depthwise conv" and (found := re.search(r"filter: (\d+)x(\d+)x(\d+)x(\d+)", shape)):
        multiplier, kh, _, channels = (int(number) for number in found.groups())
        side, width = sizes[0] + 2 * sizes[2] - kh + 1, multiplier * channels
        return Op("k", "depthwise", ("x",), "k", width, width, sizes[0] ** 2, side**2, kernel=kh * kh, groups=width)
    if kernel in ("elementwise_add", "elementwise_mul"):
        kind = "add" if kernel.endswith("add") else "mul"
        return Op("k", kind, ("x", "y"), "k", 1, 1, sizes[0], sizes[0])
    if kernel in ("max pool", "avg pool"):
        height, width, _, kh, kw, channels = sizes[:6]
        positions = (height - kh + 1) * (width - kw + 1)
        return Op("k", "pool", ("x",), "k", channels, channels, height * width, positions, kernel=kh * kw)
    if kernel == "fully connected":
        return Op("k", "dense", ("x",), "k", sizes[0], sizes[1])
    return None


def rows(folder: Path, device: str) -> list[Row]:
    """Kernel times of one chip."""
    found = []
    for entry in _read(folder / KERNEL_TABLE):
        op = operator(entry["kernel_s8"], entry["shape"]) if entry["device"] == device else None
        if op is not None:
            seconds = float(entry["ticks_optimized"]) / float(entry["clock_mhz"]) * 1e-6
            amounts = tuple(float(amount) for amount in work(op, 0, True))
            found.append(Row(f"{entry['kernel_s8']} {entry['shape']}", entry["kernel_s8"], seconds, amounts))
    return found


def fitted(folder: Path, device: str) -> tuple[list[Row], tuple[float, ...]]:
    """The kernel rows and the prices in seconds that they give."""
    found = rows(folder, device)
    cycle_s = 1e-6 / float(next(e["clock_mhz"] for e in _read(folder / KERNEL_TABLE) if e["device"] == device))
    prior = Prior(tuple(count * cycle_s for count in KERNELS["helium"]), SIGMAS)
    return found, fit(found, prior, NOISE)


def judged(folder: Path, device: str, prices_s: tuple[float, ...]) -> list[dict[str, Any]]:
    """Whole networks on the chip with ESP-NN against the estimate, and whether their activations lie outside it."""
    entries = []
    for entry in _read(folder / OTHER):
        amounts = work_of(entry["model_id"])
        if (entry["device"], entry["runtime"]) == (device, "TFLM+ESP-NN") and amounts is not None:
            measured_s = float(entry["latency_ms"]) * 1e-3
            entries.append(
                {
                    "network": entry["model_id"],
                    "measured_s": measured_s,
                    "measured_over_estimated": measured_s / float(np.dot(amounts, prices_s)),
                    "external_memory": "SPIRAM" in entry["note"],
                }
            )
    return entries


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
