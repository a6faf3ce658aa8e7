"""Networks with data and a loss, for tests of criteria."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from edgeprune.pruning.criteria.evidence import Evidence, Sampled
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.trace import trace
from tests.pruning.nets import NETS, randomised
from tests.pruning.operator_nets import CASES


def error_of(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """A loss that bends for outputs of any structure: mean squared distance of the sample means to the targets."""
    means = [
        y.flatten(1).mean(1) if y.ndim > 1 else y
        for y in pytree.tree_leaves(outputs)
        if isinstance(y, torch.Tensor) and y.is_floating_point() and len(y) == len(targets)
    ]
    return torch.stack([(mean - targets).square().mean() for mean in means]).mean()


def on_images(build: str, batches: int = 3, seed: int = 0) -> Evidence:
    """A network of `nets` on random images with class labels."""
    captured = trace(randomised(NETS[build]), torch.zeros(1, 3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    taken = tuple(
        Sampled(
            (torch.randn(4, 3, 16, 16, generator=generator),), torch.randint(0, 5, (4,), generator=generator).float()
        )
        for _ in range(batches)
    )
    return Evidence(captured, channel_groups(captured.graph), taken, error_of, seed)


def on_operators(case: str, seed: int = 0) -> Evidence:
    """A network of `operator_nets` on the inputs that it comes with, twice, with targets."""
    torch.manual_seed(0)
    model, inputs = CASES[case]()
    captured = trace(model.eval(), inputs)
    count = len(pytree.tree_leaves(inputs)[0])
    taken = tuple(Sampled(inputs, torch.arange(count).float() + k) for k in range(2))
    return Evidence(captured, channel_groups(captured.graph), taken, error_of, seed)


def of_layers(*layers: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, split: int, loss: Any) -> Evidence:
    """A stack of layers on given data, in batches of `split`."""
    captured = trace(nn.Sequential(*layers).eval(), inputs[:1])
    taken = tuple(Sampled((x,), y) for x, y in zip(inputs.split(split), targets.split(split), strict=True))
    return Evidence(captured, channel_groups(captured.graph), taken, loss, 0)
