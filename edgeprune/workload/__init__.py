"""Workload: the user's model, data and task, as the pipeline uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]


class Dataset(Protocol):
    """A sized, indexable set of samples. `x` is float32 as the model takes it (images CHW), without a batch axis."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Array, Any]: ...


class Task(Protocol):
    """What the model is for. A user's own task is any object with these four names.

    `primary` names the metric that decisions rest on.
    """

    primary: str
    higher_is_better: bool

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Scalar training loss of one batch of raw model outputs."""
        ...

    def metrics(self, outputs: Array, targets: Array) -> Mapping[str, float]:
        """Metrics over a whole set, as fractions where they are shares; works on any runtime's outputs."""
        ...


@dataclass(frozen=True)
class Data:
    """Four disjoint roles. Every decision is taken on `validation`; `test` is used once, for reported numbers.

    `calibration` is drawn from the training set. `notes` say what was split off, scaled or assumed.
    """

    train: Dataset
    validation: Dataset
    calibration: Dataset
    test: Dataset
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """Everything a run needs to know about the user's problem.

    Attributes:
        name: Short name for folders and reports.
        kind: `demo` for the built-in problem, else `user`.
        model: The dense model in eval mode.
        example: One input with a batch axis of one, from the data.
        augment: Maps a training batch (n, ...) to an augmented one, or None.
        mixup_alpha: Training batches are mixed in pairs by shares from Beta(alpha, alpha); 0: they are not.
    """

    name: str
    kind: Literal["demo", "user"]
    model: torch.nn.Module
    example: torch.Tensor
    data: Data
    task: Task
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None
    mixup_alpha: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the data, for the record."""
        return self.data.notes
