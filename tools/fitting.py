"""Fit of prices in log space, with prior ratios between them (maximum a posteriori).

price_j = scale * ratio_j * exp(u_j);  minimise  sum rho(log(estimate / measured) / noise) + sum (u_j / sigma_j)^2

`rho` is soft-L1, so that a disturbed row bends nothing. The scale is free. Every price stays positive, which also keeps
a term that the rows do not identify near its prior instead of at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeprune.device.latency import Work, work
from edgeprune.device.ops import Op

Array = np.ndarray[Any, np.dtype[np.float64]]
NOISE = 0.05
# When the fit stops: steps, gain over the objective, largest step (log), damping that no step comes through.
_ITERATIONS, _FLAT, _STILL, _STUCK = 200, 1e-12, 1e-7, 1e10
# Pooling: rounds, fewest devices, how many devices the given sigmas are worth, least spread between devices (log).
_ROUNDS, _FEWEST_DEVICES, _SHRINK, _LEAST_SPREAD = 3, 3, 6.0, 0.15


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
    """The prices in seconds; the prior's own when there are no rows."""
    return _solved(rows, prior, noise)[0]


def _solved(rows: Sequence[Row], prior: Prior, noise: float) -> tuple[tuple[float, ...], Array]:
    """The prices, and how far each moved from the prior (log) besides the common scale."""
    centre = np.log(np.asarray(prior.prices_s))
    if not rows:
        return prior.prices_s, np.zeros(len(centre))
    table, measured = np.asarray([row.work for row in rows]), np.log([row.measured_s for row in rows])
    # the last price, of an operator, is known absolutely and not as a ratio
    scaled = np.array([1.0] * (len(centre) - 1) + [0.0]) * prior.scale_free
    moves = np.hstack([scaled[:, None], np.eye(len(centre))])
    pull = np.diag([1e-6, *np.asarray(prior.sigmas) ** -2.0])

    def state(x: Array) -> tuple[float, Array, Array]:
        """Objective, scaled residuals and their derivatives."""
        terms = table * np.exp(centre + moves @ x)
        total = terms.sum(axis=1)
        raw = (np.log(total) - measured) / noise
        value = 2 * np.sum(np.sqrt(1 + raw**2) - 1) + x[1:] @ pull[1:, 1:] @ x[1:]
        return float(value), raw, (terms / total[:, None]) @ moves / noise

    x = np.zeros(len(centre) + 1)
    if prior.scale_free:
        x[0] = np.median(measured - np.log(table[:, :-1] @ np.exp(centre[:-1]) + 1e-300))
    value, raw, slope = state(x)
    damping = 1e-3
    for _ in range(_ITERATIONS):  # Levenberg and Marquardt's steps on the weights of soft-L1
        weight = 1 / np.sqrt(1 + raw**2)
        gradient = slope.T @ (weight * raw) + pull @ x
        curvature = slope.T @ (weight[:, None] * slope) + pull
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -gradient)
        after, raw_after, slope_after = state(x + step)
        if after > value:
            damping *= 4
            if damping > _STUCK:
                break
            continue
        done = value - after <= _FLAT * (1 + value)
        x, value, raw, slope, damping = x + step, after, raw_after, slope_after, max(damping / 5, 1e-9)
        if done and float(np.max(np.abs(step))) < _STILL:
            break
    return tuple(float(price) for price in np.exp(centre + moves @ x)), x[1:]


def pooled(groups: Mapping[str, Sequence[Sequence[Row]]], prior: Prior, noise: float = NOISE) -> Prior:
    """A prior whose ratios are learnt from groups of rows, each fitted under the one before (empirical Bayes).

    Args:
        groups: Device -> its groups; a device counts once, however many groups it has.

    Returns:
        Ratios moved to the mean over devices, sigmas to their spread shrunk towards half the given ones.
    """
    prices, sigmas = np.log(np.asarray(prior.prices_s)), np.asarray(prior.sigmas)
    if len(groups) < _FEWEST_DEVICES:
        return prior
    learnt = prior
    for _ in range(_ROUNDS):
        moved = np.array(
            [np.mean([_solved(rows, learnt, noise)[1] for rows in own], axis=0) for own in groups.values()]
        )
        prices = prices + moved.sum(axis=0) / (len(moved) + 1)
        around = ((moved - moved.mean(axis=0)) ** 2).sum(axis=0) + _SHRINK * (sigmas / 2) ** 2
        spread = np.sqrt(around / (len(moved) + _SHRINK) + _LEAST_SPREAD**2)
        learnt = replace(prior, prices_s=tuple(map(float, np.exp(prices))), sigmas=tuple(map(float, spread)))
    return learnt


def predict(row: Row, prices_s: Sequence[float]) -> float:
    return float(np.dot(row.work, prices_s))


def left_out(rows: Sequence[Row], prior: Prior, by: str, noise: float = NOISE) -> list[float]:
    """log(measured / estimated) of every row from a fit without its model (`by="model_id"`) or its `family`."""
    logs = []
    for group in sorted({getattr(row, by) for row in rows}):
        prices = fit([row for row in rows if getattr(row, by) != group], prior, noise)
        logs += [float(np.log(row.measured_s / predict(row, prices))) for row in rows if getattr(row, by) == group]
    return logs
