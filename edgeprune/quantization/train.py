"""Quantisation-aware training: fine-tuning on the grid of the exported files, with gradients straight through it.

Ranges follow the training batches (a moving average); weights go back to the float model, which is then exported
like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.trace import Captured, attribute
from edgeprune.quantization.fake import quantised
from edgeprune.quantization.layers import with_tensors
from edgeprune.quantization.ranges import Range
from edgeprune.spec import FitSpec
from edgeprune.training.distil import Teacher
from edgeprune.training.fine_tune import fine_tune
from edgeprune.workload import Workload

RATE = 0.1  # of the learning rate of fine-tuning: the weights are good already


def trained_on_grid(
    captured: Captured,
    workload: Workload,
    ranges: Mapping[str, Range],
    weight_limit: int,
    settings: FitSpec,
    *,
    epochs: int,
    teacher: Teacher | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Captured:
    """A copy with weights trained for their rounded values; those of the best epoch on validation, or as they came.

    Args:
        captured: With BatchNorm folded (`layers.folded`).
        ranges, weight_limit: As of `fake.quantised`.
        settings: As of `fine_tune`; a tenth of its learning rate is used.
    """
    model = quantised(captured, ranges, weight_limit).module
    slower = settings.model_copy(update={"learning_rate": settings.learning_rate * RATE})
    fine_tune(model, workload, settings=slower, teacher=teacher, epochs=epochs, device=device, progress=progress)
    model.cpu()
    return with_tensors(captured, {name: attribute(model, name) for name, _ in captured.module.named_parameters()})
