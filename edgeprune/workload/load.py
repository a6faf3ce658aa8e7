"""Model, data and task of a job, put together and tried on a real batch before anything costs time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.spec import Spec
from edgeprune.workload import Data, Task, Workload
from edgeprune.workload.augment import augmentation, check_augmentation, mixup_alpha
from edgeprune.workload.data import load_data
from edgeprune.workload.models import load_model
from edgeprune.workload.samples import TensorSet, batch_of, labels_of
from edgeprune.workload.tasks import Classify, check_task, load_task


def load_workload(spec: Spec) -> Workload:
    """The job's workload; without a model the built-in demo.

    Raises:
        UsageError: Model, data and task cannot be used or do not fit each other.
        TrustError: A file that could run code.
        MissingExtraError: The model library is not installed.
    """
    if spec.is_demo:
        from edgeprune.workload.demo import demo_workload

        return _augmented(demo_workload(spec.fit.seed, spec.fit.calibration_samples), spec)
    task = load_task(spec.task)
    data = load_data(spec.data, spec.fit.seed, spec.fit.calibration_samples)
    model = load_model(spec.model)
    check_fit(model, data, task)
    example = batch_of(data.train, [0])[0]
    assert spec.model.entry is not None
    return _augmented(Workload(_short_name(spec.model.entry), "user", model, example, data, task), spec)


def _augmented(workload: Workload, spec: Spec) -> Workload:
    """The workload with the job's augmentation.

    Raises:
        UsageError: It means nothing for such samples.
    """
    check_augmentation(spec.data, tuple(workload.example.shape[1:]))
    return replace(workload, augment=augmentation(spec.data), mixup_alpha=mixup_alpha(spec.data))


def check_fit(model: nn.Module, data: Data, task: Task) -> None:
    """Run a small batch through model, loss and metrics.

    Raises:
        UsageError: The model does not take the data's shape (both shapes are named), gives no single tensor or
            values that are not finite, labels do not fit its outputs, or the task fails.
    """
    inputs, targets = batch_of(data.train, range(min(8, len(data.train))))
    for role in ("validation", "test"):
        other = batch_of(getattr(data, role), [0])[0]
        if other.shape[1:] != inputs.shape[1:]:
            raise UsageError(
                f"{role} samples are {_shape(other)}, training samples {_shape(inputs)}",
                where="--data",
                hint="all sets need one shape",
            )
    outputs = _outputs(model, inputs)
    if isinstance(task, Classify) and outputs.ndim >= 2:
        _check_label_range(data, outputs.shape[1])
    check_task(task, outputs, targets)


def _outputs(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    model.eval()
    try:
        outputs = model(inputs)
    except Exception as err:  # shapes that do not fit fail in many ways
        raise UsageError(
            f"the model does not take inputs of shape {_shape(inputs)}: {_first_layer(model)}; {_first_line(err)}",
            where="--data",
            hint="channels come first: (channels, height, width); size = [H, W] under [data] scales images",
        ) from err
    if not isinstance(outputs, torch.Tensor):
        raise UsageError(
            f"the model gives {type(outputs).__name__}, not one tensor",
            where="--model",
            hint="wrap it in a module that returns the tensor to be deployed",
        )
    if len(outputs) != len(inputs):
        raise UsageError(f"{len(inputs)} samples gave outputs {tuple(outputs.shape)}", where="--model")
    if not bool(torch.isfinite(outputs).all()):
        raise UsageError("the model's outputs on the first samples are not finite", where="--model")
    return outputs


def _check_label_range(data: Data, classes: int) -> None:
    """Where labels are at hand, all are looked at; else those of the first samples, by the loss."""
    for role in ("train", "validation", "test"):
        dataset = getattr(data, role)
        if not isinstance(dataset, TensorSet) and not hasattr(dataset, "labels"):
            continue
        labels = labels_of(dataset)
        if labels.dtype.kind in "iu" and (labels.min() < 0 or labels.max() >= classes):
            raise UsageError(
                f"{role} labels go from {np.min(labels)} to {np.max(labels)}, the model has {classes} outputs",
                where="--data",
                hint=f"labels must be 0 … {classes - 1}",
            )


def _first_layer(model: nn.Module) -> str:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            dimensions = ("length", "height, width", "depth, height, width")[len(layer.kernel_size) - 1]
            return f"its first layer {name!r} takes ({layer.in_channels}, {dimensions})"
        if isinstance(layer, nn.Linear):
            return f"its first layer {name!r} takes (…, {layer.in_features})"
    return "its first layer is unknown"


def _first_line(err: Exception) -> str:
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)


def _shape(batch: torch.Tensor) -> str:
    return str(tuple(batch.shape[1:]))


def _short_name(entry: str) -> str:
    """For folders and reports: `make` of `nets.py:make`, `net` of `models/net.pt2`."""
    entry = Path(entry).stem if entry.endswith(".pt2") else entry
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", entry.rpartition(":")[2] or entry)[:40]
