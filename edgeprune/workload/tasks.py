"""What a model is for: its loss and its metrics. `classify` is built in; others are objects of the user's code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from edgeprune.errors import EdgepruneError, UsageError, did_you_mean
from edgeprune.workload import Array, Task
from edgeprune.workload.entries import call_entry, is_entry, load_entry


class Classify:
    """One label of several per sample: integer targets (n, ...), raw scores (n, classes, ...)."""

    primary = "accuracy"
    higher_is_better = True

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy."""
        return torch.nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs: Array, targets: Array) -> dict[str, float]:
        """`accuracy`, and `macro_f1` over the classes that occur, both as fractions."""
        guesses = outputs.argmax(axis=1).reshape(-1)
        truth = targets.reshape(-1)
        scores = []
        for label in np.unique(truth):
            hits = np.sum((guesses == label) & (truth == label))
            scores.append(2 * hits / (np.sum(guesses == label) + np.sum(truth == label)))
        return {"accuracy": float(np.mean(guesses == truth)), "macro_f1": float(np.mean(scores))}


_BUILT_IN = {"classify": Classify}


def load_task(name: str) -> Task:
    """A built-in task, or the user's own: `file.py:name` of an object, class or function that gives one.

    Raises:
        UsageError: No such task, or an object without the four names of the Task protocol.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    if not is_entry(name):
        raise UsageError(
            f"unknown task {name!r}", where="--task", hint=did_you_mean(name, [*_BUILT_IN, "file.py:name"])
        )
    found = load_entry(name, "--task")
    is_maker = isinstance(found, type) or (callable(found) and not hasattr(found, "loss"))
    return _validated(call_entry(found, {}, "--task") if is_maker else found, name)


def _validated(task: Any, name: str) -> Task:
    for method in ("loss", "metrics"):
        if not callable(getattr(task, method, None)):
            raise UsageError(
                f"{name} has no method {method!r}",
                where="--task",
                hint="a task has loss(outputs, targets), metrics(outputs, targets), primary and higher_is_better",
            )
    for attribute, kind in (("primary", str), ("higher_is_better", bool)):
        value = getattr(task, attribute, None)
        if not isinstance(value, kind):
            raise UsageError(
                f"{name}.{attribute} is {value!r}, not {'a text' if kind is str else 'true or false'}",
                where="--task",
                hint="primary = 'accuracy' and higher_is_better = True, for example",
            )
    valid: Task = task
    return valid


def check_task(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Try the task on a real batch before any training.

    Args:
        outputs: The model's raw outputs with gradients.
        targets: The targets of the same samples.

    Raises:
        UsageError: Labels out of range, a loss or metrics that fail, or of the wrong kind.
    """
    if isinstance(task, Classify):
        _check_labels(outputs, targets)
    name = type(task).__name__
    loss = _tried(lambda: task.loss(outputs, targets), f"{name}.loss", outputs, targets)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        described = f"{tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise UsageError(
            f"{name}.loss gave {described}, not one number with a gradient",
            where="--task",
            hint="compute it from the outputs with torch and average over the batch",
        )
    found = _tried(lambda: task.metrics(outputs.detach().numpy(), targets.numpy()), f"{name}.metrics", outputs, targets)
    check_metrics(found, task)


def check_metrics(found: Any, task: Task) -> dict[str, float]:
    """The metrics as floats.

    Raises:
        UsageError: No mapping, the primary metric is not among them, or one is not a finite number.
    """
    name = type(task).__name__
    if not hasattr(found, "items") or task.primary not in found:
        keys = ", ".join(map(str, found)) if hasattr(found, "items") else type(found).__name__
        raise UsageError(f"{name}.metrics gave {keys}, without the primary metric {task.primary!r}", where="--task")
    metrics = {str(key): float(value) for key, value in found.items()}
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise UsageError(f"{name}.metrics: {key} is {value}", where="--task", hint="metrics must be finite numbers")
    return metrics


def _tried(call: Any, what: str, outputs: torch.Tensor, targets: torch.Tensor) -> Any:
    try:
        return call()
    except EdgepruneError:
        raise
    except Exception as err:  # whatever the user's code raises
        raise UsageError(
            f"{what} failed on outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: {err}",
            where="--task",
            hint="it is given the model's raw outputs and the targets of one batch",
        ) from err


def _check_labels(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    if targets.is_floating_point():
        raise UsageError(
            f"targets are {targets.dtype}, not class labels",
            where="--data",
            hint="classify needs integers 0, 1, 2, …; for other targets give --task file.py:name",
        )
    if outputs.ndim < 2 or outputs.shape[:1] + outputs.shape[2:] != targets.shape:
        raise UsageError(
            f"outputs {tuple(outputs.shape)} do not belong to targets {tuple(targets.shape)}",
            where="--task",
            hint="classify needs outputs (n, classes) and targets (n,)",
        )
