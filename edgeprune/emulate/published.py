"""Published results of MLPerf Tiny, beside the instructions that the same kernels execute in emulation.

What cycles are calibrated on (`cycles`). Instructions are those of CMSIS-NN's kernels (7.0.0 and later, -Ofast) on the
four reference models, counted in emulation; published are microTVM with CMSIS-NN of 2022, so that the ratio of the two
also holds what changed between versions. Of cores without such a result, X-CUBE-AI's or Plumerai's cycles on two boards
carry the Cortex-M4's cycles over. Model files: mlcommons/tiny. Results: mlcommons/tiny_results_v1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

L4R5ZI = "NUCLEO-L4R5ZI, 120 MHz"
NRF5340 = "nRF5340-DK, 128 MHz"
U575ZI = "NUCLEO-U575ZI-Q, 160 MHz"
H7A3ZI = "NUCLEO-H7A3ZI-Q, 280 MHz"
F746NG = "DISCO-F746NG, 216 MHz"


@dataclass(frozen=True)
class Row:
    """One model on one board.

    Attributes:
        cycles: Clock over inferences per second as published, or carried over.
        core_cycles: What the cycles are taken to be proportional to: the sum of the core's published instruction
            timings where the core has such, else the instructions.
        weights_bytes: Constants of the model.
    """

    board: str
    core: str
    model: str
    cycles: float
    core_cycles: float
    weights_bytes: int


# Model: bytes of constants; instructions on Cortex-M4, M7 and M33; timings of the M4 over its instructions.
_MODELS = {
    "ic": (78_752, 29.872e6, 29.93e6, 29.93e6, 1.223),
    "kws": (24_376, 7.843e6, 7.76e6, 7.80e6, 1.193),
    "vww": (219_072, 24.712e6, 24.48e6, 24.53e6, 1.219),
    "ad": (270_880, 0.5794e6, 0.580e6, 0.580e6, 1.246),
}
_M4_PER_SECOND = {"ic": 2.567, "kws": 10.018, "vww": 3.320, "ad": 116.21}
_M33_PER_SECOND = {"ic": 3.163, "kws": 13.140, "vww": 4.310, "ad": 159.58}
# Cycles of a closed engine on the board over its cycles on the L4R5ZI: Plumerai on F746NG, else X-CUBE-AI 7.3
_OVER_M4 = {
    (U575ZI, "Cortex-M33"): {"ic": 0.821, "kws": 0.785, "ad": 0.853},
    (H7A3ZI, "Cortex-M7"): {"ic": 0.559, "kws": 0.521, "vww": 0.513},
    (F746NG, "Cortex-M7"): {"ic": 0.67, "kws": 0.480, "vww": 0.492, "ad": 0.741},
}


def _rows() -> tuple[Row, ...]:
    rows = []
    for model, (weights, m4, m7, m33, timings) in _MODELS.items():
        m4_cycles = 120e6 / _M4_PER_SECOND[model]
        rows.append(Row(L4R5ZI, "Cortex-M4", model, m4_cycles, m4 * timings, weights))
        rows.append(Row(NRF5340, "Cortex-M33", model, 128e6 / _M33_PER_SECOND[model], m33, weights))
        for (board, core), ratios in _OVER_M4.items():
            if model in ratios:
                instructions = {"Cortex-M7": m7, "Cortex-M33": m33}[core]
                rows.append(Row(board, core, model, m4_cycles * ratios[model], instructions, weights))
    return tuple(rows)


ROWS = _rows()
