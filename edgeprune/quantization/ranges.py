"""One range policy for every int8 artifact: from what a tensor was seen to hold to the range it is quantised over.

Affine int8 quantisation maps [lo, hi] onto 256 steps. Zero is always inside the range, because padding and the
output of a ReLU must be exact. All artifacts of a run use the same policy on the same calibration samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from edgeprune.errors import QualityError, UsageError
from edgeprune.values import Value

Array = np.ndarray[Any, np.dtype[Any]]
Range = tuple[float, float]
Observations = Iterable[Mapping[str, Array]]  # per sample: the values of each tensor

LEVELS = 255  # steps of a range

_BINS = 4096
_SHARES = np.linspace(1.0, 0.2, 65)[1:]  # of a range's end that are tried
_WORTH = 0.98


class RangePolicy(Value):
    """How observed values become a range.

    Attributes:
        method: `minmax` keeps every value; `percentile` cuts rare values off at both ends; `mse` cuts where the mean
            squared error of 256 levels is least, if that is at least 2 % below the error of keeping every value.
        percentile: Share of the values, in percent, below the upper end (and above the lower end).
    """

    method: Literal["minmax", "percentile", "mse"] = "minmax"
    percentile: float = 99.99


def value_range(values: Array, policy: RangePolicy) -> Range:
    """The range (lo, hi) of one tensor, lo <= 0 <= hi.

    Args:
        values: Everything the tensor held over the calibration samples, any shape.

    Raises:
        QualityError: A value is not finite.
        UsageError: No values, or a percentile outside (50, 100].
    """
    return observe(lambda: [{"values": values}], policy)["values"]


def observe(samples: Callable[[], Observations], policy: RangePolicy) -> dict[str, Range]:
    """Ranges of many tensors from a stream of samples; nothing but a histogram per tensor is kept.

    Args:
        samples: Starts the stream from the beginning; called once for `minmax`, else twice.

    Raises:
        QualityError: A tensor held a value that is not finite.
        UsageError: No samples, or a percentile outside (50, 100].
    """
    if not 50 < policy.percentile <= 100:
        raise UsageError(f"percentile {policy.percentile:g} is outside (50, 100]", hint="99.99 is a usual choice")
    extremes: dict[str, Range] = {}
    for sample in samples():
        for name, values in sample.items():
            lo, hi = _extremes(name, values)
            old_lo, old_hi = extremes.get(name, (lo, hi))
            extremes[name] = min(lo, old_lo), max(hi, old_hi)
    if not extremes:
        raise UsageError("no calibration samples: int8 ranges need some", hint="pass 100 or more training samples")
    if policy.method != "minmax":
        bins = _binned(samples, extremes)
        share = policy.percentile / 100
        for name, (counts, means) in bins.items():
            seen = extremes[name]
            cut = policy.method == "percentile"
            extremes[name] = _cut(seen, counts, share) if cut else _least_error(seen, counts, means)
    return {name: (min(lo, 0.0), max(hi, 0.0)) for name, (lo, hi) in extremes.items()}


def rounded(values: Array, extent: Range) -> Array:
    """The values on the 256 levels of a range (lo, hi) that holds zero, whose nearest level stands for zero."""
    lo, hi = extent
    if hi <= lo:
        return np.zeros_like(values)
    step = (hi - lo) / LEVELS
    zero = np.clip(np.round(-lo / step), 0, LEVELS)
    levels: Array = (np.clip(np.round(values / step) + zero, 0, LEVELS) - zero) * step
    return levels


def _extremes(name: str, values: Array) -> Range:
    lo, hi = float(values.min()), float(values.max())
    if not (np.isfinite(lo) and np.isfinite(hi)):
        raise QualityError(
            f"a calibration sample gives values from {lo} to {hi}", where=name, hint="check the data and the weights"
        )
    return lo, hi


def _binned(samples: Callable[[], Observations], extremes: Mapping[str, Range]) -> dict[str, tuple[Array, Array]]:
    """How many values lie in each of the bins between the extremes, and their mean; nothing for a constant."""
    wide = {name for name, (lo, hi) in extremes.items() if hi > lo}
    counts = {name: np.zeros(_BINS, np.int64) for name in wide}
    sums = {name: np.zeros(_BINS) for name in wide}
    for sample in samples():
        for name, values in sample.items():
            if name in wide:
                flat = np.asarray(values, np.float64).ravel()
                counts[name] += np.histogram(flat, _BINS, extremes[name])[0]
                sums[name] += np.histogram(flat, _BINS, extremes[name], weights=flat)[0]
    return {name: (counts[name], sums[name] / np.maximum(counts[name], 1)) for name in wide}


def _cut(extremes: Range, counts: Array, share: float) -> Range:
    lo, hi = extremes
    below = np.cumsum(counts)
    total = int(below[-1])
    edges = np.linspace(lo, hi, _BINS + 1)
    # Outer bin edges, so that at least the asked-for share lies inside.
    upper = int(np.searchsorted(below, share * total))
    lower = int(np.searchsorted(below, (1 - share) * total, side="right"))
    return float(edges[min(lower, _BINS - 1)]), float(edges[min(upper, _BINS - 1) + 1])


def _least_error(extremes: Range, counts: Array, means: Array) -> Range:
    """The range of least mean squared error: both ends drawn in together first, then each alone."""
    held = counts > 0
    weights, values = counts[held], means[held]

    def error(extent: Range) -> float:
        return float(np.sum(weights * np.square(values - rounded(values, extent))))

    lo, hi = min(extremes[0], 0.0), max(extremes[1], 0.0)
    whole = best = error((lo, hi))
    found = lo, hi
    for ends in ((True, True), (True, False), (False, True)):
        start = found
        for share in _SHARES:
            tried = start[0] * (share if ends[0] else 1), start[1] * (share if ends[1] else 1)
            if (seen := error(tried)) < best:
                best, found = seen, tried
    return found if best < _WORTH * whole else (lo, hi)
