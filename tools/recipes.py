"""What every recipe of a shipped profile shares, and the recipe of this machine's first guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from tools import rows as tables
from tools.engines import EXTRA_CHANNELS
from tools.fitting import BOARD_PRIOR, Row, fit, left_out

TRANSFER_NOISE = 0.1  # of a few rows of several sources (log)
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
}
