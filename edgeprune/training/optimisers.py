"""What turns gradients into steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from edgeprune.recipe import TrainSpec


def optimiser(
    parameters: Iterable[nn.Parameter], recipe: TrainSpec, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The recipe's optimiser of these parameters; weight decay works on matrices and kernels only.

    Source: AdamW is Loshchilov & Hutter 2019 (arXiv 1711.05101).
    """
    trained = list(parameters)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    momentum = recipe.momentum
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
