"""Folders of published rows of planted prices, for tests of what reads them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tools import rows as tables
from tools.engines import ENGINES

TFLITE_NETWORKS = [f"mobilenet_v{v}_{w}_{s}" for v in (1, 2) for w in (0.5, 1.0) for s in (128, 192)] + [
    "mobilenet_v3_large_1.0_224",
    "mobilenet_v3_small_1.0_224",
    "efficientnet_lite0",
    "resnet50_v1.5_224",
]
NCNN_NETWORKS = [
    "squeezenet_1.1_227", "mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224", "mobilenet_v3_large_1.0_224",
    "shufflenet_v2_1.0_224", "mnasnet_1.0_224", "efficientnet_b0_224", "ncnn_regnety_400m", "googlenet_224",
    "resnet18_224", "vgg16_224", "ncnn_yolov4_tiny",
]  # fmt: skip
PRICES = (2e-11, 7e-11, 1.5e-10, 5e-10, 3e-10, 1.5e-5)
_COLUMNS = (
    "device", "core", "clock_mhz", "cores_used", "runtime", "runtime_version", "precision", "latency_ms", "note",
    "model_id", "latency_min_ms", "latency_p50_ms", "backend", "quality",
)  # fmt: skip


def write_table(folder: Path, name: str, rows: Iterable[Mapping[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def inference_row(model_id: str, seconds: float, **other: object) -> dict[str, object]:
    row: dict[str, object] = {
        "device": "board", "core": "Cortex-A72", "clock_mhz": "1500", "cores_used": "4", "runtime": "TFLite",
        "runtime_version": "2.7", "precision": "int8", "latency_ms": 1e3 * seconds * 1.05, "model_id": model_id,
        "latency_p50_ms": 1e3 * seconds, "backend": "ruy", "quality": "ok",
    }  # fmt: skip
    return {**row, **other}


def seconds_of(model_id: str, prices: Iterable[float] = PRICES, engine: str = "ruy", precision: str = "int8") -> float:
    ops = ENGINES[engine].network(model_id)
    assert ops is not None
    return float(np.dot(ENGINES[engine].amounts(ops, precision), tuple(prices)))


def write_boards(folder: Path, noise: float = 0.0, names: Iterable[str] = TFLITE_NETWORKS) -> None:
    """Two boards of one core, the second twice as fast, and one of another core."""
    random = np.random.default_rng(0)
    boards = (("one", "Cortex-A72", "1500", 1.0), ("two", "Cortex-A72", "3000", 0.5), ("three", "Cortex-A53", "", 3.0))
    rows = [
        inference_row(
            name,
            scale * seconds_of(name) * float(np.exp(noise * random.standard_normal())),
            device=device,
            core=core,
            clock_mhz=clock,
        )
        for device, core, clock, scale in boards
        for name in names
    ]
    write_table(folder, tables.INFERENCE, rows)


def write_ncnn(folder: Path) -> None:
    """Three boards whose prices keep the engine's ratios, at different speeds."""
    *ratios, per_op_s = ENGINES["ncnn"].prior.prices_s
    rows = [
        {
            "device": f"board{place}", "core": "Cortex-A53", "clock_mhz": "1500", "cores_used": "1",
            "runtime": "ncnn", "precision": "fp32", "model_id": name, "backend": "cpu", "quality": "ok",
            "latency_min_ms": 1e3 * seconds_of(name, (*(scale * ratio for ratio in ratios), per_op_s), "ncnn", "fp32"),
        }
        for place, scale in enumerate((20.0, 30.0, 45.0))
        for name in NCNN_NETWORKS
    ]  # fmt: skip
    write_table(folder, tables.NCNN, rows)
