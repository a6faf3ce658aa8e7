"""One step of training: a batch, its loss, its gradients, new weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from edgeprune.training.averages import decay_at, update_average
from edgeprune.training.clipping import clip
from edgeprune.training.distil import distillation_loss
from edgeprune.training.guide import guide_loss, run_watched
from edgeprune.training.precision import autocast
from edgeprune.training.sharpness import uphill
from edgeprune.training.state import Setup, State, rate, trained_parameters, trained_tensors
from edgeprune.workload.augment import Mixed, mixture
from edgeprune.workload.samples import batch_of


def take_step(setup: Setup, state: State, indices: torch.Tensor) -> float | None:
    """Train on the samples at `indices`.

    Returns:
        The loss; None, with the weights as they were, when it or a gradient is not finite.
    """
    batch = _batch(setup, state, indices)
    parameters = trained_parameters(setup)
    loss = _gradients(setup, state, batch)
    if setup.recipe.sam > 0:
        with uphill(setup.model, parameters, setup.recipe.sam):
            _gradients(setup, state, batch)
    if state.scaler is not None:
        state.scaler.unscale_(state.optimiser)
    norm = clip(parameters, setup.recipe, setup.settings.clip_norm).item()
    if not math.isfinite(loss) or not (math.isfinite(norm) or _may_be_scale(state)):
        return None
    for group in state.optimiser.param_groups:
        group["lr"] = rate(setup, state)
    if state.scaler is None:
        state.optimiser.step()
    else:
        state.scaler.step(state.optimiser)  # makes no step where a gradient is not finite
        state.scaler.update()
    state.step += 1
    if state.average is not None:
        update_average(state.average, trained_tensors(setup), decay_at(setup.recipe.ema, state.step))
    return loss


def _may_be_scale(state: State) -> bool:
    """Whether gradients that are not finite may be the work of the loss's scale, which shrinks then."""
    return state.scaler is not None and state.scaler.get_scale() > 1


@dataclass(frozen=True)
class _Batch:
    """Samples as the model is trained on them.

    Attributes:
        x: Inputs (n, ...).
        y: Targets (n, ...).
        taught: The teacher's outputs.
        inside: Results of the guide's steps, by name.
        mixed: What the samples were mixed with.
        weight: This process's share of the samples; those of all processes are one batch.
    """

    x: torch.Tensor
    y: torch.Tensor
    taught: torch.Tensor | None
    inside: dict[str, torch.Tensor]
    mixed: Mixed | None
    weight: float


@torch.no_grad()
def _batch(setup: Setup, state: State, indices: torch.Tensor) -> _Batch:
    x, y = batch_of(setup.workload.data.train, indices)
    x, y = x.to(setup.device), y.to(setup.device)
    if setup.workload.augment is not None:
        x = setup.workload.augment(x, state.generator)
    mine, mixed = setup.ranks.rows(len(x)), None
    if setup.workload.mixup_alpha > 0:
        mix = mixture(len(x), setup.workload.mixup_alpha, state.generator)
        x, mixed = mix.of_inputs(x), Mixed(mix.share, y[mix.partner.to(y.device)][mine])
    weight = (mine.stop - mine.start) / len(x)
    x, y, indices = x[mine].to(memory_format=setup.layout), y[mine], indices[mine]
    taught: torch.Tensor | None = None
    inside: dict[str, torch.Tensor] = {}
    with autocast(setup.device, setup.half):
        if setup.guide is not None:
            _, inside = run_watched(setup.guide.teacher, x, {point.teacher for point in setup.guide.points})
        if isinstance(setup.teacher, nn.Module):
            taught = setup.teacher(x).float()
        elif setup.teacher is not None:
            taught = setup.teacher[indices].to(setup.device)
    return _Batch(x, y, taught, inside, mixed, weight)


def _gradients(setup: Setup, state: State, batch: _Batch) -> float:
    """The loss of a batch; its gradients are in the parameters afterwards."""
    guide, inside = setup.guide, dict[str, torch.Tensor]()
    with autocast(setup.device, setup.half):
        if guide is None:
            outputs = setup.forward(batch.x)
        else:
            outputs, inside = run_watched(setup.model, batch.x, {point.student for point in guide.points})
    loss = distillation_loss(setup.workload.task, outputs.float(), batch.y, batch.taught, setup.recipe, batch.mixed)
    if guide is not None:
        loss = loss + guide_loss(guide, batch.inside, inside, setup.recipe)
    state.optimiser.zero_grad(set_to_none=True)
    scaled = loss if state.scaler is None else state.scaler.scale(loss)
    scaled.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in trained_parameters(setup) if p.grad is not None]
    setup.ranks.average([*gradients, value := loss.detach().reshape(1)], batch.weight)
    return value.item()
