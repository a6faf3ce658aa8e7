"""Criteria of first order: what the loss, or the outputs, feel of a channel when its gate closes or its filter moves.

A gate multiplies a channel where it enters the network (a site: a layer's BatchNorm output, else its own). With z the
tensor there, G = sum over positions of z * dL/dz is the first-order effect of closing the gate on one sample. The
variants differ in where the absolute value stands, and with it in what may cancel. One backward pass per batch,
BatchNorm in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edgeprune.errors import QualityError
from edgeprune.pruning.criteria.evidence import Evidence, Found, Sampled, Score, criterion
from edgeprune.pruning.criteria.running import Run, leaves, slopes, weight_places
from edgeprune.pruning.criteria.sums import Slots, Sums, as_row, per_position
from edgeprune.pruning.sites import Indices, sites

Objective = Callable[[Any, Sampled], torch.Tensor]  # (outputs, batch) to one number
_SMALLEST = 1e-3  # of the layer's mean filter norm, below which a filter's norm counts as this


@criterion(needs="inputs")
def logit_taylor(evidence: Evidence) -> Found:
    """First-order effect of each channel on random projections of the outputs; the default.

    With L = r·y, r random ±1 (centred): s_c = sum over sites of mean over samples of |G|: per sample and per site, so
    nothing cancels. No labels are needed, and unlike the loss's the gradient does not vanish at convergence.

    Source: gates after Molchanov et al. 2019 (arXiv 1906.10771), in the absolute form and on outputs, not on the loss.
    """
    generator = torch.Generator().manual_seed(evidence.seed)
    return _each_sample_and_site(evidence, lambda outputs, _: projection(outputs, generator), scale=False)


@criterion(needs="targets")
def taylor(evidence: Evidence) -> Found:
    """First-order effect of each channel on the loss of a batch: summed over all sites and samples, then absolute.

    s_c = mean over batches of |sum over sites and samples of G|. What pushes the loss both ways cancels, so scores are
    nearly flat and vanish at convergence: ranks inside a group are usable, sums over groups are not.

    Source: Molchanov et al. 2017 (arXiv 1611.06440), of a batch; gates after Molchanov et al. 2019 (arXiv 1906.10771),
    in the absolute form.
    """
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    for number, _, places, effects in gate_effects(evidence, slots, evidence.loss_of):
        row = slots.row()
        for place, effect in zip(places, effects, strict=True):
            slots.spread(row, place, as_row(effect.sum(0)))
        sums.add(number, np.abs(row))
        sums.count(number, 1)
    return sums.found()


@criterion(needs="targets")
def taylor_per_sample(evidence: Evidence) -> Found:
    """First-order effect of each channel on the loss of a sample: summed over its sites, then absolute.

    s_c = mean over samples of |sum over sites of G|. Samples do not cancel, the producers of a residual channel may.

    Source: Molchanov et al. 2017 (arXiv 1611.06440), section 2.2, whose absolute value is per sample too.
    """
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    for number, count, places, effects in gate_effects(evidence, slots, evidence.loss_of):
        together = sample_effects(slots, count, places, effects)
        sums.add(number, count * np.abs(together).sum(0))
        sums.count(number, count)
    return sums.found()


@criterion(needs="targets")
def taylor_per_site(evidence: Evidence) -> Found:
    """First-order effect of each channel on the loss, absolute per sample and per site: nothing cancels.

    s_c = sum over sites of mean over samples of |G|: `logit_taylor` of the loss.

    Source: Molchanov et al. 2017 (arXiv 1611.06440), section 2.2, summed over the layers that a channel enters by.
    """
    return _each_sample_and_site(evidence, evidence.loss_of, scale=True)


@criterion(needs="targets")
def taylor_of_weights(evidence: Evidence) -> Found:
    """First-order effect of a channel's filters on the loss: weights times gradients, summed, then absolute.

    s_c = sum over layers of mean over batches of |sum over the filter of w * dL/dw|.

    Source: Molchanov et al. 2019 (arXiv 1906.10771), of groups of weights, absolute in the place of the square.
    """
    return _of_filters(evidence, lambda w, g, axis: np.abs(per_position(w * g, axis)))


@criterion(needs="targets")
def gradient(evidence: Evidence) -> Found:
    """Mean size of the loss's gradient on the filters that produce a channel.

    s_c = sum over layers of mean over batches and the filter's weights of |dL/dw|.

    Source: the sensitivity of Karnin 1990 (IEEE Trans. Neural Networks 1(2)) at one point and without the weight.
    """
    return _of_filters(evidence, lambda w, g, axis: per_position(g.abs(), axis) * w.shape[axis] / max(w.numel(), 1))


@criterion(needs="targets")
def gradient_ratio(evidence: Evidence) -> Found:
    """Gradient over weight of the filters that produce a channel: how fast training would still change them.

    s_c = sum over layers of mean over batches of |dL/dw_c|_2 / |w_c|_2, norms over the filter. A filter of less than a
    thousandth of its layer's mean norm counts as one of that norm.

    Source: the inverse of the trust ratio of You et al. 2017 (arXiv 1708.03888), per filter as Brock et al. 2021
    (arXiv 2102.06171) take norms.
    """

    def ratio(w: torch.Tensor, g: torch.Tensor, axis: int) -> Score:
        norms = np.sqrt(per_position(w.double().square(), axis))
        change: Score = np.sqrt(per_position(g.double().square(), axis))
        return change / np.maximum(norms, max(_SMALLEST * norms.mean(), 1e-12))

    return _of_filters(evidence, ratio)


def gate_effects(
    evidence: Evidence, slots: Slots, objective: Objective
) -> Iterator[tuple[int, int, list[Indices], list[torch.Tensor]]]:
    """Per batch: its number, its samples, the slots of every site, and the effect G (samples, positions) there."""
    places = sites(evidence.groups)
    at = [slots.at(site) for site in places]
    for number, batch in enumerate(evidence.batches):
        run = Run(evidence.captured.module, (site.node for site in places), leaves(evidence.captured))
        outputs = run.run(*batch.inputs)
        kept = [run.kept[site.node] for site in places]
        gradients = slopes(objective(outputs, batch), kept)
        effects = []
        for site, z, slope in zip(places, kept, gradients, strict=True):
            product = (z * slope).detach()
            others = [d for d in range(1, product.ndim) if d != site.axis]
            effects.append(product.sum(others) if others else product)
        yield number, len(batch), at, effects


def sample_effects(slots: Slots, count: int, places: list[Indices], effects: list[torch.Tensor]) -> Score:
    """Effects summed over sites (samples, channels of all groups).

    Where a layer folds more than samples into its first axis, the parts of a sample are summed; where that axis holds
    no samples at all (time first), the batch's effect is shared among them.
    """
    together = np.zeros((slots.count, count))
    for place, effect in zip(places, effects, strict=True):
        folded = len(effect) % count == 0
        own = effect.reshape(count, -1, effect.shape[1]).sum(1) if folded else effect.sum(0).expand(count, -1) / count
        slots.spread(together, place, as_row(own).T)
    return together.T


def projection(outputs: Any, generator: torch.Generator) -> torch.Tensor:
    """The outputs times random ±1, centred over the last axis, summed.

    Raises:
        QualityError: No output is of floating point.
    """
    total: torch.Tensor | None = None
    for y in pytree.tree_leaves(outputs):
        if not isinstance(y, torch.Tensor) or not y.is_floating_point():
            continue
        sign = torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1
        if y.shape[-1] > 1:
            sign = sign - sign.mean(-1, keepdim=True)
        term = (sign * y).sum()
        total = term if total is None else total + term
    if total is None:
        raise QualityError("the model returns no floating-point tensor")
    return total


def _each_sample_and_site(evidence: Evidence, objective: Objective, *, scale: bool) -> Found:
    """Mean over samples of |G|, summed over sites; `scale` where the objective is a mean over the batch."""
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    for number, count, places, effects in gate_effects(evidence, slots, objective):
        for place, effect in zip(places, effects, strict=True):
            total = as_row(effect.abs().sum(0))
            sums.spread(number, place, total * count if scale else total)
        sums.count(number, count)
    return sums.found()


def _of_filters(evidence: Evidence, score: Callable[[torch.Tensor, torch.Tensor, int], Score]) -> Found:
    """Mean over batches of the scores of every producing weight and its gradient along its axis."""
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    for number, batch in enumerate(evidence.batches):
        own = leaves(evidence.captured)
        places = weight_places(evidence, own)
        loss = evidence.loss_of(Run(evidence.captured.module, weights=own).run(*batch.inputs), batch)
        for (path, axis), slope in zip(places, slopes(loss, [own[p] for p, _ in places]), strict=True):
            sums.spread(number, slots.along(path, axis), score(own[path].detach(), slope, axis))
        sums.count(number, 1)
    return sums.found()
