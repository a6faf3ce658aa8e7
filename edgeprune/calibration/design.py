"""Which networks are timed: chains of one kind of operator over sizes and widths, and small whole networks.

A chain repeats its operator, because an operator in a network finds its input where the operator before left it, and
because the share of the call itself then falls out. Widths are multiples of eight and numbers in between, so that the
tiles of the kernels show. The whole networks judge the model and take part in the last fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgeprune.device.networks import Layer, Network
from edgeprune.device.ops import Kind

_MOST_MACS = 24e6  # of one layer
_MOST_ELEMENTS = 1.3e6  # of one activation
_SIDES = (2, 4, 7, 8, 14, 16, 28, 32, 56, 112)
_ELEMENTWISE: tuple[tuple[Kind, str], ...] = (
    ("add", ""),
    ("mul", ""),
    ("activation", "hard_swish"),
    ("activation", "logistic"),
    ("activation", "relu"),
    ("concat", ""),
    ("pad", ""),
    ("resize", ""),
    ("softmax", ""),
    ("move", "transpose"),
    ("move", "slice"),
    ("move", "strided"),
)


@dataclass(frozen=True)
class Entry:
    """A network of the design. `family` is empty for chains; whole networks of one family are left out together."""

    network: Network
    family: str = ""


def design(scale: float = 1.0) -> tuple[Entry, ...]:
    """All networks, the same ones every time, with names of their own.

    Args:
        scale: Share of the chains of each kind; each keeps at least four.
    """

    def count(full: int) -> int:
        return max(4, round(full * scale))

    random = np.random.default_rng(20)
    chains = [
        *_pointwise(random, count(48)),
        *_spatial(random, count(44)),
        *_stems(random, count(8)),
        *_depthwise(random, count(44)),
        *_dense(random, count(16)),
        *_matmul(random, count(6)),
        *(net for kind, how in _ELEMENTWISE for net in _elementwise(random, kind, how, count(7))),
        *_pools(random, count(12)),
        *_means(random, count(8)),
    ]
    wholes = [whole for family in _FAMILIES for whole in _wholes(random, family, max(2, round(6 * scale)))]
    return (*(Entry(chain) for chain in chains), *wholes)


def reference() -> Network:
    """The network between all others that shows how fast the machine is at the moment."""
    layers = [Layer("conv", (0,), 32, 3, activation="relu")]
    layers += [Layer("conv", (n,), 32, 3, activation="relu") for n in range(1, 5)]
    return Network("reference", (16, 16, 16), tuple(layers))


def fingerprint(entries: tuple[Entry, ...]) -> str:
    """A short hash of the design: measurements of another one are not continued."""
    return hashlib.sha256(repr((reference(), entries)).encode()).hexdigest()[:12]


def chain(name: str, shape: tuple[int, int, int], *steps: Layer) -> Network:
    """The steps one after the other: each reads the one before, and as a second input what that one read."""
    layers = [replace(step, inputs=(n, max(0, n - 1))[: len(step.inputs)]) for n, step in enumerate(steps)]
    return Network(name, shape, tuple(layers))


def _width(random: np.random.Generator, low: int, high: int, odd: float = 0.4) -> int:
    """Log-uniform; a multiple of eight, or else any number."""
    width = float(np.exp(random.uniform(np.log(low), np.log(high))))
    if random.random() < odd or high < 16:
        return round(width)
    return max(8, round(width / 8) * 8)


def _side(random: np.random.Generator, widest: int) -> int:
    fitting = [side for side in _SIDES if side * side * widest <= _MOST_ELEMENTS]
    return int(random.choice(fitting))


def _drawn(random: np.random.Generator, low: int, high: int, taps: int) -> tuple[int, int, int]:
    """Side, input and output channels within the limits of one layer."""
    while True:
        inputs, outputs = _width(random, low, high), _width(random, low, high)
        side = _side(random, max(inputs, outputs))
        if side * side * inputs * outputs * taps <= _MOST_MACS:
            return side, inputs, outputs


def _pointwise(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        side, inputs, outputs = _drawn(random, 6, 1000, 1)
        there, back = (Layer("conv", (0,), c, activation="relu6") for c in (outputs, inputs))
        repeats = 1 + n % 2
        yield chain(f"pointwise-{n}", (side, side, inputs), *[there, back] * repeats)


def _spatial(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        kernel = (3, 3, 3, 3, 3, 3, 5, 7)[n % 8]
        side, inputs, outputs = _drawn(random, 4, 384, kernel * kernel)
        stride = 2 if n % 5 == 4 and side >= 8 else 1
        there = Layer("conv", (0,), outputs, kernel, stride, activation="relu")
        back = Layer("conv", (0,), inputs, kernel, activation="relu")
        yield chain(f"spatial-{n}", (side, side, inputs), *[there, back][: 1 + n % 2])


def _stems(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        side, kernel = (32, 96, 128, 224)[n % 4], (3, 3, 5, 3, 7)[n % 5]
        stem = Layer("conv", (0,), _width(random, 6, 64), kernel, 1 + (side > 32), activation="relu")
        yield chain(f"stem-{n}", (side, side, 1 if n % 7 == 6 else 3), stem)


def _depthwise(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        kernel = (3, 3, 3, 5)[n % 4]
        width = _width(random, 6, 1000)
        side = _side(random, width)
        first = Layer("depthwise", (0,), 0, kernel, 2 if n % 3 == 2 and side >= 4 else 1, activation="relu6")
        same = Layer("depthwise", (0,), 0, kernel, activation="relu6")
        yield chain(f"depthwise-{n}", (side, side, width), first, *[same] * (n % 3))


def _dense(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        inputs, outputs = _width(random, 8, 1300), _width(random, 4, 1000)
        there, back = (Layer("dense", (0,), c) for c in (outputs, inputs))
        yield chain(f"dense-{n}", (1, 1, inputs), *[there, back] * (1 + n % 2))
    for n, width in enumerate((640, 1024, 1280)):  # together more than a cache holds, as in a network
        yield chain(f"dense-{count + n}", (1, 1, width), *[Layer("dense", (0,), width)] * 4)


def _matmul(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        lines, rows, inputs = int(random.integers(1, 9)), _width(random, 16, 256), _width(random, 16, 96)
        yield chain(f"matmul-{n}", (lines, rows, inputs), Layer("matmul", (0, 0)))


def _elementwise(random: np.random.Generator, kind: Kind, how: str, count: int) -> Iterator[Network]:
    for n in range(count):
        width = _width(random, 8, 600)
        side = max(4, min(_side(random, width), 56 if kind in ("resize", "concat") else 112))
        reads = (0, 0) if kind in ("add", "mul", "concat") else (0,)
        step = Layer(kind, reads, kernel=3 if kind == "pad" else 1, stride=2 if kind == "resize" else 1, activation=how)
        # What grows, or must end in a range of its own, stands alone.
        repeats = {"concat": 1, "resize": 1, "softmax": 1, "move": 1 + n % 2}.get(kind, (1, 3, 8)[n % 3])
        yield chain(f"{how or kind}-{n}", (side, side, width), *[step] * repeats)


def _pools(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        width = _width(random, 8, 600)
        side = max(4, _side(random, width))
        kernel, stride = ((2, 2), (3, 2), (3, 1))[n % 3]
        step = Layer("pool", (0,), kernel=kernel, stride=stride, activation=("max", "average")[n % 2])
        yield chain(f"pool-{n}", (side, side, width), step)


def _means(random: np.random.Generator, count: int) -> Iterator[Network]:
    for n in range(count):
        width = _width(random, 8, 1000)
        yield chain(f"mean-{n}", (_side(random, width),) * 2 + (width,), Layer("mean", (0,)))


class _Stack:
    """Layers that are put on top of each other, with branches."""

    def __init__(self, channels: int) -> None:
        self.layers: list[Layer] = []
        self.channels = channels

    def put(self, kind: Kind, *more: int, channels: int = 0, at: int | None = None, **how: int | str) -> int:
        """Add a layer on the last one (or on `at`); its place."""
        source = len(self.layers) if at is None else at
        self.layers.append(Layer(kind, (source, *more), channels, **how))  # type: ignore[arg-type]
        if kind in ("conv", "dense"):
            self.channels = channels
        return len(self.layers)


def _wholes(random: np.random.Generator, family: str, count: int) -> Iterator[Entry]:
    for n in range(count):
        side, stack = (32, 64, 96, 48, 128, 160)[n % 6], _Stack(3)
        stages = 3 + n % 2
        _FAMILIES[family](stack, random, side, stages)
        stack.put("mean")
        stack.put("dense", channels=10)
        yield Entry(Network(f"{family}-net-{n}", (side, side, 3), tuple(stack.layers)), family)


def _residual(stack: _Stack, random: np.random.Generator, side: int, stages: int) -> None:
    """Blocks of two 3x3 convolutions with a shortcut, as in ResNets for small images."""
    stack.put("conv", channels=_width(random, 6, 32), kernel=3, stride=1 + (side > 48), activation="relu")
    for stage in range(stages):
        width = _width(random, 6 * 2**stage, 24 * 2**stage)
        for block in range(2):
            stride, entry = 2 if stage and not block else 1, len(stack.layers)
            same = stride == 1 and width == stack.channels
            inner = _width(random, 6 * 2**stage, 24 * 2**stage)
            stack.put("conv", channels=inner, kernel=3, stride=stride, activation="relu")
            top = stack.put("conv", channels=width, kernel=3)
            short = entry if same else _shortcut(stack, entry, width, stride, thinned=stages == 4)
            stack.put("add", short, at=top, activation="relu")


def _shortcut(stack: _Stack, entry: int, width: int, stride: int, thinned: bool) -> int:
    """A pointwise layer with the stride, or on every second pixel."""
    if thinned and stride == 2:
        stack.put("move", at=entry, activation="strided")
        return stack.put("conv", channels=width, at=stack.put("move", activation="strided"))
    return stack.put("conv", channels=width, stride=stride, at=entry)


def _inverted(stack: _Stack, random: np.random.Generator, side: int, stages: int, excite: bool = False) -> None:
    """Blocks that widen, filter each channel and narrow again, as in MobileNets."""
    soft = "" if excite else "relu6"
    stack.put("conv", channels=_width(random, 8, 32), kernel=3, stride=2, activation=soft)
    for stage in range(stages):
        width = _width(random, 6 * 2**stage, 24 * 2**stage)
        for block in range(2):
            stride, entry = 2 if stage and not block else 1, len(stack.layers)
            same = stride == 1 and width == stack.channels
            wide = _width(random, 2 * stack.channels, 6 * stack.channels)
            stack.put("conv", channels=wide, activation=soft)
            if excite:
                stack.put("activation", activation="hard_swish")
            filtered = stack.put("depthwise", kernel=5 if excite and block else 3, stride=stride, activation="relu6")
            if excite:
                stack.put("mean")
                stack.put("conv", channels=_width(random, 4, max(6, wide // 4)), activation="relu")
                stack.put("conv", channels=wide)
                gate = stack.put("activation", activation="logistic")
                stack.put("mul", gate, at=filtered)
            top = stack.put("conv", channels=width)
            if same:
                stack.put("add", entry, at=top)
    stack.put("conv", channels=_width(random, 64, 1000), activation="relu6")


def _excite(stack: _Stack, random: np.random.Generator, side: int, stages: int) -> None:
    _inverted(stack, random, side, stages, excite=True)


def _separable(stack: _Stack, random: np.random.Generator, side: int, stages: int) -> None:
    """Depthwise and pointwise layers in turns, as in MobileNetV1 and keyword networks."""
    stack.put("conv", channels=_width(random, 8, 48), kernel=3, stride=2, activation="relu")
    for stage in range(2 * stages):
        stack.put("depthwise", kernel=3, stride=2 if stage % 2 and stage < 6 else 1, activation="relu")
        stack.put("conv", channels=_width(random, 12 * 2 ** (stage // 2), 48 * 2 ** (stage // 2)), activation="relu")


def _pooled(stack: _Stack, random: np.random.Generator, side: int, stages: int) -> None:
    """Convolutions, maximum pooling and concatenation."""
    stack.put("conv", channels=_width(random, 8, 32), kernel=5, stride=1 + (side > 48), activation="relu")
    for stage in range(stages):
        stack.put("pool", kernel=2, stride=2, activation="max")
        left = stack.put("conv", channels=_width(random, 8 * 2**stage, 32 * 2**stage), kernel=3, activation="relu")
        right = stack.put("conv", channels=_width(random, 8 * 2**stage, 32 * 2**stage), activation="relu", at=left)
        stack.put("concat", left, at=right)


_FAMILIES = {
    "residual": _residual,
    "inverted": _inverted,
    "excite": _excite,
    "separable": _separable,
    "pooled": _pooled,
}
