"""Criteria that look at what channels put out, at their gates: a layer's BatchNorm output, else its own."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgeprune.pruning.criteria.evidence import Evidence, Found, Score, criterion
from edgeprune.pruning.criteria.running import Run
from edgeprune.pruning.criteria.sums import Slots, Sums, as_row
from edgeprune.pruning.sites import sites


@criterion(needs="inputs")
def activation(evidence: Evidence) -> Found:
    """Mean absolute value of what a channel puts out.

    s_c = mean over samples and positions of |z_c|, divided by the mean of its gate's channels, summed over its gates.

    Source: Molchanov et al. 2017 (arXiv 1611.06440), section 2.2, mean activation; here of |z| and before the
    nonlinearity, where the sign is not lost.
    """
    return _of_outputs(evidence, lambda z: z.abs(), relative=True)


@criterion(needs="inputs")
def apoz(evidence: Evidence) -> Found:
    """Share of positions at which a channel puts out something positive: one less the average percentage of zeros.

    s_c = mean over samples and positions of [z_c > 0], summed over its gates. Where a ReLU follows the gate this is
    1 - APoZ; where none does, it is only the share of positive values.

    Source: Hu et al. 2016, network trimming (arXiv 1607.03250).
    """
    return _of_outputs(evidence, lambda z: (z > 0).to(torch.float32), relative=False)


def _of_outputs(evidence: Evidence, value: Callable[[torch.Tensor], torch.Tensor], *, relative: bool) -> Found:
    """Means per channel of `value` of the gates' tensors; `relative` to the mean of each gate."""
    slots, places = Slots(evidence.groups), sites(evidence.groups)
    per_place = [Sums(slots) for _ in places]
    for number, batch in enumerate(evidence.batches):
        with torch.no_grad():
            run = Run(evidence.captured.module, (site.node for site in places))
            run.run(*batch.inputs)
        for site, sums in zip(places, per_place, strict=True):
            others = [d for d in range(run.kept[site.node].ndim) if d != site.axis]
            sums.spread(number, slots.at(site), as_row(value(run.kept[site.node]).mean(others)) * len(batch))
            sums.count(number, len(batch))
    found = [sums.found(_against_mean if relative else lambda row: row) for sums in per_place]
    return _summed(slots, found)


def _against_mean(row: Score) -> Score:
    """Divided by the mean over a gate's own channels; the row's other channels are zero."""
    mine = row[row != 0]
    divided: Score = row / max(mine.mean(), 1e-12) if len(mine) else row
    return divided


def _summed(slots: Slots, found: list[Found]) -> Found:
    zero = slots.split(slots.row())
    whole = {name: sum((one.scores[name] for one in found), start) for name, start in zero.items()}
    if not found or any(one.halves is None for one in found):
        return Found(whole)
    first, second = (
        {name: sum((one.halves[i][name] for one in found if one.halves), start) for name, start in zero.items()}
        for i in range(2)
    )
    return Found(whole, (first, second))
