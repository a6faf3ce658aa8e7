"""Which rows each shipped profile rests on, and how rows of another runtime or board are carried over.

Boards: the prices are fitted on one runtime with many rows (MLPerf inference, TFLite with ruy) and then, as the prior
with a wide spread and a free scale, on the few rows of what is deployed (XNNPACK's own table, NetsPresso's LiteRT
rows). The band is the 80 % interval of Student's t over the residuals of those few rows, each predicted without its
network family in either step, int8 and fp32 of a board together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from tools import rows as tables
from tools.engines import EXTRA_CHANNELS
from tools.fitting import BOARD_PRIOR, Prior, Row, fit, left_out, predict

# How far a price may move between the runtime of the many rows and the deployed one (log), and the noise of the few.
# 0.3 and 0.5 left larger errors on left-out families; larger than 0.8 was not tried.
TRANSFER_SIGMAS = (0.8, 0.8, 0.8, 0.8, 0.8, 0.5)
TRANSFER_NOISE = 0.1
COVERAGE = 0.8


@dataclass(frozen=True)
class Fitted:
    """One latency model with its provenance, ready to be written."""

    runtime: str
    precision: str
    threads: int
    prices_s: tuple[float, ...]
    extra_channels: int
    band: tuple[float, float]
    source: str
    provenance: dict[str, Any] = field(default_factory=dict)


def errors(logs: list[float]) -> dict[str, float]:
    """Median and p90 of |estimate / measured - 1|, and the share within 10 %."""
    relative = np.abs(np.expm1(-np.asarray(logs)))
    return {
        "median": float(np.median(relative)),
        "p90": float(np.quantile(relative, 0.9)),
        "within_10_percent": float(np.mean(relative <= 0.1)),
    }


def band_of(logs: list[float], spread: float = 0.0, count: int | None = None) -> tuple[float, float]:
    """80 % interval of measured over estimated time: Student's t on the left-out residuals, about zero.

    Args:
        spread: Standard deviation (log) of a further, independent uncertainty.
        count: Number of independent residuals where some belong together.
    """
    deviation = float(np.sqrt(np.mean(np.square(logs)) + spread**2))
    half = float(student.ppf(0.5 + COVERAGE / 2, df=count or len(logs))) * deviation
    return float(np.exp(-half)), float(np.exp(half))


def holds(band: tuple[float, float], logs: list[float]) -> float:
    """Share of left-out rows inside the band."""
    ratios = np.exp(logs)
    return float(np.mean((ratios >= band[0]) & (ratios <= band[1])))


def listing(rows: list[Row]) -> dict[str, Any]:
    return {"rows": len(rows), "families": sorted({row.family for row in rows})}


def _transfer_logs(base: list[Row], few: list[Row]) -> list[float]:
    """Residuals of the few rows, each without its family in both steps."""
    logs = []
    for name in sorted({row.family for row in few}):
        prices = _carried([r for r in base if r.family != name], [r for r in few if r.family != name])
        logs += [float(np.log(row.measured_s / predict(row, prices))) for row in few if row.family == name]
    return logs


def _carried(base: list[Row], few: list[Row]) -> tuple[float, ...]:
    prior = Prior(fit(base, BOARD_PRIOR), TRANSFER_SIGMAS, scale_free=True)
    return fit(few, prior, TRANSFER_NOISE)


def _board(
    base: Callable[[str], list[Row]], few: Callable[[str], list[Row]], base_name: str, few_name: str, threads: int
) -> list[Fitted]:
    """int8 and fp32 models of a board that run XNNPACK, from the many rows of `base` and the few of `few`."""
    logs = {precision: _transfer_logs(base(precision), few(precision)) for precision in ("int8", "fp32")}
    band = band_of([*logs["int8"], *logs["fp32"]])
    models = []
    for precision in ("int8", "fp32"):
        many, deployed = base(precision), few(precision)
        provenance = {
            "base": {"what": base_name, **listing(many)},
            "base_left_out_model": errors(left_out(many, BOARD_PRIOR, "model_id")),
            "base_left_out_family": errors(left_out(many, BOARD_PRIOR, "family")),
            "deployed": {"what": few_name, **listing(deployed)},
            "deployed_left_out_family": errors(logs[precision]),
            "deployed_rows": [
                {"network": row.model_id, "measured_s": row.measured_s, "measured_over_estimated": ratio}
                for row, ratio in _by_family(deployed, np.exp(logs[precision]).tolist())
            ],
            "band": "t interval over the left-out rows of what is deployed, int8 and fp32 together",
            "band_holds_of_base": holds(band, left_out(many, BOARD_PRIOR, "family")),
            "band_holds_of_deployed": holds(band, [*logs["int8"], *logs["fp32"]]),
        }
        source = (
            f"fitted on {len(many)} networks ({base_name}), carried over to LiteRT with XNNPACK on "
            f"{len(deployed)} ({few_name}); 80 % band {band[0]:.2f}-{band[1]:.2f} from left-out families"
        )
        prices = _carried(many, deployed)
        models.append(Fitted("tflite", precision, threads, prices, EXTRA_CHANNELS[precision], band, source, provenance))
    return models


def _by_family(rows: list[Row], values: list[float]) -> list[tuple[Row, float]]:
    ordered = [row for name in sorted({r.family for r in rows}) for row in rows if row.family == name]
    return list(zip(ordered, values, strict=True))


def rpi4(folder: Path) -> list[Fitted]:
    return _board(
        lambda p: tables.inference_rows(folder, "Raspberry Pi 4B", "2.7.1", "ruy", p, EXTRA_CHANNELS[p]),
        lambda p: [
            *tables.vendor_rows(folder, "Raspberry Pi 4B", "arm64", p, EXTRA_CHANNELS[p]),
            *tables.netspresso_rows(folder, "Raspberry Pi 4B", p, EXTRA_CHANNELS[p]),
        ],
        "Raspberry Pi 4, TFLite 2.7.1 with ruy, 4 threads",
        "Raspberry Pi 4, XNNPACK 2022 arm64 and NetsPresso LiteRT",
        threads=4,
    )


def rpi5(folder: Path) -> list[Fitted]:
    return _board(
        lambda p: tables.inference_rows(folder, "Firefly ROC-RK3588S", "2.11.0", "ruy", p, EXTRA_CHANNELS[p]),
        lambda p: tables.netspresso_rows(folder, "Raspberry Pi 5", p, EXTRA_CHANNELS[p]),
        "RK3588S (the same Cortex-A76 cores), TFLite 2.11 with ruy, 8 threads",
        "Raspberry Pi 5, NetsPresso LiteRT",
        threads=4,
    )


def rpi_zero2w(folder: Path) -> list[Fitted]:
    clocks = 1400 / 1000  # the vendor table's board has the same cores at 1.4 GHz
    return _board(
        lambda p: tables.inference_rows(folder, "Raspberry Pi 4B", "2.7.1", "ruy", p, EXTRA_CHANNELS[p]),
        lambda p: [
            *tables.vendor_rows(folder, "Raspberry Pi 3B+", "armv7", p, EXTRA_CHANNELS[p], clocks),
            *tables.netspresso_rows(folder, "Raspberry Pi Zero 2 W", p, EXTRA_CHANNELS[p]),
        ],
        "Raspberry Pi 4, TFLite 2.7.1 with ruy, 4 threads",
        "Raspberry Pi 3B+ (same cores, times x 1.4 for the clock), XNNPACK 2022, and Zero 2 W, NetsPresso LiteRT",
        threads=4,
    )


HOST_BAND = (0.33, 3.0)


def _host(runtime: str) -> Callable[[Path], list[Fitted]]:
    def recipe(folder: Path) -> list[Fitted]:
        models = []
        for precision in ("int8", "fp32"):
            extra = EXTRA_CHANNELS[precision]
            rows = tables.inference_rows(folder, "Ryzen 5 5625U laptop", "master", "xnnpack", precision, extra)
            provenance = {
                "base": {"what": "Ryzen 5 5625U, TFLite with XNNPACK", **listing(rows)},
                "base_left_out_model": errors(left_out(rows, BOARD_PRIOR, "model_id")),
                "base_left_out_family": errors(left_out(rows, BOARD_PRIOR, "family")),
                "band": "stated, not judged: this machine is measured, the profile only starts the solver",
            }
            source = (
                f"a first guess for the solver from {len(rows)} networks on another x86 machine "
                "(TFLite with XNNPACK; their rate is that of one thread); this machine is measured"
            )
            prices = fit(rows, BOARD_PRIOR)
            models.append(Fitted(runtime, precision, 1, prices, extra, HOST_BAND, source, provenance))
        return models

    return recipe


RECIPES: dict[tuple[str, str], Callable[[Path], list[Fitted]]] = {
    ("host", "tflite"): _host("tflite"),
    ("host", "onnxruntime"): _host("onnxruntime"),
    ("host", "openvino"): _host("openvino"),
    ("rpi4", "tflite"): rpi4,
    ("rpi5", "tflite"): rpi5,
    ("rpi-zero2w", "tflite"): rpi_zero2w,
}
