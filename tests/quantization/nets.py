"""Nets for quantisation: a depthwise one that has learnt the digits, and what makes int8 collapse on it."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.workload import Data, Workload
from edgeprune.workload.tasks import Classify
from tests.digits import digits


def unit(
    inputs: int, outputs: int, kernel: int = 1, groups: int = 1, stride: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A convolution with its BatchNorm and activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


class Depthwise(nn.Module):
    """(n, 1, 16, 16) to (n, 10): a stem, two depthwise-separable blocks, a head."""

    def __init__(self, width: int = 16, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            [
                unit(1, width, 3, stride=2, act=act),
                unit(width, width, 3, groups=width, act=act),
                unit(width, 2 * width, act=act),
                unit(2 * width, 2 * width, 3, groups=2 * width, act=act),
                unit(2 * width, 2 * width, act=act),
            ]
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.units:
            x = step(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@lru_cache(maxsize=1)
def _learnt() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, train = Depthwise(), digits()["train"]
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(16):
            for index in torch.randperm(len(train)).split(50):
                loss = F.cross_entropy(model(train.x[index]), train.y[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def learnt() -> Depthwise:
    """The depthwise net, trained, in eval mode."""
    model = Depthwise()
    model.load_state_dict(_learnt())
    return model.eval()


@torch.no_grad()
def unequal(model: Depthwise, decades: float = 1.5, seed: int = 0) -> Depthwise:
    """The same function with channels up to 10^±decades apart: plain int8 has no steps left for the small ones."""
    generator = torch.Generator().manual_seed(seed)
    readers = [*(step[0] for step in model.units[1:]), model.head]
    for step, reader in zip(model.units, readers):
        scale = 10 ** ((torch.rand(step[1].num_features, generator=generator) * 2 - 1) * decades)
        step[1].weight.mul_(scale)
        step[1].bias.mul_(scale)
        depthwise = isinstance(reader, nn.Conv2d) and reader.groups > 1
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, *[1] * (reader.weight.ndim - 2))
        reader.weight.div_(scale.view(shape))
    return model


def workload(model: nn.Module) -> Workload:
    """The digits with this net."""
    sets = digits()
    data = Data(sets["train"], sets["validation"], sets["train"], sets["test"])
    return Workload("digits", "user", model, sets["train"].x[:1], data, Classify())
