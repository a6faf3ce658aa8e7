"""Rows of the published measurement tables, selected and joined to operator tables.

Which statistic: p50 of MLPerf inference logs, the stated figure of vendor tables, the median of MLPerf Tiny windows.
Rows marked `suspect` are never read. Repeats of one network on one device are joined by their geometric mean.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.engines import tflite_network
from tools.fitting import Row, amounts
from tools.networks import family

INFERENCE = "mlperf_inference_edge.csv"
VENDOR = "xnnpack_tflite_vendor.csv"
NETSPRESSO = "netspresso.csv"
NCNN = "ncnn.csv"
PHONES = "mobile_frameworks.csv"
TINY = "mlperf_tiny.csv"
MCU = "mcu_other.csv"
_TUNED = ("max_performance", "min_ram")  # variants that trade memory against time


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def joined(times_s: dict[str, list[float]], extra_channels: int, gathers_patches: bool) -> list[Row]:
    """One row per network that is defined here, in name order; the last two as in `LatencyModel`."""
    rows = []
    for model_id, values in sorted(times_s.items()):
        ops = tflite_network(model_id)
        if ops is not None:
            mean = float(np.exp(np.mean(np.log(values))))
            rows.append(Row(model_id, family(model_id), mean, amounts(ops, extra_channels, gathers_patches)))
    return rows


def inference_rows(
    folder: Path, device: str, version: str, backend: str, precision: str, extra_channels: int
) -> list[Row]:
    """MLPerf inference, SingleStream, p50, one runtime version on one device."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in read(folder, INFERENCE):
        key = (row["device"], row["runtime_version"], row["backend"], row["precision"], row["quality"])
        if key == (device, version, backend, precision, "ok"):
            times[row["model_id"]].append(float(row["latency_p50_ms"]) * 1e-3)
    return joined(times, extra_channels, gathers_patches=backend == "ruy")


@dataclass(frozen=True)
class VendorRows:
    """Rows of the vendors' tables: one device, words that the runtime or the note has, threads (empty: any)."""

    device: str
    words: str
    threads: str = ""
    factor: float = 1.0  # on the times

    def selects(self, row: dict[str, str]) -> bool:
        said = self.words in row["note"] or self.words in row["runtime"]
        return row["device"] == self.device and said and self.threads in ("", row["cores_used"])


def vendor_rows(folder: Path, wanted: VendorRows, precision: str, extra_channels: int) -> list[Row]:
    """The vendors' tables: XNNPACK's own and those of TensorFlow Lite, on a CPU."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in read(folder, VENDOR):
        key = (row["precision"], row["quality"], row["backend"])
        if wanted.selects(row) and key == (precision, "ok", "cpu"):
            times[row["model_id"]].append(float(row["latency_ms"]) * 1e-3 * wanted.factor)
    return joined(times, extra_channels, gathers_patches=False)


def netspresso_rows(folder: Path, device: str, precision: str, extra_channels: int) -> list[Row]:
    """NetsPresso's device matrix (LiteRT of 2024, quality `secondary`: threads and clock not stated).

    Files with fp16 weights compute in fp32 and stand for fp32. An int8 file slower than the fp16 file of the same
    network on the same device does not run in int8 throughout and is left out.
    """
    rows = [r for r in read(folder, NETSPRESSO) if r["device"] == device and r["runtime"] == "TFLite"]
    half = {r["model_id"]: float(r["latency_ms"]) for r in rows if r["precision"] == "fp16"}
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        model_id, latency_ms = row["model_id"], float(row["latency_ms"])
        if row["precision"] != ("int8" if precision == "int8" else "fp16") or row["quality"] == "suspect":
            continue
        if precision == "int8" and latency_ms > half.get(model_id, float("inf")):
            continue
        times[model_id].append(latency_ms * 1e-3)
    return joined(times, extra_channels, gathers_patches=False)


def tiny_rows(folder: Path, device: str, runtimes: tuple[tuple[str, str], ...], clock_mhz: float) -> list[Row]:
    """MLPerf Tiny int8 on one board, rescaled to another clock; variants tuned otherwise than the default left out."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in read(folder, TINY):
        if (row["device"], row["precision"], row["quality"]) != (device, "int8", "ok"):
            continue
        tuned = any(word in row["note"] for word in _TUNED)
        if (row["runtime"], row["runtime_version"]) in runtimes and not tuned:
            times[row["model_id"]].append(float(row["latency_ms"]) * 1e-3 * float(row["clock_mhz"]) / clock_mhz)
    return joined(times, 0, gathers_patches=True)


def engine_ratio(folder: Path, name: str, device: str, over: tuple[str, str], under: tuple[str, str]) -> list[float]:
    """log(time of one engine / time of another) for each network both ran on a device."""
    times: dict[tuple[str, str], dict[str, list[float]]] = {over: defaultdict(list), under: defaultdict(list)}
    for row in read(folder, name):
        engine = (row["runtime"], row["runtime_version"])
        if row["device"] == device and row["quality"] == "ok" and row["precision"] == "int8" and engine in times:
            times[engine][row["model_id"]].append(float(row["latency_ms"]))
    both = sorted(set(times[over]) & set(times[under]))
    return [float(np.mean(np.log(times[over][m])) - np.mean(np.log(times[under][m]))) for m in both]
