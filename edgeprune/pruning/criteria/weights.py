"""Criteria that look at weights alone. They need no data and cost next to nothing.

Scores of layers of different scale compare because each is divided by its layer's mean, unless a criterion says
otherwise. What a channel collects from several layers, as along a residual stream, is summed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from edgeprune.pruning.criteria.evidence import Evidence, Found, Score, criterion
from edgeprune.pruning.criteria.sums import Slots, as_row
from edgeprune.pruning.sites import producing_weights
from edgeprune.pruning.trace import attribute


@criterion(needs="weights")
def l1(evidence: Evidence) -> Found:
    """Mean absolute weight of the filters that produce a channel.

    s_c = mean |w| over the filter, divided by the layer's mean.

    Source: Li et al. 2017 (arXiv 1608.08710), section 3.1, where it is the sum and compared inside a layer only.
    """
    return _by_filter(evidence, lambda filters: _against_mean(as_row(filters.abs().mean(1))))


@criterion(needs="weights")
def random(evidence: Evidence) -> Found:
    """Uniform random scores: the control every other criterion must beat."""
    generator = np.random.default_rng(evidence.seed)
    return Found({group.name: generator.random(group.width) for group in evidence.groups.groups})


def _by_filter(evidence: Evidence, score: Callable[[torch.Tensor], Score]) -> Found:
    """Scores (filters,) of every producing weight (filters, weights of each), summed per channel."""
    slots = Slots(evidence.groups)
    row = slots.row()
    for path, axis in producing_weights(evidence.groups):
        weight = attribute(evidence.captured.module, path).detach()
        slots.spread(row, slots.along(path, axis), score(weight.transpose(0, axis).flatten(1)))
    return Found(slots.split(row))


def _against_mean(score: Score) -> Score:
    """Divided by the layer's mean."""
    divided: Score = score / max(score.mean(), 1e-12)
    return divided
