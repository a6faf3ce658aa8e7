"""Criteria that look at weights alone. They need no data and cost next to nothing.

Scores of layers of different scale compare because each is divided by its layer's mean, unless a criterion says
otherwise. What a channel collects from several layers, as along a residual stream, is summed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from edgeprune.graph import Ref
from edgeprune.pruning.criteria.evidence import Evidence, Found, Score, criterion
from edgeprune.pruning.criteria.sums import Slots, as_row
from edgeprune.pruning.sites import producing_weights
from edgeprune.pruning.trace import attribute

_PAIRS_AT_ONCE = 1 << 22  # distances of FPGM in memory


@criterion(needs="weights")
def l1(evidence: Evidence) -> Found:
    """Mean absolute weight of the filters that produce a channel.

    s_c = mean |w| over the filter, divided by the layer's mean.

    Source: Li et al. 2017 (arXiv 1608.08710), section 3.1, where it is the sum and compared inside a layer only.
    """
    return _by_filter(evidence, lambda filters: _against_mean(as_row(filters.abs().mean(1))))


@criterion(needs="weights")
def l2(evidence: Evidence) -> Found:
    """Root mean square weight of the filters that produce a channel.

    s_c = |w_c|_2 over the filter, divided by the layer's mean.

    Source: He et al. 2018, soft filter pruning (arXiv 1808.06866), with p = 2.
    """
    return _by_filter(evidence, lambda filters: _against_mean(as_row(filters.square().mean(1).sqrt())))


@criterion(needs="weights")
def fpgm(evidence: Evidence) -> Found:
    """Summed distance of a filter to the others of its layer: what is near their geometric median can be replaced.

    s_c = sum over j of |w_c - w_j|_2, divided by the layer's mean.

    Source: He et al. 2019, FPGM (arXiv 1811.00250), section 3.3.
    """
    return _by_filter(evidence, lambda filters: _against_mean(_distances(filters)))


@criterion(needs="weights")
def lamp(evidence: Evidence) -> Found:
    """Squared norm of a filter over that of all filters of its layer that are no smaller: its share of what is left.

    s_c = |w_c|^2 / sum of |w_j|^2 over j with |w_j| >= |w_c|; the largest filter of every layer has 1.

    Source: Lee et al. 2021, LAMP (arXiv 2010.07611), section 2, of filters instead of single weights.
    """
    return _by_filter(evidence, _shares_of_the_rest)


@criterion(needs="weights")
def slimming(evidence: Evidence) -> Found:
    """Size of a channel's BatchNorm scale, as network slimming thresholds it; best after training with L1 on scales.

    s_c = |gamma_c|, summed over the BatchNorms on the channel and compared across layers as it is. A channel without
    any BatchNorm gets the mean score of the others, so a group without one is ranked by nothing, which the notes say.

    Source: Liu et al. 2017 (arXiv 1708.06519), section 3.
    """
    slots = Slots(evidence.groups)
    row, normed = slots.row(), slots.row()
    graph = evidence.groups.graph
    for node in graph.nodes:
        scale = node.args[1] if node.base == "batch_norm" else None
        target = graph.by_name[scale.name].target if isinstance(scale, Ref) else ""
        if target in graph.parameters and evidence.groups.components_at(graph.parameters[target].name, 0) is not None:
            places = slots.along(target, 0)
            gamma = as_row(attribute(evidence.captured.module, target).abs())
            slots.spread(row, places, gamma)
            slots.spread(normed, places, np.ones(len(gamma)))
    with_norm = normed > 0
    row[~with_norm] = row[with_norm].mean() if with_norm.any() else 1.0
    return Found(slots.split(row))


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


def _distances(filters: torch.Tensor) -> Score:
    wide = filters.double()
    step = max(1, _PAIRS_AT_ONCE // max(1, wide.numel()))
    return as_row(torch.cat([torch.cdist(part, wide).sum(1) for part in wide.split(step)]))  # type: ignore[no-untyped-call]


def _shares_of_the_rest(filters: torch.Tensor) -> Score:
    squares = as_row(filters.double().square().sum(1))
    no_smaller = np.where(squares[None] >= squares[:, None], squares[None], 0.0).sum(1)
    shares: Score = squares / np.maximum(no_smaller, 1e-300)
    return shares
