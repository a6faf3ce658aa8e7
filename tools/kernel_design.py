"""Which networks are counted for the models of the C library: chains of steps of many shapes, and whole networks.

Each step of a network is counted by itself, so one chain holds dozens of shapes: it shrinks its map again and again.
Widths lie on the kernels' blocks and between them, sides are even and odd. Laws are fitted on chains alone; the whole
networks judge them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.calibration.design import Entry, design
from edgeprune.device.networks import Layer, Network, shapes
from edgeprune.device.ops import Kind

_MOST_MACS = 0.25e6  # of one layer
_FUSED = ("relu", "relu6", "")
_WHOLE_SIDE = 48  # of the whole networks' images at most


@dataclass
class _Chain:
    """A chain being drawn: each layer reads the one before."""

    random: np.random.Generator
    name: str
    shape: tuple[int, int, int]
    layers: list[Layer] = field(default_factory=list)

    def put(self, kind: Kind, *more: int, channels: int = 0, **how: Any) -> int:
        """Append a layer on the last one, and on others; its place."""
        self.layers.append(Layer(kind, (len(self.layers), *more), channels, **how))
        return len(self.layers)

    def conv(
        self, low: int = 2, high: int = 48, kernel: int = 1, stride: int = 1, activation: str | None = None
    ) -> int:
        """Append a convolution of a random width that keeps its work within bounds."""
        side = -(-self.side // stride)
        most = int(_MOST_MACS / (side * side * kernel * kernel * self.channels))
        width = self.width(low, max(low, min(high, most)))
        fused = self.fused() if activation is None else activation
        return self.put("conv", channels=width, kernel=kernel, stride=stride, activation=fused)

    def width(self, low: int, high: int) -> int:
        """Log-uniform, every second one a multiple of four."""
        drawn = float(np.exp(self.random.uniform(np.log(low), np.log(high + 1))))
        return max(low, min(high, int(drawn))) if self.random.random() < 0.5 else max(4, round(drawn / 4) * 4)

    def fused(self) -> str:
        """An activation that costs nothing, or none."""
        return str(self.random.choice(_FUSED))

    @property
    def side(self) -> int:
        """Of the last output."""
        return shapes(self.network)[-1][0]

    @property
    def channels(self) -> int:
        """Of the last output."""
        return shapes(self.network)[-1][2]

    @property
    def network(self) -> Network:
        return Network(self.name, self.shape, tuple(self.layers))


def chains() -> tuple[Network, ...]:
    """The networks that laws are fitted on, the same ones every time."""
    random = np.random.default_rng(7)
    return tuple(
        make(random, f"{kind}-{side}", side).network for kind, (make, sides) in _MAKERS.items() for side in sides
    )


def wholes() -> tuple[Entry, ...]:
    """The networks that laws are judged on: every family of the calibration's design, small images only."""
    return tuple(entry for entry in design() if entry.family and entry.network.input[0] <= _WHOLE_SIDE)


def _begun(random: np.random.Generator, name: str, side: int, low: int = 3, high: int = 32) -> _Chain:
    return _Chain(random, name, (side, side, int(random.integers(low, high + 1))))


def _pointwise(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side)
    while True:
        for _ in range(5):
            chain.conv(1, 160)
        if chain.side == 1:
            return chain
        chain.conv(4, 96, 1, 2)


def _spatial(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side, 5)
    while True:
        for _ in range(5):
            chain.conv(4, 96, 3)
        if chain.side == 1:
            return chain
        chain.conv(4, 96, 3, 2)


def _wide(random: np.random.Generator, name: str, side: int) -> _Chain:
    kernel = 7 if side == 14 else 5
    chain = _begun(random, name, side, 5, 16)
    while chain.side > 3:
        for _ in range(4):
            chain.conv(4, 40, kernel)
        chain.conv(4, 40, kernel, 2)
    return chain


def _stem(random: np.random.Generator, name: str, side: int) -> _Chain:
    """First layers of one to four channels; a thin layer in between makes the next one's input."""
    kernel = {28: 5, 40: 7}.get(side, 3)
    chain = _Chain(random, name, (side, side, 3))
    for stride in (1, 1, 1, 2, 1, 1, 1, 2):
        chain.conv(4, 40, kernel, stride, "relu")
        chain.put("conv", channels=int(random.choice([1, 2, 3, 3, 4])), activation="relu")
    return chain


def _residual(random: np.random.Generator, name: str, side: int) -> _Chain:
    """Convolutions that take a sum along."""
    chain = _begun(random, name, side, 4)
    while chain.side > 2:
        for kernel in (1, 3, 1, 3):
            entry = len(chain.layers)
            chain.put("conv", channels=chain.channels, kernel=kernel)
            chain.put("add", entry, activation="relu" * (kernel == 3))
            chain.conv(4, 64, activation="relu")
        chain.conv(4, 64, 3, 2, "relu")
    return chain


def _grouped(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _Chain(random, name, (side, side, 24))
    for groups, kernel in ((2, 3), (3, 3), (4, 1), (2, 1), (6, 3), (8, 1)):
        chain.put("conv", channels=24 * int(random.integers(1, 3)), kernel=kernel, groups=groups, activation="relu")
        chain.put("conv", channels=24, activation="relu")
    return chain


def _depthwise(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side, 3, 24)
    while True:
        for stride in (1, 1, 1, 2):
            chain.put("depthwise", kernel=3, stride=stride if chain.side > 2 else 1, activation=chain.fused())
            chain.conv(2, 64, activation="relu")
        if chain.side <= 2:
            return chain


def _inverted(random: np.random.Generator, name: str, side: int) -> _Chain:
    """Depthwise and pointwise layers that take a sum along."""
    chain = _begun(random, name, side, 4)
    while chain.side > 3:
        for is_summed in (True, False, True):
            entry, width = len(chain.layers), chain.channels
            wide = chain.conv(8, 96, activation="relu6")
            chain.put("depthwise", kernel=3, activation="" if is_summed else "relu6")
            if is_summed:
                chain.put("add", wide)
            chain.put("conv", channels=width)
            chain.put("add", entry)
        chain.conv(4, 48, 1, 2, "relu6")
    return chain


def _filtering(random: np.random.Generator, name: str, side: int) -> _Chain:
    kernel = 7 if side == 12 else 5
    chain = _begun(random, name, side, 3, 24)
    while chain.side > 3:
        for stride in (1, 1, 1, 2):
            chain.put("depthwise", kernel=kernel, stride=stride, activation=chain.fused())
            chain.conv(2, 48, activation="relu")
    return chain


def _dense(random: np.random.Generator, name: str, side: int) -> _Chain:
    """Layers on one vector, or on each pixel of a map."""
    chain = _begun(random, name, side, 10, 40 if side > 1 else 640)
    for _ in range(24):
        chain.put("dense", channels=chain.width(2, 64 if side > 1 else 300), activation=chain.fused())
    return chain


def _pool(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side)
    while chain.side > 3:
        for kernel, how in ((2, "max"), (3, "average"), (3, "max"), (2, "average")):
            chain.put("pool", kernel=kernel, activation=how)
            chain.conv(activation="relu")
        chain.put("pool", kernel=2 + chain.side % 2, stride=2, activation=str(random.choice(["max", "average"])))
        chain.conv(activation="relu")
    return chain


def _sum(random: np.random.Generator, name: str, side: int) -> _Chain:
    """Sums and products that no convolution takes along."""
    chain = _begun(random, name, side)
    while True:
        for kind in ("add", "mul"):
            entry = len(chain.layers)
            chain.put("pool", kernel=2, activation="max")
            chain.put(kind, entry, activation=chain.fused())
            chain.conv(activation="relu")
        if chain.side == 1:
            return chain
        chain.conv(4, 48, 1, 2)


def _gate(random: np.random.Generator, name: str, side: int) -> _Chain:
    """Means of maps, and products of a map with one value for each channel."""
    chain = _begun(random, name, side)
    while chain.side > 1:
        for _ in range(3):
            entry = len(chain.layers)
            chain.put("mean")
            gate = chain.put("activation", activation="logistic")
            chain.layers.append(Layer("mul", (entry, gate)))
            chain.conv(activation="relu")
        chain.conv(4, 48, 1, 2)
    return chain


def _activation(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side)
    while True:
        for how in ("hard_swish", "logistic", "relu", "tanh"):
            chain.put("activation", activation=how)
            chain.conv(activation="")
        chain.put("softmax")
        chain.conv(activation="")
        if chain.side == 1:
            return chain
        chain.conv(4, 48, 1, 2)


def _layout(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side, 4, 24)
    for _ in range(4):
        entry = chain.conv(4, 24, activation="relu")
        chain.conv(4, 24, activation="relu")
        chain.put("concat", entry)
        chain.put("move", activation="slice")
        chain.put("move", activation="transpose")
        chain.put("pad", kernel=3)
        chain.put("pool", kernel=2, activation="max")
        chain.put("move", activation="transpose")
        chain.put("move", activation="strided")
        chain.put("move", activation="strided")
    return chain


def _resize(random: np.random.Generator, name: str, side: int) -> _Chain:
    chain = _begun(random, name, side)
    for _ in range(4):
        chain.put("resize", stride=2)
        chain.conv(2, 24, activation="relu")
    return chain


def _product(random: np.random.Generator, name: str, side: int) -> _Chain:
    """Rows of a map with rows of a map."""
    chain = _begun(random, name, side)
    for _ in range(6):
        entry = chain.conv(4, 48, activation="")
        chain.put("matmul", entry)
    return chain


_Maker = Callable[[np.random.Generator, str, int], _Chain]
_MAKERS: dict[str, tuple[_Maker, tuple[int, ...]]] = {
    "pointwise": (_pointwise, (32, 25, 22)),
    "spatial": (_spatial, (32, 19, 28, 24)),
    "wide": (_wide, (17, 12, 14)),
    "stem": (_stem, (32, 33, 48, 28, 40)),
    "residual": (_residual, (24, 22)),
    "grouped": (_grouped, (11,)),
    "depthwise": (_depthwise, (48, 25, 32, 40)),
    "inverted": (_inverted, (24, 28)),
    "filtering": (_filtering, (20, 13, 12)),
    "dense": (_dense, (1, 5)),
    "pool": (_pool, (33, 24)),
    "sum": (_sum, (25, 16)),
    "gate": (_gate, (20, 15)),
    "activation": (_activation, (20, 11)),
    "layout": (_layout, (20, 13)),
    "resize": (_resize, (2, 3)),
    "product": (_product, (6, 16)),
}
