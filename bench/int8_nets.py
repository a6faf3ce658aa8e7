"""Nets for the int8 benchmark: ResNet-20 with its published weights, and three that learn Fashion-MNIST here."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from bench.cifar import shared_data
from bench.cifar import workload as cifar
from bench.loop_nets import Inverted, normed
from edgeprune.spec import DataSpec
from edgeprune.workload import Data, Workload
from edgeprune.workload.arrays import read_idx
from edgeprune.workload.samples import TensorSet, part
from edgeprune.workload.tasks import Classify

CLASSES = 10
_TRAIN, _VALIDATION, _CALIBRATION = 16_000, 4_000, 256
_RATE, _BATCH = 3e-3, 100


class Mobile(nn.Module):
    """Of the make of MobileNetV2: inverted residuals with ReLU6 from 14 to 7 pixels; (n, 1, 28, 28) to (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 1), (32, 32, 1))
        self.stem, self.last = normed(1, 16, 3, 2), normed(32, 96, 1)
        self.blocks = nn.Sequential(*(Inverted(*shape) for shape in shapes))
        self.head = nn.Linear(96, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.last(self.blocks(F.relu6(self.stem(x)))))
        found: torch.Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return found


class Transformer(nn.Module):
    """Two pre-norm blocks over the 28 rows of an image."""

    def __init__(self, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.position = nn.Linear(28, width), nn.Parameter(torch.zeros(1, 28, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.mixes = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.flatten(1, 2)) + self.position
        for i in range(2):
            n, t, c = x.shape
            parts = (
                self.mixes[i](self.norms[2 * i](x)).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            )
            y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2]).transpose(1, 2).reshape(n, t, c)
            x = x + self.outs[i](y)
            x = x + self.narrow[i](F.gelu(self.wide[i](self.norms[2 * i + 1](x))))
        found: torch.Tensor = self.head(x.mean(1))
        return found


class Recurrent(nn.Module):
    """A GRU over the 28 rows of an image."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(28, width, batch_first=True), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.gru(x.flatten(1, 2))[0][:, -1])
        return found


_BUILDERS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and epochs
    "mobile": (Mobile, 4),
    "transformer": (Transformer, 4),
    "gru": (Recurrent, 3),
}
NETS = ("resnet20", *_BUILDERS)


def workload(name: str, test_images: int) -> Workload:
    """A trained net with its data; the test images are the first ones."""
    if name == "resnet20":
        return cifar(20_000, test_images)
    data = _fashion(test_images)
    build, epochs = _BUILDERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        _train(model, data.train, epochs)
    return Workload(name, "user", model.eval(), data.train.x[:1], data, Classify())  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _fashion(test_images: int) -> Data:
    parts, _ = read_idx(shared_data() / "fashion_mnist", DataSpec())
    train, test = parts["train"], parts["test"]
    end = _TRAIN + _VALIDATION
    return Data(
        part(train, range(_TRAIN)),
        part(train, range(_TRAIN, end)),
        part(train, range(_CALIBRATION)),
        part(test, range(test_images)),
    )


def _train(model: nn.Module, train: TensorSet, epochs: int) -> None:
    steps = epochs * (len(train) // _BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(train))[: len(train) // _BATCH * _BATCH].split(_BATCH):
            loss = F.cross_entropy(model(train.x[index]), train.y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
