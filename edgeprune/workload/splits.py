"""Disjoint parts of one set: seeded, and with the same share of every class."""

from __future__ import annotations

import numpy as np

from edgeprune.errors import UsageError
from edgeprune.workload import Array


def stratified_split(labels: Array, share: float, seed: int) -> tuple[Array, Array]:
    """Indices of what stays and of what is split off, each in ascending order.

    Integer labels (n,) keep their shares; other targets are split at random.

    Args:
        share: Of the samples that are split off, in 0..1; of every class at least one and never all.

    Raises:
        UsageError: A class with a single sample cannot be on both sides.
    """
    rng = np.random.default_rng(seed)
    off: list[Array] = []
    for members in _strata(labels):
        if len(members) < 2:
            raise UsageError(
                f"label {labels[members[0]]} has a single sample: nothing to split off",
                where="--data",
                hint="give validation and test sets of their own, or more samples",
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        off.append(rng.permutation(members)[:count])
    chosen = np.sort(np.concatenate(off))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def stratified_draw(labels: Array, count: int, seed: int) -> Array:
    """Indices, ascending, of `count` samples (all when there are fewer), classes taken in turns."""
    rng = np.random.default_rng(seed)
    queues = [rng.permutation(members) for members in _strata(labels)]
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return np.sort(np.array(turns[:count], dtype=np.int64))


def _strata(labels: Array) -> list[Array]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return [np.arange(len(labels))]
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
