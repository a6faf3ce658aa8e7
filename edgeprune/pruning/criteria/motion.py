"""Criteria that watch weights move."""

from __future__ import annotations

from edgeprune.pruning.criteria.evidence import Evidence, Found, criterion
from edgeprune.pruning.criteria.running import Run, leaves, slopes, weight_places
from edgeprune.pruning.criteria.sums import Slots, Sums, per_position

_RATE = 0.01  # of the steps


@criterion(needs="targets")
def movement(evidence: Evidence) -> Found:
    """Movement of the filters that produce a channel, away from zero or towards it, in one step of SGD per batch.

    s_c = sum over layers, steps and the filter's weights of -w * dL/dw, at the weights of that step: positive where
    training makes weights larger. The steps (rate 0.01, BatchNorm frozen) are taken on copies of the parameters.
    Scores are shifted so that the smallest is zero. Made for fine-tuning on a new task, where weights really move.

    Source: Sanh et al. 2020 (arXiv 2005.07683), section 4; over blocks after Lagunas et al. 2021 (arXiv 2109.04838).
    """
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    own = leaves(evidence.captured)
    places = weight_places(evidence, own)
    for number, batch in enumerate(evidence.batches):
        loss = evidence.loss_of(Run(evidence.captured.module, weights=own).run(*batch.inputs), batch)
        found = dict(zip(own, slopes(loss, list(own.values())), strict=True))
        for path, axis in places:
            moved = per_position(-(own[path].detach() * found[path]), axis)
            sums.spread(number, slots.along(path, axis), moved)
        sums.count(number, 1)
        own = {path: (value.detach() - _RATE * found[path]).requires_grad_() for path, value in own.items()}
    return sums.found(lambda row: row - row.min() if len(row) else row)
