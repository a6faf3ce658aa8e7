"""One step of training: a batch, its loss, its gradients, new weights."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from edgeprune.training.averages import decay_at, update_average
from edgeprune.training.clipping import clip
from edgeprune.training.distil import distillation_loss
from edgeprune.training.guide import guide_loss, run_watched
from edgeprune.training.sharpness import uphill
from edgeprune.training.state import Setup, State, rate, trained_parameters, trained_tensors
from edgeprune.workload.augment import Mixture, mixture
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
    norm = clip(parameters, setup.recipe, setup.settings.clip_norm)
    if not math.isfinite(loss) or not math.isfinite(norm.item()):
        return None
    for group in state.optimiser.param_groups:
        group["lr"] = rate(setup, state)
    state.optimiser.step()
    state.step += 1
    if state.average is not None:
        update_average(state.average, trained_tensors(setup), decay_at(setup.recipe.ema, state.step))
    return loss


@dataclass(frozen=True)
class _Batch:
    """Samples as the model is trained on them.

    Attributes:
        x: Inputs (n, ...).
        y: Targets (n, ...).
        taught: The teacher's outputs.
        inside: Results of the guide's steps, by name.
        mix: How the samples were mixed.
    """

    x: torch.Tensor
    y: torch.Tensor
    taught: torch.Tensor | None
    inside: dict[str, torch.Tensor]
    mix: Mixture | None


@torch.no_grad()
def _batch(setup: Setup, state: State, indices: torch.Tensor) -> _Batch:
    x, y = batch_of(setup.workload.data.train, indices)
    x, y = x.to(setup.device), y.to(setup.device)
    if setup.workload.augment is not None:
        x = setup.workload.augment(x, state.generator)
    mix = None
    if setup.workload.mixup_alpha > 0:
        mix = mixture(len(x), setup.workload.mixup_alpha, state.generator)
        x = mix.of_inputs(x)
    x = x.to(memory_format=setup.layout)
    taught, inside = None, {}
    with _precision(setup.device):
        if setup.guide is not None:
            _, inside = run_watched(setup.guide.teacher, x, {point.teacher for point in setup.guide.points})
        if isinstance(setup.teacher, nn.Module):
            taught = setup.teacher(x).float()
        elif setup.teacher is not None:
            taught = setup.teacher[indices].to(setup.device)
    return _Batch(x, y, taught, inside, mix)


def _gradients(setup: Setup, state: State, batch: _Batch) -> float:
    """The loss of a batch; its gradients are in the parameters afterwards."""
    guide, inside = setup.guide, {}
    with _precision(setup.device):
        if guide is None:
            outputs = setup.model(batch.x)
        else:
            outputs, inside = run_watched(setup.model, batch.x, {point.student for point in guide.points})
    loss = distillation_loss(setup.workload.task, outputs.float(), batch.y, batch.taught, setup.recipe, batch.mix)
    if guide is not None:
        loss = loss + guide_loss(guide, batch.inside, inside, setup.recipe)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _precision(device: torch.device) -> AbstractContextManager[object]:
    """Half the bits on a GPU that has them; float32 on the CPU, where bfloat16 training fell to chance in a trial."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
