"""One step of training: a batch, its loss, its gradients, new weights."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch

from edgeprune.training.clipping import clip
from edgeprune.training.distil import Teacher, distillation_loss
from edgeprune.training.state import Setup, State, rate
from edgeprune.workload.samples import batch_of


def take_step(setup: Setup, state: State, indices: torch.Tensor) -> float | None:
    """Train on the samples at `indices`.

    Returns:
        The loss; None, with the weights as they were, when it or a gradient is not finite.
    """
    x, y = _batch(setup, state, indices)
    loss = _loss(setup, x, y, indices)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = clip(setup.model.parameters(), setup.recipe, setup.settings.clip_norm)
    value = loss.item()
    if not math.isfinite(value) or not math.isfinite(norm.item()):
        return None
    for group in state.optimiser.param_groups:
        group["lr"] = rate(setup, state)
    state.optimiser.step()
    state.step += 1
    return value


def _batch(setup: Setup, state: State, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (n, ...) as the model is trained on them, and targets (n, ...)."""
    x, y = batch_of(setup.workload.data.train, indices)
    x, y = x.to(setup.device), y.to(setup.device)
    if setup.workload.augment is not None:
        x = setup.workload.augment(x, state.generator)
    return x.to(memory_format=setup.layout), y


def _loss(setup: Setup, x: torch.Tensor, y: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    with _precision(setup.device):
        outputs = setup.model(x)
        taught = _taught(setup.teacher, indices, x)
    return distillation_loss(setup.workload.task, outputs.float(), y, taught, setup.recipe)


def _taught(teacher: Teacher | None, indices: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    if teacher is None:
        return None
    if isinstance(teacher, torch.Tensor):
        return teacher[indices].to(x.device)
    with torch.no_grad():
        outputs: torch.Tensor = teacher(x)
        return outputs.float()


def _precision(device: torch.device) -> AbstractContextManager[object]:
    """Half the bits on a GPU that has them; float32 on the CPU, where bfloat16 training fell to chance in a trial."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
