"""One training: what stays the same while it lasts, and everything that changes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from edgeprune.progress import Progress
from edgeprune.recipe import TrainSpec
from edgeprune.spec import FitSpec
from edgeprune.training.distil import Teacher
from edgeprune.training.guide import Guide
from edgeprune.training.optimisers import optimiser
from edgeprune.training.order import Order
from edgeprune.training.precision import Forward, loss_scaler
from edgeprune.training.ranks import Ranks
from edgeprune.training.rates import rate_share
from edgeprune.values import Value
from edgeprune.workload import Workload

Snapshot = dict[str, torch.Tensor]


class EpochResult(Value):
    """One pass. Epoch 0 is the model as it came; its loss, rate and speed are None."""

    epoch: int
    metrics: dict[str, float]  # on the validation set
    loss: float | None = None
    learning_rate: float | None = None  # at the end of the epoch
    samples_per_s: float | None = None
    averaged: dict[str, float] | None = None  # metrics of the average of weights, where one is made


class Best(Value):
    """The best weights so far: their epoch, whether they are its average, the primary metric on validation."""

    metric: float
    epoch: int
    averaged: bool = False


@dataclass(frozen=True)
class Setup:
    """What one training is done with.

    Attributes:
        half: Layers compute in it where it is safe; None: float32.
        forward: The model as it is called in training.
        layout: Of batches and weights while they are trained.
        epochs: How often the model is judged, after `per_epoch` steps each.
        judge_first: The weights as they came are a candidate too.
    """

    model: nn.Module
    workload: Workload
    teacher: Teacher | None
    guide: Guide | None
    settings: FitSpec
    recipe: TrainSpec
    device: torch.device
    half: torch.dtype | None
    forward: Forward
    layout: torch.memory_format
    progress: Progress
    ranks: Ranks
    epochs: int
    per_epoch: int
    judge_first: bool

    @property
    def total_steps(self) -> int:
        return self.epochs * self.per_epoch

    @property
    def batch_size(self) -> int:
        """Samples per step."""
        return min(self.settings.batch_size, len(self.workload.data.train))


@dataclass
class State:
    """Everything that changes: with it and the setup a training goes on as if it had never stopped.

    Attributes:
        generator: Of the order of samples and of augmentation.
        average: The average of the weights, where the recipe makes one.
        last_good: The weights after the last epoch that ended well, and their average then.
        kept: The best weights.
        done: Steps of the epoch that is under way, and the sum of their losses and seconds.
    """

    generator: torch.Generator
    order: Order
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    last_good: Snapshot
    kept: Snapshot
    average: Snapshot | None = None
    last_average: Snapshot | None = None
    step: int = 0
    halvings: int = 0
    epoch: int = 0
    done: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    best: Best | None = None
    history: list[EpochResult] = field(default_factory=list)


def begun(setup: Setup) -> State:
    """The state before the first step; the global random state decides what is drawn."""
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    order = Order(len(setup.workload.data.train), setup.settings.batch_size, generator)
    start = snapshot(setup)
    state = State(
        generator, order, fresh_optimiser(setup), loss_scaler(setup.device, setup.half), last_good=start, kept=start
    )
    if setup.recipe.ema > 0:
        state.average, state.last_average = snapshot(setup), start
    return state


def fresh_optimiser(setup: Setup) -> torch.optim.Optimizer:
    """The recipe's optimiser without momentum."""
    fit = setup.settings
    return optimiser(trained_parameters(setup), setup.recipe, fit.learning_rate, fit.weight_decay)


def trained_tensors(setup: Setup) -> Snapshot:
    """Everything that steps change in place, without gradients: the weights and statistics of model and guide."""
    found = {name: value.detach() for name, value in setup.model.state_dict().items()}
    if setup.guide is not None:
        found |= {f"guide.{name}": value.detach() for name, value in setup.guide.projections.items()}
    return found


def snapshot(setup: Setup) -> Snapshot:
    """A copy of the weights and statistics."""
    return {name: value.clone() for name, value in trained_tensors(setup).items()}


def put_back(setup: Setup, weights: Snapshot) -> None:
    """Make the trained tensors those of a snapshot."""
    for name, value in trained_tensors(setup).items():
        value.copy_(weights[name])


def trained_parameters(setup: Setup) -> list[nn.Parameter]:
    """What gradients are computed for; the model's last layer is last."""
    own = [] if setup.guide is None else list(setup.guide.projections.values())
    return own + [p for p in setup.model.parameters() if p.requires_grad]


def rate(setup: Setup, state: State) -> float:
    """The learning rate of the next step; it is halved after each accident."""
    share = rate_share(setup.recipe, state.step, setup.total_steps)
    return setup.settings.learning_rate * 0.5**state.halvings * share
