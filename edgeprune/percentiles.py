"""What a list of latencies proves: percentiles with confidence bounds, and whether the machine held still.

A percentile of a sample is itself uncertain. Order statistics bound the true one without any assumption on the shape
of the distribution: of n independent runs, the number below the true q-quantile is Binomial(n, q). (Nair 1940;
MLPerf's early-stopping rule is the same statement.) Runs that follow each other on a busy machine are not fully
independent; the bound then promises somewhat less than it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr

Array = np.ndarray[Any, np.dtype[Any]]

CONFIDENCE = 0.99
QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}

_BLOCKS = 12
_SLOWER = 0.05
# Beside a reference: a stretch that does not count, the share of stretches that must, and a machine that became slower.
_FAR_SLOWER = 0.15
_FEWEST_KEPT = 2 / 3
_PAIRED_SLOWER = 0.1
_QUIET = 0.2  # CPUs used by others; the kernel counts in steps of 0.1 CPU over a slice


def upper_rank(count: int, quantile: float, confidence: float = CONFIDENCE) -> int | None:
    """The smallest k such that the k-th smallest of `count` runs is at or above the true quantile with that
    confidence: min{k: P(Binomial(count, quantile) <= k - 1) >= confidence}. None when there are too few runs.

    Args:
        quantile: In (0, 1), such as 0.9.
    """
    ranks = np.arange(1, count + 1)
    enough = bdtr(ranks - 1, count, quantile) >= confidence
    return int(ranks[enough][0]) if enough.any() else None


def lower_rank(count: int, quantile: float, confidence: float = CONFIDENCE) -> int | None:
    """The largest k such that the k-th smallest run is at or below the true quantile with that confidence."""
    ranks = np.arange(1, count + 1)
    enough = bdtr(ranks - 1, count, quantile) <= 1 - confidence
    return int(ranks[enough][-1]) if enough.any() else None


def needed_runs(quantile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest runs whose slowest bounds the quantile: 7 for p50, 44 for p90, 459 for p99 at 99 %."""
    count = 1
    while quantile**count > 1 - confidence:
        count += 1
    return count


def bounds(latencies_s: Sequence[float] | Array, quantile: float) -> tuple[float, float]:
    """(lower, upper): each holds alone with 99 % confidence.

    Raises:
        ValueError: Fewer than `needed_runs(quantile)` runs.
    """
    ordered = np.sort(np.asarray(latencies_s, np.float64))
    upper = upper_rank(len(ordered), quantile)
    if upper is None:
        raise ValueError(f"{len(ordered)} runs cannot bound p{quantile * 100:g}: {needed_runs(quantile)} are needed")
    lower = lower_rank(len(ordered), quantile)
    return float(ordered[(lower or 1) - 1]), float(ordered[upper - 1])


def percentile(latencies_s: Sequence[float] | Array, quantile: float) -> float:
    """The smallest latency that at least this share of the runs did not exceed."""
    return float(np.quantile(np.asarray(latencies_s, np.float64), quantile, method="inverted_cdf"))


@dataclass(frozen=True)
class Slice:
    """A stretch of consecutive runs: how many, and how many CPUs' worth of time everybody else used meanwhile."""

    runs: int
    others: float


def slowdown(latencies_s: Sequence[float] | Array, slices: Sequence[Slice]) -> float | None:
    """How much slower the machine became from the first to the last third of the run; 0.1 is 10 %.

    Three things make latencies move, and only one of them makes a number worthless. Single slow runs come from
    interrupts: they leave the fast floor (the 10th percentile of a stretch) where it was. Other jobs on the machine
    raise the floor while they run, by sharing caches and cores: stretches in which others used the CPU are left out.
    A CPU that lowers its clock raises the floor everywhere and for good: so the best undisturbed stretch of the last
    third is compared with that of the first. None when a third has no undisturbed stretch, which cannot tell.
    """
    blocks = _blocks(latencies_s, slices)
    third = max(1, len(blocks) // 3)
    first, last = _floors(blocks[:third]), _floors(blocks[-third:])
    if not first or not last:
        return None
    return min(last) / min(first) - 1


def disturbed(latencies_s: Sequence[float] | Array, slices: Sequence[Slice]) -> bool:
    """Whether the machine became slower during the run: by more than 5 %, and by more than three times what the
    floor moves from one undisturbed stretch to the next, which is how noisy the machine is anyway.

    A machine that became faster does not count: the verdict's upper bound then errs on the safe side.
    """
    change = slowdown(latencies_s, slices)
    if change is None:
        return False
    floors = np.array(_floors(_blocks(latencies_s, slices)))
    noise = float(np.median(np.abs(np.diff(floors))) / np.median(floors)) if len(floors) > 2 else 0.0
    return change > max(_SLOWER, 3 * noise)


@dataclass(frozen=True)
class Stretch:
    """Consecutive runs of a model, and the median of a reference that ran right after them."""

    runs: int
    reference_s: float


@dataclass(frozen=True)
class Paired:
    """What a run beside a reference shows.

    Attributes:
        latencies_s: Of the runs that count: those of stretches in which the machine was its usual self.
        kept: Share of the stretches that count.
        slowdown: How much slower the reference became from the first third of them to the last; 0.1 is 10 %.
        to_reference: The model's time over the reference's, a median over stretches. It repeats within a percent where
            the times themselves move by a quarter, because both meet the same state of the machine.
        reference_s: The reference's usual time, the median over all stretches.
    """

    latencies_s: Array
    kept: float
    slowdown: float
    to_reference: float
    reference_s: float

    @property
    def disturbed(self) -> bool:
        """Whether the machine was not itself for too much of the run, or became slower.

        Judged by the reference alone: whatever the model itself does is its latency.
        """
        return self.kept < _FEWEST_KEPT or self.slowdown > _PAIRED_SLOWER


def paired(latencies_s: Sequence[float] | Array, stretches: Sequence[Stretch]) -> Paired:
    """Leave out the stretches beside which the reference was far slower than usual; compare the rest.

    On a machine that is shared, other tenants slow a core down for seconds without leaving a trace in its own
    accounts. A reference that ran before and after a stretch sees it.

    Args:
        latencies_s: Of all runs, in order.
        stretches: At least one; they cover the runs.
    """
    values = np.asarray(latencies_s, np.float64)
    after = np.array([stretch.reference_s for stretch in stretches])
    before = np.concatenate([after[:1], after[:-1]])
    usual = float(np.median(after))
    quiet = np.maximum(before, after) <= (1 + _FAR_SLOWER) * usual
    kept = float(np.mean(quiet))
    quiet |= not quiet.any()  # nothing counts, so there is nothing to choose
    parts = np.split(values, np.cumsum([stretch.runs for stretch in stretches])[:-1])
    ratios = np.array([np.median(part) for part in parts]) / np.sqrt(before * after)
    slow = [float(np.quantile(third, 0.9)) for third in np.array_split(after[quiet], 3) if len(third)]
    return Paired(
        latencies_s=np.concatenate([part for part, keep in zip(parts, quiet, strict=True) if keep]),
        kept=kept,
        slowdown=slow[-1] / slow[0] - 1,
        to_reference=float(np.median(ratios[quiet])),
        reference_s=usual,
    )


def _blocks(latencies_s: Sequence[float] | Array, slices: Sequence[Slice]) -> list[tuple[Array, float]]:
    """At most twelve stretches of the run with what others used in each."""
    values = np.asarray(latencies_s, np.float64)
    ends = np.cumsum([piece.runs for piece in slices])
    blocks = []
    for group in np.array_split(np.arange(len(slices)), min(_BLOCKS, len(slices))):
        begin, end = ends[group[0]] - slices[group[0]].runs, ends[group[-1]]
        if end > begin:
            blocks.append((values[begin:end], max(slices[index].others for index in group)))
    return blocks


def _floors(blocks: Sequence[tuple[Array, float]]) -> list[float]:
    return [percentile(values, 0.1) for values, others in blocks if others < _QUIET]
