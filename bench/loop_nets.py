"""Three small networks with the built-in scenes, for benchmarks of the loop: what trains and exports within seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.workload import Data, Workload
from edgeprune.workload.demo import demo_model, demo_scenes
from edgeprune.workload.demo_scenes import CLASSES
from edgeprune.workload.samples import TensorSet, part
from edgeprune.workload.tasks import Classify

_SCENES = {"train": 512, "validation": 256, "test": 256}
_CALIBRATION = 64
_EPOCHS = 3  # of training the networks that have no weights of their own


def normed(before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without a bias and its BatchNorm."""
    conv = nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


class _Residual(nn.Module):
    """Two 3 x 3 convolutions beside a projected or plain shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = normed(before, width, 3, stride), normed(width, width, 3)
        self.shortcut = nn.Identity() if before == width and stride == 1 else normed(before, width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Inverted(nn.Module):
    """Widen, filter each channel, narrow again; a shortcut where the shape stays."""

    def __init__(self, before: int, width: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        inner = expand * before
        self.widen, self.filter = normed(before, inner, 1), normed(inner, inner, 3, stride, inner)
        self.narrow = normed(inner, width, 1)
        self.adds = before == width and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(F.relu6(self.filter(F.relu6(self.widen(x)))))
        return x + y if self.adds else y


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]


def residual() -> nn.Module:
    """Of the make of ResNet-8: three blocks at 64, 32 and 16 pixels. Fresh weights."""
    blocks = [_Residual(16, 16, 1), _Residual(16, 32, 2), _Residual(32, 64, 2)]
    return nn.Sequential(normed(1, 16, 3), nn.ReLU(), *blocks, *_head(64))


def mobile() -> nn.Module:
    """Of the make of MobileNetV2: six inverted residuals from 32 to 8 pixels. Fresh weights."""
    shapes = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 64, 1))
    return nn.Sequential(normed(1, 16, 3, 2), nn.ReLU6(), *(Inverted(*shape) for shape in shapes), *_head(64))


_BUILDERS: dict[str, Callable[[], nn.Module]] = {"residual": residual, "mobile": mobile, "demo": demo_model}
NETS = tuple(_BUILDERS)


@lru_cache(maxsize=len(NETS))
def workload(name: str) -> Workload:
    """A network with its weights, and a small part of the built-in scenes."""
    sets = {split: demo_scenes(split, count) for split, count in _SCENES.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _BUILDERS[name]()
        if name != "demo":
            _train(model, sets["train"])
    data = Data(
        train=sets["train"],
        validation=sets["validation"],
        calibration=part(sets["train"], range(_CALIBRATION)),
        test=sets["test"],
    )
    return Workload(name, "user", model.eval(), sets["train"].x[:1], data, Classify())


def _train(model: nn.Module, train: TensorSet) -> None:
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(_EPOCHS):
        for index in torch.randperm(len(train)).split(32):
            loss = F.cross_entropy(model(train.x[index]), train.y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
