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

_BINS = 4096


class RangePolicy(Value):
    """How observed values become a range.

    Attributes:
        method: `minmax` keeps every value; `percentile` cuts rare values off at both ends.
        percentile: Share of the values, in percent, below the upper end (and above the lower end).
    """

    method: Literal["minmax", "percentile"] = "minmax"
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
        samples: Starts the stream from the beginning; called once for `minmax`, twice for `percentile`.

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
    if policy.method == "percentile":
        extremes = _percentiles(samples, extremes, policy.percentile)
    return {name: (min(lo, 0.0), max(hi, 0.0)) for name, (lo, hi) in extremes.items()}


def _extremes(name: str, values: Array) -> Range:
    lo, hi = float(values.min()), float(values.max())
    if not (np.isfinite(lo) and np.isfinite(hi)):
        raise QualityError(
            f"a calibration sample gives values from {lo} to {hi}", where=name, hint="check the data and the weights"
        )
    return lo, hi


def _percentiles(
    samples: Callable[[], Observations], extremes: dict[str, Range], percentile: float
) -> dict[str, Range]:
    counts = {name: np.zeros(_BINS, np.int64) for name in extremes}
    for sample in samples():
        for name, values in sample.items():
            lo, hi = extremes[name]
            if hi > lo:
                counts[name] += np.histogram(np.asarray(values, np.float64), _BINS, (lo, hi))[0]  # of any width
    return {name: _cut(extremes[name], counts[name], percentile / 100) for name in extremes}


def _cut(extremes: Range, counts: Array, share: float) -> Range:
    lo, hi = extremes
    if hi <= lo:
        return extremes
    below = np.cumsum(counts)
    total = int(below[-1])
    edges = np.linspace(lo, hi, _BINS + 1)
    # Outer bin edges, so that at least the asked-for share lies inside.
    upper = int(np.searchsorted(below, share * total))
    lower = int(np.searchsorted(below, (1 - share) * total, side="right"))
    return float(edges[min(lower, _BINS - 1)]), float(edges[min(upper, _BINS - 1) + 1])
