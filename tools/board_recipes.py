"""Which rows each board's and phone's LiteRT profile rests on, and how rows of another runtime are carried over.

The prices are fitted on one runtime with many rows (MLPerf inference, TFLite with ruy) and then, as the prior with a
wide spread and a free scale, on the few rows of what is deployed (XNNPACK's own table, NetsPresso's LiteRT rows). The
band is the 80 % interval of Student's t over the residuals of those few rows, each predicted without its network family
in either step, int8 and fp32 of a board together.

A board that has only ruy's rows borrows the step from ruy to XNNPACK from the boards that have both; its band is that
of those boards' rows, each board estimated with the step of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools import rows as tables
from tools.engines import EXTRA_CHANNELS
from tools.fitting import BOARD_PRIOR, Prior, Row, fit, left_out, predict
from tools.recipes import TRANSFER_NOISE, Fitted, band_of, errors, holds, listing

# How far a price may move between the runtime of the many rows and the deployed one (log), and the noise of the few.
# 0.3 and 0.5 left larger errors on left-out families; larger than 0.8 was not tried.
TRANSFER_SIGMAS = (0.8, 0.8, 0.8, 0.8, 0.8, 0.5)
_BOTH = ("int8", "fp32")


@dataclass(frozen=True)
class Many:
    """Rows of TFLite with ruy on one board."""

    device: str
    version: str
    what: str

    def rows(self, folder: Path, precision: str) -> list[Row]:
        extra = EXTRA_CHANNELS[precision]
        return tables.inference_rows(folder, self.device, self.version, "ruy", precision, extra)


@dataclass(frozen=True)
class Few:
    """Rows of what is deployed, or near to it.

    Attributes:
        vendor: Device, words of the note and of the threads that must agree, factor on the times: of the XNNPACK and
            TensorFlow Lite tables.
        netspresso: Device in NetsPresso's matrix; empty for none.
    """

    what: str
    vendor: tuple[tables.VendorRows, ...] = ()
    netspresso: str = ""

    def rows(self, folder: Path, precision: str) -> list[Row]:
        extra = EXTRA_CHANNELS[precision]
        found = [row for part in self.vendor for row in tables.vendor_rows(folder, part, precision, extra)]
        if self.netspresso:
            found += tables.netspresso_rows(folder, self.netspresso, precision, extra)
        return found


PI4 = Many("Raspberry Pi 4B", "2.7.1", "Raspberry Pi 4, TFLite 2.7.1 with ruy, 4 threads")
RK3588 = Many("Firefly ROC-RK3588S", "2.11.0", "RK3588S, TFLite 2.11 with ruy, 8 threads")
RK3399 = Many("Firefly RK3399", "2.5.0", "RK3399, TFLite 2.5 with ruy, 6 threads")
ODROID = Many("ODROID-N2+", "2.11.0", "ODROID-N2+, TFLite 2.11 with ruy, 6 threads")
ON_PI4 = Few(
    "Raspberry Pi 4, XNNPACK 2022 arm64 and NetsPresso LiteRT",
    (tables.VendorRows("Raspberry Pi 4B", "arm64"),),
    "Raspberry Pi 4B",
)
ON_PI5 = Few("Raspberry Pi 5, NetsPresso LiteRT", (), "Raspberry Pi 5")
ON_PI3 = Few(
    "Raspberry Pi 3B+, XNNPACK 2022 armv7 and NetsPresso LiteRT",
    (tables.VendorRows("Raspberry Pi 3B+", "armv7"),),
    "Raspberry Pi 3B+",
)
ON_ZERO = Few(
    "Raspberry Pi 3B+ (same cores, times x 1.4 for the clock), XNNPACK 2022, and Zero 2 W, NetsPresso LiteRT",
    (tables.VendorRows("Raspberry Pi 3B+", "armv7", factor=1400 / 1000),),
    "Raspberry Pi Zero 2 W",
)


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


def _base_facts(many: Many, rows: list[Row], band: tuple[float, float]) -> dict[str, Any]:
    by_family = left_out(rows, BOARD_PRIOR, "family")
    return {
        "base": {"what": many.what, **listing(rows)},
        "base_left_out_model": errors(left_out(rows, BOARD_PRIOR, "model_id")),
        "base_left_out_family": errors(by_family),
        "band_holds_of_base": holds(band, by_family),
    }


def _carried_over(
    folder: Path, many: Many, few: Few, threads: int, precisions: tuple[str, ...] = _BOTH
) -> list[Fitted]:
    """Models of a device that runs XNNPACK, from the many rows of another runtime and the few of its own."""
    rows = {precision: (many.rows(folder, precision), few.rows(folder, precision)) for precision in precisions}
    logs = {precision: _transfer_logs(base, deployed) for precision, (base, deployed) in rows.items()}
    every = [log for own in logs.values() for log in own]
    band = band_of(every)
    models = []
    for precision, (base, deployed) in rows.items():
        provenance = {
            **_base_facts(many, base, band),
            "deployed": {"what": few.what, **listing(deployed)},
            "deployed_left_out_family": errors(logs[precision]),
            "deployed_rows": [
                {"network": row.model_id, "measured_s": row.measured_s, "measured_over_estimated": ratio}
                for row, ratio in _by_family(deployed, np.exp(logs[precision]).tolist())
            ],
            "band": f"t interval over the left-out rows of what is deployed, {' and '.join(precisions)} together",
            "band_holds_of_deployed": holds(band, every),
        }
        source = (
            f"fitted on {len(base)} networks ({many.what}), carried over to LiteRT with XNNPACK on "
            f"{len(deployed)} ({few.what}); 80 % band {band[0]:.2f}-{band[1]:.2f} from left-out families"
        )
        prices = _carried(base, deployed)
        models.append(Fitted("tflite", precision, threads, prices, EXTRA_CHANNELS[precision], band, source, provenance))
    return models


def _by_family(rows: list[Row], values: list[float]) -> list[tuple[Row, float]]:
    ordered = [row for name in sorted({r.family for r in rows}) for row in rows if row.family == name]
    return list(zip(ordered, values, strict=True))


# Boards with rows of both runtimes; the Pi 5 stands on the RK3588S, which has its cores.
_DONORS = ((PI4, ON_PI4), (RK3588, ON_PI5))


def _step(folder: Path, precision: str, donors: Sequence[tuple[Many, Few]]) -> np.ndarray:
    """Mean logarithms of what each price is multiplied by from ruy to XNNPACK."""
    steps = []
    for many, few in donors:
        base, deployed = many.rows(folder, precision), few.rows(folder, precision)
        steps.append(np.log(_carried(base, deployed)) - np.log(fit(base, BOARD_PRIOR)))
    return np.asarray(np.mean(steps, axis=0))


def _borrowed_logs(folder: Path, precision: str) -> list[float]:
    """Residuals of each donor's deployed rows under the step of the other donors."""
    logs = []
    for donor in _DONORS:
        others = [other for other in _DONORS if other is not donor]
        base = fit(donor[0].rows(folder, precision), BOARD_PRIOR)
        prices = np.exp(np.log(base) + _step(folder, precision, others))
        logs += [float(np.log(row.measured_s / np.dot(row.work, prices))) for row in donor[1].rows(folder, precision)]
    return logs


def _borrowed(folder: Path, many: Many, threads: int, precisions: tuple[str, ...] = _BOTH) -> list[Fitted]:
    """Models of a board without rows of XNNPACK: ruy's prices and the other boards' step from the one to the other."""
    logs = {precision: _borrowed_logs(folder, precision) for precision in _BOTH}
    every = [log for own in logs.values() for log in own]
    band = band_of(every, count=len(_DONORS))  # rows of one board share their error
    models = []
    for precision in precisions:
        base = many.rows(folder, precision)
        provenance = {
            **_base_facts(many, base, band),
            "step": {"from": [few.what for _, few in _DONORS], "rows": len(every)},
            "step_left_out_board": errors(logs[precision]),
            "band": "t interval over the other boards' rows, each board under the step of the others, few boards",
            "band_holds_of_deployed": holds(band, every),
        }
        source = (
            f"fitted on {len(base)} networks ({many.what}); the step to LiteRT with XNNPACK is that of other boards; "
            f"80 % band {band[0]:.2f}-{band[1]:.2f} from boards left out"
        )
        prices = np.exp(np.log(fit(base, BOARD_PRIOR)) + _step(folder, precision, _DONORS))
        prices_s = tuple(float(price) for price in prices)
        models.append(
            Fitted("tflite", precision, threads, prices_s, EXTRA_CHANNELS[precision], band, source, provenance)
        )
    return models


def _phone(
    device: str, words: str, what: str, threads: int, precisions: tuple[str, ...]
) -> Callable[[Path], list[Fitted]]:
    """A phone with rows in a vendor's table; the ratios of prices start from the Pi 4's."""
    few = Few(what, (tables.VendorRows(device, words, threads=str(threads)),))
    return partial(_carried_over, many=PI4, few=few, threads=threads, precisions=precisions)


_XNNPACK = "XNNPACK 2020, 1 thread"
BOARD_RECIPES: dict[tuple[str, str], Callable[[Path], list[Fitted]]] = {
    ("rpi3b-plus", "tflite"): partial(_carried_over, many=PI4, few=ON_PI3, threads=4),
    ("rpi4", "tflite"): partial(_carried_over, many=PI4, few=ON_PI4, threads=4),
    ("rpi5", "tflite"): partial(_carried_over, many=RK3588, few=ON_PI5, threads=4),
    ("rpi-zero2w", "tflite"): partial(_carried_over, many=PI4, few=ON_ZERO, threads=4),
    ("odroid-n2plus", "tflite"): partial(_borrowed, many=ODROID, threads=6),
    ("rk3399", "tflite"): partial(_borrowed, many=RK3399, threads=6, precisions=("int8",)),
    ("rk3588", "tflite"): partial(_borrowed, many=RK3588, threads=8),
    ("pixel1", "tflite"): _phone("Pixel 1", "XNNPACK", f"Pixel 1, {_XNNPACK}", 1, ("fp32",)),
    ("pixel2", "tflite"): _phone("Pixel 2", "XNNPACK", f"Pixel 2, {_XNNPACK}", 1, ("fp32",)),
    ("pixel3a", "tflite"): _phone("Pixel 3a", "XNNPACK", f"Pixel 3a, {_XNNPACK}", 1, ("fp32",)),
    ("pixel4", "tflite"): _phone("Pixel 4", "TFLite", "Pixel 4, TFLite of 2019 and 2020, 4 threads", 4, _BOTH),
}
