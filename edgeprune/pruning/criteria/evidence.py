"""What a criterion is given and what it returns, and the register of criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.trace import Captured

Score = np.ndarray[Any, np.dtype[np.float64]]  # (channels,), larger stays
Scores = dict[str, Score]  # per group
Loss = Callable[[Any, torch.Tensor], torch.Tensor]  # (outputs, targets) to one number, the mean over the batch
Needs = Literal["weights", "inputs", "targets"]


@dataclass(frozen=True)
class Sampled:
    """One batch: the model's inputs in order, batch on axis 0, and the targets of its samples where they are known."""

    inputs: tuple[Any, ...]
    targets: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(pytree.tree_leaves(self.inputs)[0])


@dataclass(frozen=True)
class Evidence:
    """All that a criterion may look at. It is the caller's: a criterion changes nothing of it.

    Attributes:
        captured: The model, in eval mode while it is scored.
        groups: The channels to score.
        batches: On the model's device; empty where there is no data.
        loss: Of the task; None where it is not known.
        seed: Everything that is drawn at random follows from it.
    """

    captured: Captured
    groups: ChannelGroups
    batches: tuple[Sampled, ...] = ()
    loss: Loss | None = None
    seed: int = 0

    def loss_of(self, outputs: Any, batch: Sampled) -> torch.Tensor:
        """The task's loss of one batch. Only for criteria that say that they need targets."""
        assert self.loss is not None and batch.targets is not None
        return self.loss(outputs, batch.targets)


@dataclass(frozen=True)
class Found:
    """Scores per group, larger stays, and those of two halves of the batches where each had some."""

    scores: Scores
    halves: tuple[Scores, Scores] | None = None


@dataclass(frozen=True)
class Criterion:
    """A way of scoring channels.

    Attributes:
        needs: The least that the evidence must hold.
        note: What the user must be told whenever it is used; mostly nothing.
        own: Whether it is of the user's own code.
    """

    name: str
    score: Callable[[Evidence], Found]
    needs: Needs
    note: str = ""
    own: bool = False

    def seen(self, evidence: Evidence) -> int:
        """How many samples it may have looked at; 0 for one that looks at weights only."""
        return 0 if self.needs == "weights" and not self.own else sum(map(len, evidence.batches))

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.score.__doc__ or "").strip().partition("\n")[0]


def registered(*families: Mapping[str, Any]) -> dict[str, Criterion]:
    """The criteria among the names of some modules, by name; every function once.

    Raises:
        ValueError: Two criteria of one name, or two names for one function.
    """
    found: dict[str, Criterion] = {}
    for family in families:
        for key, value in family.items():
            if not isinstance(value, Criterion):
                continue
            if value.name in found or key != value.name:
                raise ValueError(f"criterion {value.name!r} is registered twice")
            found[value.name] = value
    return found


def criterion(needs: Needs, note: str = "") -> Callable[[Callable[[Evidence], Found]], Criterion]:
    """Makes a criterion of a function, under the function's name."""

    def named(function: Callable[[Evidence], Found]) -> Criterion:
        return Criterion(function.__name__, function, needs, note)

    return named
