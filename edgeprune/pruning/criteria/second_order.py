"""Criteria of second order: how the loss bends when a channel goes. Gates and G are those of `gradients`."""

from __future__ import annotations

import numpy as np
import torch

from edgeprune.pruning.criteria.evidence import Evidence, Found, criterion
from edgeprune.pruning.criteria.gradients import gate_effects, sample_effects
from edgeprune.pruning.criteria.running import Run, differentiable_twice, gates_at, leaves, slopes, weight_places
from edgeprune.pruning.criteria.sums import Slots, Sums, as_row, per_position
from edgeprune.pruning.sites import sites

_PROBES = 2  # random vectors per batch that estimate the diagonal of a Hessian


@criterion(
    needs="targets",
    note="fisher sums squares of activations times gradients; US patent 11,315,018 (granted 2022) is about pruning by "
    "a criterion of that form: have it looked at before you ship",
)
def fisher(evidence: Evidence) -> Found:
    """Empirical Fisher information of each channel's gate: half the mean square of its first-order effect.

    s_c = 1/2 * mean over samples of (sum over sites of G)^2. For a loss that is a log-likelihood this estimates how
    much closing the gate raises it near convergence, where the first-order term has vanished.

    Source: Theis et al. 2018 (arXiv 1801.05787); summed over coupled layers before the square as by Liu et al. 2021,
    Group Fisher (arXiv 2108.00708).
    """
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    for number, count, places, effects in gate_effects(evidence, slots, evidence.loss_of):
        own = count * sample_effects(slots, count, places, effects)
        sums.add(number, 0.5 * np.square(own).sum(0))
        sums.count(number, count)
    return sums.found()


@criterion(needs="targets")
def hessian(evidence: Evidence) -> Found:
    """Curvature of the loss along each channel's gate: the second-order effect of closing it, without first order.

    s_c = 1/2 * |mean over batches of d2L/dm_c2| at gates m = 1, all sites of a channel at once. The diagonal is that of
    Hutchinson, the mean of v * Hv over random ±1 vectors v: two Hessian-vector products per batch.

    Source: LeCun et al. 1990, optimal brain damage, of gates in the place of weights; diagonal after Hutchinson 1990.
    """
    slots, places = Slots(evidence.groups), sites(evidence.groups)
    sums = Sums(slots)
    generator = torch.Generator().manual_seed(evidence.seed)
    with differentiable_twice():
        for number, batch in enumerate(evidence.batches):
            own = leaves(evidence.captured)
            kind = next((w for w in own.values()), torch.zeros(()))
            row = torch.ones(slots.count, dtype=kind.dtype, device=kind.device, requires_grad=True)
            run = Run(evidence.captured.module, gates=gates_at(places, slots, row), twice=True)
            (slope,) = slopes(evidence.loss_of(run.run(*batch.inputs), batch), [row], again=True)
            for _ in range(_PROBES):
                v = signs(row, generator)
                (bent,) = slopes((slope * v).sum(), [row], again=True)
                sums.add(number, as_row(v * bent) / _PROBES)
            sums.count(number, 1)
    return sums.found(lambda total: 0.5 * np.abs(total))


@criterion(needs="targets")
def obd(evidence: Evidence) -> Found:
    """Optimal brain damage of the filters that produce a channel: squared weights times the loss's curvature there.

    s_c = |sum over layers and the filter's weights of 1/2 * h_ww * w^2|, h the diagonal of the Hessian, averaged over
    batches. The diagonal is estimated as for `hessian`, with random signs of the weights: u * Hu for u = ±w.

    Source: LeCun et al. 1990, optimal brain damage (NeurIPS 2), summed over a filter.
    """
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    generator = torch.Generator().manual_seed(evidence.seed)
    with differentiable_twice():
        for number, batch in enumerate(evidence.batches):
            own = leaves(evidence.captured)
            places = weight_places(evidence, own)
            weights = [own[path] for path, _ in places]
            loss = evidence.loss_of(Run(evidence.captured.module, weights=own, twice=True).run(*batch.inputs), batch)
            first = slopes(loss, weights, again=True)
            for _ in range(_PROBES):
                probes = [(weight * signs(weight, generator)).detach() for weight in weights]
                along = sum(((slope * v).sum() for slope, v in zip(first, probes, strict=True)), torch.zeros(()))
                for (path, axis), v, bent in zip(places, probes, slopes(along, weights, again=True), strict=True):
                    damage = per_position(0.5 * (v * bent).detach(), axis)
                    sums.spread(number, slots.along(path, axis), damage / _PROBES)
            sums.count(number, 1)
    return sums.found(np.abs)


def signs(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random ±1 of a tensor's shape, from a generator on the CPU."""
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1
