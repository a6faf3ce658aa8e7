"""Cross-validation of device models over groups of rows: what is left out is seen by no step of its own fit.

Three splits: one network, one family of networks, one device. Where an engine pools its prices over devices, what is
left out is left out on every device before the prior is learnt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tools.fitting import Prior, Row, fit, pooled, predict
from tools.groups import Group, Key

COVERAGE = 0.8
# How far prices of one core move between two devices (log), and the noise of the few rows that say so. Five pairs of
# values were compared on two engines; smaller sigmas left larger errors.
DEVICE_SIGMA, DEVICE_NOISE = 0.6, 0.1
FEWEST_FOR_DEVICE = 6  # rows of a device that is left out: three to measure, at least as many to judge


@dataclass(frozen=True)
class LeftOut:
    """One row, and its estimate from a fit without it."""

    row: Row
    estimated_s: float

    @property
    def log(self) -> float:
        """log(measured / estimated)."""
        return float(np.log(self.row.measured_s / self.estimated_s))


Fitter = Callable[[Sequence[Row], Prior, float], Callable[[Row], float]]
Residuals = Mapping[Key, list[LeftOut]]


def six_or_more_prices(rows: Sequence[Row], prior: Prior, noise: float) -> Callable[[Row], float]:
    """The device model itself."""
    prices = fit(rows, prior, noise)
    return lambda row: predict(row, prices)


def macs_only(rows: Sequence[Row], prior: Prior, noise: float) -> Callable[[Row], float]:
    """One price for every MAC; `Row.work` must start with the MACs."""
    del prior, noise
    price = float(np.exp(np.median([np.log(row.measured_s / row.work[0]) for row in rows])))
    return lambda row: row.work[0] * price


def affine(rows: Sequence[Row], prior: Prior, noise: float) -> Callable[[Row], float]:
    """A price for every MAC and a constant; `Row.work` must be the MACs and one."""
    del prior
    rate = float(np.exp(np.median([np.log(row.measured_s / row.work[0]) for row in rows])))
    shortest = min(row.measured_s for row in rows)
    prices = fit(rows, Prior((rate, shortest / 2), (3.0, 3.0), scale_free=False), noise)
    return lambda row: predict(row, prices)


def counting_macs(groups: Iterable[Group]) -> list[Group]:
    """The groups with only MACs and a one as amounts, for the two models above."""
    counted = []
    for group in groups:
        rows = []
        for row in group.rows:
            ops = group.engine.network(row.model_id)
            assert ops is not None
            rows.append(replace(row, work=(float(sum(op.macs for op in ops)), 1.0)))
        counted.append(replace(group, rows=tuple(rows)))
    return counted


def cluster(key: Key) -> tuple[str, str, bool]:
    """Groups of one cluster share their prior: engine, precision, whether one thread."""
    return key.engine, key.precision, key.threads == "1"


def prior_without(groups: Sequence[Group], by: str = "", value: str = "", device: str = "") -> Prior:
    """The prior of a cluster's groups, learnt without one `model_id`, `family` or device."""
    engine = groups[0].engine
    if not engine.pooled:
        return engine.prior
    own: dict[str, list[list[Row]]] = defaultdict(list)
    for group in groups:
        rows = group.without(by, value) if by else list(group.rows)
        if rows and group.key.device != device:
            own[group.key.device].append(rows)
    return pooled(own, engine.prior, engine.noise)


def clusters(groups: Iterable[Group]) -> list[list[Group]]:
    found: dict[tuple[str, str, bool], list[Group]] = defaultdict(list)
    for group in groups:
        found[cluster(group.key)].append(group)
    return list(found.values())


def left_out(groups: Iterable[Group], by: str, fitter: Fitter = six_or_more_prices) -> dict[Key, list[LeftOut]]:
    """Every row of every group, estimated without its network (`by="model_id"`) or its `family`."""
    residuals: dict[Key, list[LeftOut]] = defaultdict(list)
    for together in clusters(groups):
        for value in sorted({getattr(row, by) for group in together for row in group.rows}):
            learnt = prior_without(together, by, value) if fitter is six_or_more_prices else together[0].engine.prior
            for group in together:
                kept = group.without(by, value)
                out = [row for row in group.rows if getattr(row, by) == value]
                if kept and out:
                    estimate = fitter(kept, learnt, group.engine.noise)
                    residuals[group.key] += [LeftOut(row, estimate(row)) for row in out]
    return dict(residuals)


def speed_ups(residuals: Sequence[LeftOut]) -> list[float]:
    """log(estimated / measured) of the ratio of times between two widths of one network at one resolution."""
    at: dict[tuple[str, str], list[tuple[float, LeftOut]]] = defaultdict(list)
    for entry in residuals:
        parts = entry.row.model_id.split("_")
        if entry.row.model_id.startswith(("mobilenet_v1_", "mobilenet_v2_")) and len(parts) == 4:
            at[parts[1], parts[3]].append((float(parts[2]), entry))
    logs = []
    for entries in at.values():
        ordered = sorted(entries, key=lambda pair: pair[0])
        logs += [
            wide.log - thin.log
            for place, (_, thin) in enumerate(ordered)
            for width, wide in ordered[place + 1 :]
            if width > ordered[place][0]
        ]
    return logs


def unseen_device(groups: Sequence[Group]) -> dict[Key, dict[int, list[LeftOut]]]:
    """Each group of a core that other devices have too, estimated from those alone and 0, 1 or 3 rows of its own.

    With none the donors' times are scaled by clock where both clocks are stated; one sets the scale; three set the
    prices, under the donors' as the prior (with the spread between devices, where it was learnt). The rows judged are
    those that none of the three has measured.
    """
    found: dict[Key, dict[int, list[LeftOut]]] = {}
    for together in clusters(groups):
        for group in together:
            donors = [g for g in together if g.key.big_core == group.key.big_core and g.key.device != group.key.device]
            if not group.key.big_core or not donors or len(group.rows) < FEWEST_FOR_DEVICE:
                continue
            prior = prior_without(together, device=group.key.device)
            donated = _donated(donors, group.key, prior)
            measured, judged = _three(group)
            middle = measured[1]
            scale = middle.measured_s / predict(middle, donated)
            sigmas = prior.sigmas if group.engine.pooled else (DEVICE_SIGMA,) * len(donated)
            calibrated = fit(measured, Prior(donated, sigmas, scale_free=True), DEVICE_NOISE)
            by_count = {0: donated, 1: tuple(scale * price for price in donated), 3: calibrated}
            found[group.key] = {
                count: [LeftOut(row, predict(row, prices)) for row in judged] for count, prices in by_count.items()
            }
    return found


def _donated(donors: Sequence[Group], key: Key, prior: Prior) -> tuple[float, ...]:
    """Mean prices (log) over the donating devices, at the clock of `key`."""
    own: dict[str, list[np.ndarray]] = defaultdict(list)
    for donor in donors:
        clocks = float(donor.key.clock_mhz) / float(key.clock_mhz) if donor.key.clock_mhz and key.clock_mhz else 1.0
        own[donor.key.device].append(np.log(fit(donor.rows, prior, donor.engine.noise)) + np.log(clocks))
    mean = np.mean([np.mean(prices, axis=0) for prices in own.values()], axis=0)
    return tuple(float(price) for price in np.exp(mean))


def _three(group: Group) -> tuple[list[Row], list[Row]]:
    """Three rows that a user would measure (a small, a middling and a large network), and the others."""
    ordered = sorted(group.rows, key=lambda row: row.measured_s)
    places = {round(share * (len(ordered) - 1)) for share in (0.1, 0.5, 0.9)}
    measured = [row for place, row in enumerate(ordered) if place in places]
    return measured, [row for place, row in enumerate(ordered) if place not in places]


# A group's own spread counts like that of so many families against the engine's.
_ENGINE_FAMILIES = 2.0


def half_widths(residuals: Residuals, without: str = "") -> dict[Key, float]:
    """Half of each group's 80 % band (log), from residuals with whole families left out.

    The spread is the group's own, families counting alike, drawn towards that of its cluster; the factor is the 80 %
    quantile of all residuals of the cluster in units of it.

    Args:
        without: A family that takes no part, to judge the band on it.
    """
    together: dict[tuple[str, str, bool], list[Key]] = defaultdict(list)
    for key in residuals:
        together[cluster(key)].append(key)
    halves = {}
    for keys in together.values():
        squares = {key: _squares(residuals[key], without) for key in keys}
        everything = [value for own in squares.values() for value in own]
        if not everything:
            continue
        common = float(np.mean(everything))
        spread = {
            key: float(np.sqrt((sum(own) + _ENGINE_FAMILIES * common) / (len(own) + _ENGINE_FAMILIES)))
            for key, own in squares.items()
        }
        units, weights = [], []
        for key in keys:
            kept = [entry for entry in residuals[key] if entry.row.family != without]
            counts = {name: sum(entry.row.family == name for entry in kept) for name in {e.row.family for e in kept}}
            units += [abs(entry.log) / spread[key] for entry in kept]
            weights += [1 / counts[entry.row.family] for entry in kept]
        factor = _quantile(units, weights, COVERAGE)
        halves.update({key: factor * spread[key] for key in keys})
    return halves


def _squares(entries: Sequence[LeftOut], without: str) -> list[float]:
    """Mean square of the residuals of each family."""
    own: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        if entry.row.family != without:
            own[entry.row.family].append(entry.log**2)
    return [float(np.mean(values)) for values in own.values()]


def _quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    order = np.argsort(values)
    passed = np.cumsum(np.asarray(weights)[order]) / np.sum(weights)
    return float(np.asarray(values)[order][min(int(np.searchsorted(passed, share)), len(order) - 1)])


def covered(residuals: Residuals) -> dict[Key, dict[str, float]]:
    """Share of each family's rows inside the band that was made without it; group -> family -> share."""
    shares: dict[Key, dict[str, float]] = defaultdict(dict)
    for name in sorted({entry.row.family for entries in residuals.values() for entry in entries}):
        halves = half_widths(residuals, without=name)
        for key, entries in residuals.items():
            own = [entry for entry in entries if entry.row.family == name]
            if own and key in halves:
                shares[key][name] = float(np.mean([abs(entry.log) <= halves[key] for entry in own]))
    return dict(shares)
