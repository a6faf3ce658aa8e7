"""How far a ranking can be trusted: whether two halves of the data rank the channels alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeprune.values import Value

SHAKY = 0.8  # mean rank correlation below which the user is warned
_FEWEST = 3  # channels that a group must have for its ranks to say anything

Ranked = np.ndarray[Any, np.dtype[np.float64]]


class Stability(Value):
    """Spearman's rank correlation between the scores of two halves of the batches: 1 the same order, 0 none in common.

    Each half has half of the samples, so the ranking of all of them is somewhat more stable than this.
    """

    mean: float  # over groups, weighted by their channels
    groups: dict[str, float]  # those of three channels and more


def stability(first: Mapping[str, Ranked], second: Mapping[str, Ranked]) -> Stability | None:
    """The agreement of two sets of scores (channels,) per group; None where no group has three channels."""
    found = {name: spearman(score, second[name]) for name, score in first.items() if len(score) >= _FEWEST}
    if not found:
        return None
    widths = [len(first[name]) for name in found]
    return Stability(mean=float(np.average(list(found.values()), weights=widths)), groups=found)


def spearman(first: Ranked, second: Ranked) -> float:
    """Spearman's rank correlation of two rows, ties at their mean rank; where both say nothing 1, where one does 0."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if scale == 0:
        return float(not a.any() and not b.any())
    return float((a * b).sum() / scale)


def ranks(row: Ranked) -> Ranked:
    """The rank of every value, from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    mean: Ranked = (np.cumsum(counts) - (counts + 1) / 2)[place]
    return mean
