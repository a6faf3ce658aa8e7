"""Device models of microcontrollers: few networks, many engines.

Three or four networks cannot tell six prices apart, so the prior does most of the work, and results of boards with one
core are pooled, rescaled by their clock.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tools import rows as tables
from tools.fitting import Prior, Row, fit, left_out
from tools.recipes import TRANSFER_NOISE, Fitted, band_of, errors, holds, listing

# Cycles of a Cortex-M4 at 120 MHz: about 4 per MAC, ratios of kernels as published results of all boards suggest.
_M4_PRIOR = Prior((3e-8, 4.2e-8, 5.4e-8, 4e-8, 3e-8, 5e-5), (0.4, 0.5, 0.5, 0.8, 0.5, 1.0))
_M7_PRIOR = Prior((1e-8, 1.4e-8, 1.8e-8, 1.3e-8, 1e-8, 1.7e-5), (0.4, 0.5, 0.5, 0.8, 0.5, 1.0))
_CMSIS = (("microTVM+CMSIS-NN", ""), ("TFLM+CMSIS-NN", ""))
_HALE = (("Bosch HALE", "1.0"), ("Bosch HALE", "1.0.175"))


# Boards of one core and engine differ by 7-47 % on one network, versions of one engine by about as much.
_BOARD_SPREAD = 0.15


def _mcu(rows: list[Row], prior: Prior, what: str, source: str, ratio: list[float]) -> list[Fitted]:
    """The int8 model of a microcontroller; `ratio` are logs of another engine's time over that of the rows."""
    factor = float(np.exp(np.median(ratio))) if ratio else 1.0
    logs = left_out(rows, prior, "model_id", TRANSFER_NOISE)
    spread = float(np.hypot(np.std(ratio) if ratio else 0.0, _BOARD_SPREAD))
    networks = len({row.model_id for row in rows})
    band = band_of(logs, spread, networks)
    provenance = {
        "base": {"what": what, **listing(rows)},
        "base_left_out_model": errors(logs),
        "engine_factor": factor,
        "spread_log": spread,
        "band": "t interval over the left-out networks; spread of the engine factor and 0.15 between boards added",
        "band_holds_of_base": holds(band, logs),
    }
    prices = tuple(price * factor for price in fit(rows, prior, TRANSFER_NOISE))
    return [Fitted("tflm", "int8", 1, prices, 0, band, source, provenance)]


def nucleo_l4r5zi(folder: Path) -> list[Fitted]:
    boards = ("NUCLEO-L4R5ZI", "nRF5340-DK", "EK-RA6M4")
    rows = [row for board in boards for row in tables.tiny_rows(folder, board, _CMSIS, clock_mhz=120)]
    what = "MLPerf Tiny, CMSIS-NN through microTVM and TFLM, Cortex-M4 and two Cortex-M33 boards scaled to 120 MHz"
    source = f"fitted on {len(rows)} results of three networks ({what}); networks of another kind may be off by more"
    return _mcu(rows, _M4_PRIOR, what, source, [])


def disco_f746ng(folder: Path) -> list[Fitted]:
    boards = ("DISCO-F746NG", "NUCLEO-H7A3ZI-Q")
    rows = [row for board in boards for row in tables.tiny_rows(folder, board, _HALE, clock_mhz=216)]
    to_vendor = tables.engine_ratio(folder, tables.TINY, boards[1], ("X-CUBE-AI", "7.3.0"), ("Bosch HALE", "1.0"))
    cmsis, vendor = ("CMSIS-NN (via TFLM)", "011bf32"), ("X-CUBE-AI", "7.3.0")
    to_cmsis = tables.engine_ratio(folder, tables.MCU, "STM32H743 board", cmsis, vendor)
    ratio = [a + float(np.median(to_vendor)) for a in to_cmsis]
    what = "MLPerf Tiny, Bosch HALE, this board and a second Cortex-M7 scaled to 216 MHz"
    source = (
        f"fitted on {len(rows)} results of four networks ({what}), times {np.exp(np.median(ratio)):.2f} for TFLM with "
        "CMSIS-NN (ratio of engines on two other Cortex-M7 boards)"
    )
    return _mcu(rows, _M7_PRIOR, what, source, ratio)


MCU_RECIPES: dict[tuple[str, str], Callable[[Path], list[Fitted]]] = {
    ("nucleo-l4r5zi", "tflm"): nucleo_l4r5zi,
    ("disco-f746ng", "tflm"): disco_f746ng,
}
