"""What turns gradients into steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from edgeprune.recipe import TrainSpec


def optimiser(
    parameters: Iterable[nn.Parameter], recipe: TrainSpec, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The recipe's optimiser of all trainable parameters; weight decay works on matrices and kernels only."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    momentum = recipe.momentum
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
