"""Latency of fused operators by laws that were fitted on measurements of one machine, runtime, precision and threads.

A law prices the work of one kind of operator as its kernels do it: in whole tiles, so that a width between two
multiples of the tile costs as much as the upper one, plus what is moved within the cache and beyond it. Prices are
not negative; the value of an op is a pure function of the op and never falls when a width grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, model_validator

from edgeprune.device.latency import Band
from edgeprune.device.ops import Op
from edgeprune.values import Value

# Laws whose kernels multiply tiles of positions by tiles of output channels, in steps over the input channels.
PRODUCTS = ("pointwise", "spatial", "dense", "matmul")
# Operators that no design measures, by the law that comes nearest.
STAND_INS = {
    "activation": "activation.logistic",
    "pool": "pool.max",
    "move": "move.slice",
    "norm": "softmax",
    "quantize": "activation.relu",
    "rnn": "dense",
    "other": "move.slice",
}

ELEMENT_BYTES = {"int8": 1, "fp32": 4}

Tiles = tuple[int, int, int]


def law_name(op: Op) -> str:
    """The law that prices an op: products of matrices by their form, everything else by its kind and function."""
    if op.kind in ("conv", "dense"):
        if op.kernel > 1 or op.transposed:
            return "spatial"
        return "dense" if op.out_positions == 1 else "pointwise"
    return f"{op.kind}.{op.function}" if op.function else op.kind


def amounts(op: Op, tiles: Tiles, cache_bytes: int | None, element_bytes: int) -> tuple[float, ...]:
    """The priced amounts of an op; how many there are depends on its law alone.

    Args:
        tiles: Positions, output channels and input channels that a kernel works on at once.
        cache_bytes: Activations and weights of an op beyond this size have prices of their own; None: they do not.
    """
    name = law_name(op)
    moved = op.out_elements + op.in_elements * (2 if op.kind == "add" else 1)
    far = 0 if cache_bytes is None else max(0, moved * element_bytes - cache_bytes)
    if name in PRODUCTS or op.kind == "rnn":
        return _product(op, tiles, moved, far, cache_bytes, element_bytes)
    if name == "depthwise":
        padded = -(-op.out_channels // tiles[1]) * tiles[1]
        outputs = op.out_positions * padded
        return 1, outputs * op.kernel, outputs, op.out_positions, moved, far
    if op.kind in ("pool", "mean"):
        read = op.in_elements if op.kind == "mean" else op.out_elements * op.kernel
        return 1, read, op.out_elements, op.out_positions, far
    return 1, moved, op.out_positions, far


def _product(
    op: Op, tiles: Tiles, moved: int, far: int, cache_bytes: int | None, element_bytes: int
) -> tuple[float, ...]:
    groups = op.groups if op.kind == "conv" else 1
    rows, outputs, inputs = op.out_positions, op.out_channels // groups, op.in_channels // groups
    if op.kind == "rnn":  # each step of each gate reads the input and the state
        rows, inputs = op.out_positions, op.reduction
    if op.transposed:
        rows = op.in_positions
    rows, outputs, inputs = (-(-size // tile) * tile for size, tile in zip((rows, outputs, inputs), tiles))
    taps = op.kernel if op.kind == "conv" else 1
    written = groups * rows * outputs
    steps = written * taps
    weights = groups * outputs * inputs * taps
    far_weights = 0 if cache_bytes is None else max(0, weights * element_bytes - cache_bytes)
    return 1, steps * inputs, steps, written, weights, moved, far, far_weights


class Law(Value):
    """How one kind of operator is priced.

    Attributes:
        tiles: As in `amounts`.
        prices_s: Seconds per unit of each amount.
        rows: Number of measured files that the law was fitted on.
        error: Median of |estimate / measured - 1| over them.
    """

    tiles: Tiles
    prices_s: tuple[float, ...]
    rows: int = Field(ge=1)
    error: float = Field(ge=0)

    @model_validator(mode="after")
    def _not_negative(self) -> Law:
        if min(self.tiles) < 1 or min(self.prices_s) < 0:
            raise ValueError("tiles are at least 1 and prices not negative")
        return self


class CalibratedModel(Value):
    """What operators cost on the machine that was measured; the same questions as a `LatencyModel` answers.

    Attributes:
        laws: By `law_name`.
        cache_bytes: As in `amounts`.
        call_s: Seconds of one inference on top of its operators.
        band: 80 % interval of measured over estimated time, of networks that were not in the fit.
        source: Where the numbers come from, in a sentence.
    """

    kind: Literal["calibrated"] = "calibrated"
    runtime: str
    precision: Literal["int8", "fp32"]
    threads: int = Field(ge=1)
    laws: Mapping[str, Law]
    cache_bytes: int | None = Field(ge=1)
    call_s: float = Field(ge=0)
    band: Band
    source: str = ""

    def op_s(self, op: Op) -> float:
        """Seconds of one op; 0 where neither its law nor one that stands in was measured."""
        law = self.law(op)
        if law is None:
            return 0.0
        terms = amounts(op, law.tiles, self.cache_bytes, ELEMENT_BYTES[self.precision])
        return sum(amount * price for amount, price in zip(terms, law.prices_s))

    def law(self, op: Op) -> Law | None:
        """The law that prices an op, or the one that stands in."""
        name = law_name(op)
        return self.laws.get(name) or self.laws.get(STAND_INS.get(op.kind, op.kind))

    def total_s(self, ops: Iterable[Op]) -> float:
        """Seconds of one inference."""
        return self.call_s + sum(self.op_s(op) for op in ops)

    def interval_s(self, ops: Iterable[Op]) -> tuple[float, float]:
        """80 % interval of one inference, in seconds."""
        total = self.total_s(ops)
        return total * self.band.low, total * self.band.high
