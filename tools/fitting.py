"""Fit of the six prices in log space, with prior ratios between them (maximum a posteriori).

price_j = scale * ratio_j * exp(u_j);  minimise  sum rho(log(estimate / measured) / noise) + sum (u_j / sigma_j)^2

`rho` is soft-L1, so that a disturbed row bends nothing. The scale is free. Every price stays positive, which also keeps
a term that the rows do not identify near its prior instead of at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from edgeprune.device.latency import Work, work
from edgeprune.device.ops import Op

Array = np.ndarray[Any, np.dtype[np.float64]]
NOISE = 0.05


@dataclass(frozen=True)
class Row:
    """One measurement: which network, how long, where it stands in the table."""

    model_id: str
    family: str
    measured_s: float
    work: tuple[float, ...]


@dataclass(frozen=True)
class Prior:
    """What is assumed before the rows are seen.

    Attributes:
        prices_s: Central prices in seconds, in the order of `Work`; their common scale is refitted where it is free.
        sigmas: Standard deviations of their logarithms.
        scale_free: Whether the common scale of all but the per-op price is unknown.
    """

    prices_s: tuple[float, ...]
    sigmas: tuple[float, ...]
    scale_free: bool = True


# Ratios to the price of a MAC in a convolution, and an operator at 10 us, from the engines that TFLite and Arm NN use.
BOARD_PRIOR = Prior(
    prices_s=(1e-11, 3e-11, 5e-11, 8e-11, 20e-11, 1e-5),
    sigmas=(0.4, 0.7, 0.7, 0.8, 0.8, 1.0),
)


def amounts(ops: Sequence[Op], first_conv_extra_channels: int, gathers_patches: bool) -> tuple[float, ...]:
    """The summed work of a network."""
    rows = [work(op, first_conv_extra_channels, gathers_patches) for op in ops]
    return tuple(float(sum(column)) for column in zip(*rows, strict=True)) if rows else tuple(Work())


def fit(rows: Sequence[Row], prior: Prior, noise: float = NOISE) -> tuple[float, ...]:
    """The six prices in seconds; the prior's own when there are no rows."""
    centre = np.log(np.asarray(prior.prices_s))
    if not rows:
        return prior.prices_s
    table = np.asarray([row.work for row in rows])
    measured = np.log([row.measured_s for row in rows])
    sigmas = np.asarray(prior.sigmas)
    per_op = np.array([1.0] * (len(centre) - 1) + [0.0])  # the per-op price is known absolutely, not as a ratio

    def logs(x: Array) -> Array:
        moved: Array = centre + x[1:] + (x[0] * per_op if prior.scale_free else 0.0)
        return moved

    def residuals(x: Array) -> Array:
        raw = (np.log(table @ np.exp(logs(x))) - measured) / noise
        robust = np.sign(raw) * np.sqrt(2 * (np.sqrt(1 + raw**2) - 1))
        return np.concatenate([robust, x[1:] / sigmas])

    start = np.zeros(len(centre) + 1)
    if prior.scale_free:
        start[0] = np.median(measured - np.log(table[:, :-1] @ np.exp(centre[:-1])))
    found = least_squares(residuals, start, method="trf", x_scale=1.0, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    return tuple(float(value) for value in np.exp(logs(found.x)))


def predict(row: Row, prices_s: Sequence[float]) -> float:
    return float(np.dot(row.work, prices_s))


def left_out(rows: Sequence[Row], prior: Prior, by: str, noise: float = NOISE) -> list[float]:
    """log(measured / estimated) of every row from a fit without its model (`by="model_id"`) or its `family`."""
    logs = []
    for group in sorted({getattr(row, by) for row in rows}):
        prices = fit([row for row in rows if getattr(row, by) != group], prior, noise)
        logs += [float(np.log(row.measured_s / predict(row, prices))) for row in rows if getattr(row, by) == group]
    return logs
