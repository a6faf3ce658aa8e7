"""Outputs and metrics of a model, or of an exported file in its own runtime, over a whole set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgeprune.errors import QualityError
from edgeprune.progress import SILENT, Progress
from edgeprune.training.layout import channels_last_if_it_runs, restored_layout
from edgeprune.workload import Array, Dataset, Task
from edgeprune.workload.samples import batch_count, batches
from edgeprune.workload.tasks import check_metrics

if TYPE_CHECKING:
    from edgeprune.backends import Session


@torch.no_grad()
def predict(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> tuple[Array, Array]:
    """Raw outputs (n, ...) float32 and targets (n, ...) of every sample, in order; the model ends in eval mode.

    Raises:
        QualityError: An output is not finite.
    """
    model.to(device).eval()
    outputs: list[Array] = []
    targets: list[Array] = []
    with restored_layout(model):
        layout = None
        for x, y in progress.track(batches(dataset, batch_size), "evaluate", batch_count(dataset, batch_size)):
            layout = layout or channels_last_if_it_runs(model, x.to(device))
            outputs.append(model(x.to(device, memory_format=layout)).float().cpu().numpy())
            targets.append(y.numpy())
    return _finite(np.concatenate(outputs)), np.concatenate(targets)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    task: Task,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> dict[str, float]:
    """The task's metrics over the whole set.

    Raises:
        QualityError: An output is not finite.
        UsageError: The task's metrics lack the primary one or are not finite.
    """
    return check_metrics(task.metrics(*predict(model, dataset, batch_size, device, progress)), task)


def evaluate_session(
    session: Session, dataset: Dataset, task: Task, batch_size: int = 64, progress: Progress = SILENT
) -> dict[str, float]:
    """The task's metrics of an exported file, computed by its own runtime.

    Raises:
        QualityError: An output is not finite.
    """
    outputs: list[Array] = []
    targets: list[Array] = []
    label = f"evaluate on {session.runtime}"
    for x, y in progress.track(batches(dataset, batch_size), label, batch_count(dataset, batch_size)):
        outputs.append(session.run(x.numpy()))
        targets.append(y.numpy())
    return check_metrics(task.metrics(_finite(np.concatenate(outputs)), np.concatenate(targets)), task)


def better(value: float, than: float | None, task: Task) -> bool:
    """Whether a value of the primary metric beats another; anything beats None."""
    if than is None:
        return True
    return value > than if task.higher_is_better else value < than


def _finite(outputs: Array) -> Array:
    bad = int(np.sum(~np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)))
    if bad:
        raise QualityError(
            f"{bad} of {len(outputs)} samples give outputs that are not finite",
            where="evaluation",
            hint="a lower learning rate (fit.learning_rate), or check the model on this data",
        )
    return outputs
