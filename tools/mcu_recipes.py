"""Device models of the microcontroller targets, from the fit over all boards in `mcu_fitting`.

A board with results of the engine gets its own scale. A board without is given the cycles of others with its core, at
its clock; the band then includes how far boards of one core lie apart. TFLM on a Cortex-M7 has no results at a stated
clock: it is scaled from X-CUBE-AI on two such boards by the ratio of the two engines on a third.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tools import esp_kernels
from tools.mcu_fitting import (
    KERNELS,
    OTHER,
    Corrections,
    Group,
    LeftOut,
    correct,
    other_groups,
    tiny_groups,
    unseen_everywhere,
    work_of,
)
from tools.recipes import Fitted, band_of, errors, holds
from tools.rows import engine_ratio

Engine = tuple[str, str]  # runtime and version, as in the tables
CUBE_7: Engine = ("X-CUBE-AI", "7.3.0")
CMSIS_ON_M7: Engine = ("CMSIS-NN (via TFLM)", "011bf32")
ANCHOR = "mcunet_mbv2-w0.3-r64"  # the network on which the ratio of engines is applied
# Cycles of one engine on one network differ between boards of one core by 2 (M7) to 20 % (M4, M33): flash and caches.
BOARD_SPREAD = 0.15
COVERAGE = 0.8
_FEW = 10
_NORMAL = 1.2816  # half-width of an 80 % interval, in standard deviations


@dataclass(frozen=True)
class Source:
    """Which results give a target's scale: groups (device and engine), at their clocks or carried to the target's."""

    target: str
    runtime: str
    clock_hz: float
    groups: tuple[tuple[str, Engine], ...]


_MICRO_TVM: Engine = ("microTVM+CMSIS-NN", "")
_TFLM: Engine = ("TFLM+CMSIS-NN", "")
_M7_VENDOR = (("NUCLEO-H7A3ZI-Q", ("X-CUBE-AI", "9.0.0")), ("STM32H747I-DISCO", ("X-CUBE-AI", "10.0.0")))
OWN_RESULTS = (
    Source("nucleo-l4r5zi", "tflm", 120e6, (("NUCLEO-L4R5ZI", _MICRO_TVM),)),
    Source("nrf5340dk", "tflm", 128e6, (("nRF5340-DK", _MICRO_TVM),)),
    Source("ek-ra8d1", "tflm", 480e6, (("EK-RA8D1", _TFLM),)),
    Source("nucleo-l4r5zi", "x-cube-ai", 120e6, (("NUCLEO-L4R5ZI", ("X-CUBE-AI", "10.2")),)),
    Source("nucleo-u575zi", "x-cube-ai", 160e6, (("NUCLEO-U575ZI-Q", ("X-CUBE-AI", "10.2")),)),
    Source("nucleo-h7a3zi", "x-cube-ai", 280e6, (_M7_VENDOR[0],)),
    Source("stm32h747", "x-cube-ai", 400e6, (_M7_VENDOR[1],)),
)
BORROWED = (
    Source("nucleo-u575zi", "tflm", 160e6, (("nRF5340-DK", _MICRO_TVM), ("EK-RA6M4", _TFLM))),
    Source("disco-f746ng", "x-cube-ai", 216e6, _M7_VENDOR),
    Source("stm32h743", "x-cube-ai", 480e6, _M7_VENDOR),
)
M7_TFLM = (("nucleo-h7a3zi", 280e6), ("disco-f746ng", 216e6), ("stm32h743", 480e6), ("stm32h747", 400e6))


@dataclass(frozen=True)
class Fit:
    """What every recipe shares: the groups, the corrections, and the results left out with their family everywhere."""

    groups: tuple[Group, ...]
    corrections: Corrections
    left_out: tuple[LeftOut, ...]

    def group(self, device: str, engine: Engine) -> Group:
        found = [g for g in self.groups if (g.device, (g.runtime, g.version)) == (device, engine)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} groups of results for {engine} on {device}")
        return found[0]

    def logs(self, kernels: str) -> list[float]:
        """log(measured / estimated) of the left-out results with these kernels, of all where there are none."""
        own = [entry.log for entry in self.left_out if entry.group.kernels == kernels]
        return own or [entry.log for entry in self.left_out]

    def band(self, kernels: str, spread_log: float) -> tuple[float, float]:
        """80 % interval of measured over estimated time, with a further independent spread.

        Where there are few left-out results it is Student's t about zero, else their own quantile.
        """
        logs = self.logs(kernels)
        few = len(logs) < _FEW
        half = float(np.log(band_of(logs)[1]) if few else np.quantile(np.abs(logs), COVERAGE))
        wide = float(np.hypot(half, _NORMAL * spread_log))
        return float(np.exp(-wide)), float(np.exp(wide))


@cache
def fit_all(folder: Path) -> Fit:
    """The fit over all boards, made once per folder of measurements."""
    groups = (*tiny_groups(folder), *other_groups(folder))
    return Fit(groups, correct(groups), tuple(unseen_everywhere(groups)))


def _fitted(
    fit: Fit, source: Source, kernels: str, groups: Sequence[Group], prices: Sequence[float], spread: float, text: str
) -> list[Fitted]:
    band = fit.band(kernels, spread)
    results = [result for group in groups for result in group.results]
    logs = fit.logs(kernels)
    provenance = {
        "base": {
            "what": "; ".join(f"{g.device}, {g.runtime} {g.version}".rstrip() for g in groups),
            "rows": len(results),
            "families": sorted({result.family for result in results}),
        },
        "kernels": kernels,
        "instructions": KERNELS[kernels],
        "base_left_out_family": errors(logs),
        "left_out": f"{len(logs)} results of all boards with these kernels, each network's family left out everywhere",
        "spread_log": spread,
        "band": "80 % of those left-out results (Student's t where they are few); spread between boards added",
        "band_holds_of_base": holds(band, logs),
    }
    text = f"{text}; 80 % band {band[0]:.2f}-{band[1]:.2f} from networks left out on all boards"
    return [Fitted(source.runtime, "int8", 1, tuple(prices), 0, band, text, provenance)]


def _own(source: Source) -> Callable[[Path], list[Fitted]]:
    def recipe(folder: Path) -> list[Fitted]:
        fit = fit_all(folder)
        group = fit.group(*source.groups[0])
        text = f"instruction counts of kernels, scaled to {len(group.results)} results of this board ({group.runtime})"
        return _fitted(fit, source, group.kernels, [group], fit.corrections.prices_s(group), 0.0, text)

    return recipe


def _by_core(source: Source) -> Callable[[Path], list[Fitted]]:
    def recipe(folder: Path) -> list[Fitted]:
        fit = fit_all(folder)
        groups = [fit.group(*entry) for entry in source.groups]
        cycles = [np.log(fit.corrections.prices_s(group)) + np.log(group.clock_hz) for group in groups]
        prices = np.exp(np.mean(cycles, axis=0)) / source.clock_hz
        spread = float(np.hypot(BOARD_SPREAD, np.std([row.mean() for row in cycles])))
        names = " and ".join(group.device for group in groups)
        text = f"instruction counts of kernels, scaled to results of the same core ({names}) at this clock"
        return _fitted(fit, source, groups[0].kernels, groups, prices, spread, text)

    return recipe


def _m7_tflm(target: str, clock_hz: float) -> Callable[[Path], list[Fitted]]:
    def recipe(folder: Path) -> list[Fitted]:
        fit = fit_all(folder)
        vendor = fit.group("NUCLEO-H7A3ZI-Q", CUBE_7)
        ratios = engine_ratio(folder, OTHER, "STM32H743 board", CMSIS_ON_M7, CUBE_7)
        anchor = np.asarray(work_of(ANCHOR))
        anchor_cycles = float(np.dot(anchor, fit.corrections.prices_s(vendor))) * vendor.clock_hz
        counts = fit.corrections.counts("cmsis", "CMSIS-NN")
        factor = float(np.exp(np.median(ratios)))
        prices = counts * factor * anchor_cycles / float(np.dot(anchor, counts)) / clock_hz
        spread = float(np.hypot(BOARD_SPREAD, np.std(ratios)))
        text = (
            f"instruction counts of CMSIS-NN's kernels, scaled to X-CUBE-AI 7.3 on a Cortex-M7 times {factor:.2f} "
            "(ratio of the two on another), at this clock"
        )
        source = Source(target, "tflm", clock_hz, (("NUCLEO-H7A3ZI-Q", CUBE_7),))
        return _fitted(fit, source, "cmsis", [vendor], prices, spread, text)

    return recipe


def _esp32_s3(folder: Path) -> list[Fitted]:
    """ESP-NN's own table of kernel times; judged on a network that took no part."""
    fit = fit_all(folder)
    rows, prices = esp_kernels.fitted(folder, "ESP32-S3")
    check = esp_kernels.judged(folder, "ESP32-S3", prices)
    inside = [entry for entry in check if not entry["external_memory"]]
    worst = max(abs(float(np.log(entry["measured_over_estimated"]))) for entry in inside)
    spread = float(np.hypot(BOARD_SPREAD, worst))
    band = fit.band("blocked", spread)
    provenance = {
        "base": {"what": "ESP-NN's table of kernel times", "rows": len(rows), "families": ["kernels"]},
        "deployed": {"what": "networks in TFLM with ESP-NN, no part of the fit", "rows": len(check)},
        "deployed_rows": check,
        "deployed_left_out_family": errors([float(np.log(e["measured_over_estimated"])) for e in check]),
        "spread_log": spread,
        "band": "of other microcontrollers' left-out networks; 0.15 and the worst network of this chip added",
    }
    took = {entry["external_memory"]: entry["measured_over_estimated"] for entry in check}
    text = (
        f"fitted on {len(rows)} kernel times of ESP-NN; of two networks that took no part, one took {took[False]:.2f} "
        f"of the estimate and one with its activations in external memory, which is not covered, {took[True]:.2f}"
    )
    return [Fitted("tflm", "int8", 1, prices, 0, band, text, provenance)]


MCU_RECIPES: dict[tuple[str, str], Callable[[Path], list[Fitted]]] = {
    **{(source.target, source.runtime): _own(source) for source in OWN_RESULTS},
    **{(source.target, source.runtime): _by_core(source) for source in BORROWED},
    **{(target, "tflm"): _m7_tflm(target, clock_hz) for target, clock_hz in M7_TFLM},
    ("esp32-s3", "tflm"): _esp32_s3,
}
