"""The loss of fine-tuning: the task's own and closeness to the dense model (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import torch
from torch import nn

from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import TrainSpec
from edgeprune.training.evaluate import predict
from edgeprune.workload import Task, Workload
from edgeprune.workload.augment import Mixed
from edgeprune.workload.samples import TensorSet
from edgeprune.workload.tasks import Classify

Teacher = nn.Module | torch.Tensor


def teacher_for(
    model: nn.Module, workload: Workload, device: torch.device | str = "cpu", progress: Progress = SILENT
) -> Teacher:
    """The dense model as a teacher: its outputs (n, ...) on the training set when every epoch shows the same samples,
    else the model itself. Compute it once and hand it to every fine-tuning of the run.

    Raises:
        QualityError: An output is not finite.
    """
    changing = workload.augment is not None or workload.mixup_alpha > 0
    if changing or not isinstance(workload.data.train, TensorSet):
        return model.to(device).eval()
    return torch.from_numpy(predict(model, workload.data.train, device=device, progress=progress)[0])


def task_loss(task: Task, outputs: torch.Tensor, targets: torch.Tensor, recipe: TrainSpec) -> torch.Tensor:
    """The task's own loss; for classification with smoothed labels where the recipe wants them.

    Source: label smoothing is Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    if isinstance(task, Classify) and recipe.label_smoothing > 0:
        return torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=recipe.label_smoothing)
    return task.loss(outputs, targets)


def distillation_loss(
    task: Task,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    taught: torch.Tensor | None,
    recipe: TrainSpec,
    mixed: Mixed | None = None,
) -> torch.Tensor:
    """The task's loss, a share of it replaced by the distance to the teacher's outputs when there are any.

    For classification that distance is T² KL(teacher ‖ student) of softened scores (n, classes, ...), T the recipe's
    temperature; for other tasks the mean squared difference of outputs.

    Args:
        taught: The teacher's outputs on the same inputs, mixed like the student's.
        mixed: What the inputs were mixed with.
    """

    def own(wanted: torch.Tensor) -> torch.Tensor:
        return task_loss(task, outputs, wanted, recipe)

    loss = own(targets) if mixed is None else mixed.loss(own, targets)
    if taught is None:
        return loss
    share, temperature = recipe.teacher_share, recipe.temperature
    if isinstance(task, Classify):
        student = torch.log_softmax(outputs / temperature, dim=1)
        wanted = torch.log_softmax(taught / temperature, dim=1)
        divergence = torch.nn.functional.kl_div(student, wanted, reduction="none", log_target=True).sum(dim=1).mean()
        distance = temperature**2 * divergence
    else:
        distance = torch.nn.functional.mse_loss(outputs, taught)
    return (1 - share) * loss + share * distance
