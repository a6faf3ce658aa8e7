"""Criteria of first order: what the loss, or the outputs, feel of a channel when its gate closes or its filter moves.

A gate multiplies a channel where it enters the network (a site: a layer's BatchNorm output, else its own). With z the
tensor there, G = sum over positions of z * dL/dz is the first-order effect of closing the gate on one sample. The
variants differ in where the absolute value stands, and with it in what may cancel. One backward pass per batch,
BatchNorm in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from edgeprune.errors import QualityError
from edgeprune.pruning.criteria.evidence import Evidence, Found, Sampled, criterion
from edgeprune.pruning.criteria.running import Run, leaves, slopes
from edgeprune.pruning.criteria.sums import Slots, Sums, as_row
from edgeprune.pruning.sites import Indices, sites

Objective = Callable[[Any, Sampled], torch.Tensor]  # (outputs, batch) to one number


@criterion(needs="inputs")
def logit_taylor(evidence: Evidence) -> Found:
    """First-order effect of each channel on random projections of the outputs; the default.

    With L = r·y, r random ±1 (centred): s_c = sum over sites of mean over samples of |G|: per sample and per site, so
    nothing cancels. No labels are needed, and unlike the loss's the gradient does not vanish at convergence.

    Source: gates after Molchanov et al. 2019 (arXiv 1906.10771), in the absolute form and on outputs, not on the loss.
    """
    generator = torch.Generator().manual_seed(evidence.seed)
    return _each_sample_and_site(evidence, lambda outputs, _: projection(outputs, generator), scale=False)


def gate_effects(
    evidence: Evidence, slots: Slots, objective: Objective
) -> Iterator[tuple[int, int, list[Indices], list[torch.Tensor]]]:
    """Per batch: its number, its samples, the slots of every site, and the effect G (samples, positions) there."""
    places = sites(evidence.groups)
    at = [slots.at(site) for site in places]
    for number, batch in enumerate(evidence.batches):
        run = Run(evidence.captured, (site.node for site in places), leaves(evidence.captured))
        outputs = run.run(*batch.inputs)
        kept = [run.kept[site.node] for site in places]
        gradients = slopes(objective(outputs, batch), kept)
        effects = []
        for site, z, slope in zip(places, kept, gradients, strict=True):
            product = (z * slope).detach()
            others = [d for d in range(1, product.ndim) if d != site.axis]
            effects.append(product.sum(others) if others else product)
        yield number, len(batch), at, effects


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
