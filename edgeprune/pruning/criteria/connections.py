"""Criteria that were made for single connections before training: weights times a gradient, summed over filters."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from edgeprune.pruning.criteria.evidence import Evidence, Found, Scores, criterion
from edgeprune.pruning.criteria.running import Run, Weights, differentiable_twice, leaves, slopes, weight_places
from edgeprune.pruning.criteria.sums import Slots, Sums, per_position
from edgeprune.pruning.trace import Captured


@criterion(needs="targets")
def snip(evidence: Evidence) -> Found:
    """Connection sensitivity: weights times the loss's gradient over all batches, absolute per weight, as a share.

    s_c = sum over layers and the filter's weights of |w * dL/dw| / the sum of that over all channels, L the mean loss
    of all batches.

    Source: Lee et al. 2019, SNIP (arXiv 1810.02340), section 4, summed over a filter.
    """
    slots = Slots(evidence.groups)
    own = leaves(evidence.captured)
    places = weight_places(evidence, own)
    halves: list[list[torch.Tensor]] = [[torch.zeros_like(own[p]) for p, _ in places] for _ in range(2)]
    for number, batch in enumerate(evidence.batches):
        loss = evidence.loss_of(Run(evidence.captured.module, weights=own).run(*batch.inputs), batch) * len(batch)
        for total, slope in zip(halves[number % 2], slopes(loss, [own[p] for p, _ in places]), strict=True):
            total += slope

    def share(gradients: list[torch.Tensor]) -> Scores:
        row = slots.row()
        for (path, axis), g in zip(places, gradients, strict=True):
            slots.spread(row, slots.along(path, axis), per_position((own[path].detach() * g).abs(), axis))
        return slots.split(row / max(row.sum(), 1e-300))

    whole = share([first + second for first, second in zip(*halves, strict=True)])
    return Found(whole, (share(halves[0]), share(halves[1])) if len(evidence.batches) > 1 else None)


@criterion(needs="targets")
def grasp(evidence: Evidence) -> Found:
    """Gradient flow: how much of the gradient's norm goes when a channel's filters go; larger loses more.

    s_c = sum over layers and the filter's weights of the mean over batches of w * (H g), g the gradient and H the
    Hessian of the batch's loss: the paper's score with the other sign, because here larger stays. Scores are shifted
    so that the smallest is zero; what lies below the paper's zero would help training by going.

    Source: Wang et al. 2020, GraSP (arXiv 2002.07376), section 4, summed over a filter, at temperature 1.
    """
    slots = Slots(evidence.groups)
    sums = Sums(slots)
    with differentiable_twice():
        for number, batch in enumerate(evidence.batches):
            own = leaves(evidence.captured)
            places = weight_places(evidence, own)
            loss = evidence.loss_of(Run(evidence.captured.module, weights=own, twice=True).run(*batch.inputs), batch)
            first = slopes(loss, list(own.values()), again=True)
            along = sum(((g * g.detach()).sum() for g in first), torch.zeros(()))
            second = slopes(along, [own[path] for path, _ in places])
            for (path, axis), product in zip(places, second, strict=True):
                sums.spread(number, slots.along(path, axis), per_position(own[path].detach() * product, axis))
            sums.count(number, 1)
    return sums.found(lambda row: row - row.min() if len(row) else row)


@criterion(needs="weights")
def synflow(evidence: Evidence) -> Found:
    """Synaptic flow: how much of the sum over all paths of absolute weights passes through a channel.

    s_c = sum over layers and the filter's weights of dR/d|w| * |w|, R the sum of the outputs for an input of ones when
    every parameter is replaced by its absolute value. BatchNorm keeps its variance and gives up its mean. No data.

    Source: Tanaka et al. 2020, SynFlow (arXiv 2006.05467), section 6, one pass, summed over a filter.
    """
    slots = Slots(evidence.groups)
    try:
        own, total = _flow(evidence, torch.float64)
    except RuntimeError:  # a constant of the program is bound to the model's own precision
        own, total = _flow(evidence, None)
    places = weight_places(evidence, own)
    row = slots.row()
    for (path, axis), slope in zip(places, slopes(total, [own[path] for path, _ in places]), strict=True):
        slots.spread(row, slots.along(path, axis), per_position((slope * own[path]).detach().abs(), axis))
    return Found(slots.split(row))


def _flow(evidence: Evidence, kind: torch.dtype | None) -> tuple[Weights, torch.Tensor]:
    """Absolute parameters, and R of them; in double precision, because it grows with every layer's fan-in."""
    module = evidence.captured.module
    own = {path: value.detach().abs().to(kind or value.dtype) for path, value in leaves(evidence.captured).items()}
    own = {path: value.requires_grad_() for path, value in own.items()}
    held = {path: value.to(kind or value.dtype) for path, value in module.named_buffers() if value.is_floating_point()}
    held |= {path: torch.zeros_like(value) for path, value in held.items() if path.endswith("running_mean")}
    run = Run(evidence.captured.module, weights={**held, **own})
    outputs = run.run(*_ones(evidence.captured, kind), enable_io_processing=False)
    tensors = [y for y in pytree.tree_leaves(outputs) if isinstance(y, torch.Tensor) and y.is_floating_point()]
    return own, sum((y.sum() for y in tensors), torch.zeros(()))


def _ones(captured: Captured, kind: torch.dtype | None) -> list[Any]:
    """One sample of ones for every input of the program; numbers are one too."""
    module, graph = captured.module, captured.graph
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    found: list[Any] = []
    for node in module.graph.nodes:
        if node.op != "placeholder":
            continue
        seen, shapes = node.meta.get("val"), graph.by_name[node.name].shapes
        if not shapes:
            found.append(1)
            continue
        own = seen.dtype if isinstance(seen, torch.Tensor) else torch.get_default_dtype()
        found.append(torch.ones(shapes[0], dtype=kind or own if own.is_floating_point else own, device=device))
    return found
