"""Small networks, one per coupling that a channel group must get right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan

NETS: dict[str, Callable[[], nn.Module]] = {}


def net(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    NETS[build.__name__] = build
    return build


class Lambda(nn.Module):
    """A network of named layers with a forward pass given as a function of them."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.body = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def conv(cin: int, cout: int, k: int = 3, s: int = 1, g: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


@net
def plain() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 24, s=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))


@net
def biased() -> nn.Module:
    layers = [nn.Conv2d(3, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3), nn.Hardswish()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


@net
def flattened_map() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.head(m.body2(m.stem(x)).view(-1, 8 * 16))

    return Lambda(forward, stem=conv(3, 12), body2=conv(12, 8, s=4), head=nn.Linear(128, 5))


@net
def residual() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        x = F.relu(m.b2(m.a2(m.a(x))) + x)
        return m.head(x.mean((2, 3)))

    a2 = nn.Conv2d(24, 16, 3, padding=1, bias=False)
    return Lambda(forward, stem=conv(3, 16), a=conv(16, 24), a2=a2, b2=nn.BatchNorm2d(16), head=nn.Linear(16, 5))


@net
def padded_shortcut() -> nn.Module:
    """The parameter-free shortcut of the CIFAR ResNets: strided slice, zeros on both sides of the channel axis."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(m.b2(m.a2(m.a(x))) + shortcut)
        return m.head(x.mean((2, 3)))

    a2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    return Lambda(forward, stem=conv(3, 8), a=conv(8, 16, s=2), a2=a2, b2=nn.BatchNorm2d(16), head=nn.Linear(16, 5))


@net
def dense_block() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        y = m.a(x)
        z = m.b(torch.cat([x, y], 1))
        return m.head(m.mix(torch.cat([x, y, z], 1)).mean((2, 3)))

    return Lambda(forward, stem=conv(3, 8), a=conv(8, 8), b=conv(16, 8), mix=conv(24, 16, k=1), head=nn.Linear(16, 5))


@net
def inverted_residual() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        x = x + m.project(m.depthwise(m.expand(x)))
        return m.head(x.mean((2, 3)))

    project = nn.Sequential(nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8))
    return Lambda(
        forward,
        stem=conv(3, 8),
        expand=conv(8, 32, k=1),
        depthwise=conv(32, 32, g=32),
        project=project,
        head=nn.Linear(8, 5),
    )


@net
def multiplier() -> nn.Module:
    """A depthwise convolution that makes two outputs of each input."""
    return nn.Sequential(conv(3, 8), conv(8, 16, g=8), conv(16, 8, k=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@net
def squeeze_excite() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        gate = F.hardsigmoid(m.up(F.relu(m.down(F.adaptive_avg_pool2d(x, 1)))))
        return m.head(m.out(x * gate).mean((2, 3)))

    return Lambda(
        forward,
        stem=conv(3, 16),
        down=nn.Conv2d(16, 8, 1),
        up=nn.Conv2d(8, 16, 1),
        out=conv(16, 12),
        head=nn.Linear(12, 5),
    )


@net
def grouped() -> nn.Module:
    layers = [conv(3, 16), conv(16, 32, g=4), conv(32, 16, k=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


@net
def shuffled() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        left, right = x.chunk(2, 1)
        x = torch.cat([left, m.right(right)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return m.head(m.out(x).mean((2, 3)))

    return Lambda(forward, stem=conv(3, 16), right=conv(8, 8), out=conv(16, 12), head=nn.Linear(12, 5))


@net
def own_norm() -> nn.Module:
    """A scale and shift written by hand: a parameter that is reshaped and broadcast."""

    class Affine(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(width) + 0.5)
            self.shift = nn.Parameter(torch.randn(1, width, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale.view(1, -1, 1, 1) + self.shift

    return nn.Sequential(
        nn.Conv2d(3, 12, 3), Affine(12), nn.PReLU(12), nn.Conv2d(12, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@net
def decoder() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        skip = m.stem(x)
        deep = F.interpolate(m.up(m.down(skip)), scale_factor=2.0)
        return m.head(torch.cat([skip, deep[:, :, :16, :16]], 1))

    return Lambda(
        forward,
        stem=conv(3, 8),
        down=conv(8, 16, s=4),
        up=nn.ConvTranspose2d(16, 12, 2, stride=2),
        head=nn.Conv2d(20, 3, 1),
    )


def randomised(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with weights and statistics that make no channel trivially neutral."""
    torch.manual_seed(seed)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


def random_plan(groups: ChannelGroups, seed: int) -> Plan:
    """Between one and all channels of every group, drawn at random."""
    rng = np.random.default_rng(seed)
    keep = {}
    for group in groups.groups:
        width = int(rng.integers(1, group.width + 1))
        keep[group.name] = tuple(sorted(rng.choice(group.width, width, replace=False).tolist()))
    return Plan(keep=keep)
