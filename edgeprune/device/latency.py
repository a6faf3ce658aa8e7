"""Latency of fused operators by a model of six non-negative terms, fitted per (target, runtime, precision, threads).

    t = conv_s_per_mac        * MACs of convolutions
      + first_conv_s_per_mac  * MACs of spatial convolutions on at most 4 channels
      + depthwise_s_per_mac   * depthwise MACs
      + element_s             * elements moved (inputs and outputs, gathered patches, copies)
      + weight_s              * weights of convolutions and dense layers
      + per_op_s              * operators

Few terms on purpose: with more, networks of an unseen family were predicted worse. The value of an op is a pure
function of the op, grows with its widths, and never falls below zero, so a solver may tabulate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from pydantic import Field, model_validator

from edgeprune.device.ops import Op
from edgeprune.values import Value

_THIN = 4  # input channels up to which a spatial convolution counts as a first convolution
# Elements touched per output element, for kinds whose cost is moving data.
_TOUCHED = {"add": 3, "activation": 2, "concat": 2, "move": 2, "pad": 2, "quantize": 2, "norm": 4, "softmax": 4}


class Band(Value):
    """Measured time over estimated time: the 10 % and 90 % quantiles, so an 80 % interval."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Band:
        if self.low > self.high:
            raise ValueError(f"low {self.low} above high {self.high}")
        return self


class DeviceModel(Protocol):
    """What an estimate, the solver and the loop ask of a device model, however it came about."""

    @property
    def band(self) -> Band:
        """80 % interval of measured over estimated time."""
        ...

    @property
    def source(self) -> str:
        """Where the numbers come from, in a sentence."""
        ...

    def op_s(self, op: Op) -> float:
        """Seconds of one op: a pure function of it."""
        ...

    def total_s(self, ops: Iterable[Op]) -> float:
        """Seconds of one inference; of no operators, the fixed time of a call."""
        ...

    def interval_s(self, ops: Iterable[Op]) -> tuple[float, float]:
        """80 % interval of one inference, in seconds."""
        ...


def besides_s(model: DeviceModel, ops: Sequence[Op]) -> float:
    """Seconds of one inference that belong to no operator."""
    return model.total_s(ops) - sum(model.op_s(op) for op in ops)


class LatencyModel(Value):
    """Seconds per unit of work on one target, runtime, precision and thread count.

    Attributes:
        first_conv_extra_channels: Output channels that gathering a first convolution's patches is worth.
        gathers_patches: Whether the runtime copies the patches of spatial convolutions together before it multiplies.
            CMSIS-NN and ruy do; XNNPACK reads them in place, so that thin layers cost no more than their share.
        band: 80 % interval of measured over estimated time, for networks of a family not in the fit.
        source: Where the numbers come from, in a sentence.
    """

    runtime: str
    precision: str
    threads: int = Field(ge=1)
    conv_s_per_mac: float = Field(ge=0)
    first_conv_s_per_mac: float = Field(ge=0)
    depthwise_s_per_mac: float = Field(ge=0)
    element_s: float = Field(ge=0)
    weight_s: float = Field(ge=0)
    per_op_s: float = Field(ge=0)
    first_conv_extra_channels: int = Field(0, ge=0)
    gathers_patches: bool = False
    band: Band
    source: str = ""

    def op_s(self, op: Op) -> float:
        """Seconds of one op."""
        terms = self._work(op)
        seconds = sum(amount * price for amount, price in zip(terms, self.prices_s, strict=True))
        if op.kind == "conv" and op.kernel > 1 and op.groups == 1 and terms.conv_macs:
            # One channel more never makes a convolution faster: the price at the last thin width is a floor.
            thin = self._work(op.resized(_THIN, op.out_channels)).first_conv_macs
            seconds += max(0.0, thin * self.first_conv_s_per_mac - terms.conv_macs * self.conv_s_per_mac)
        return seconds

    def _work(self, op: Op) -> Work:
        return work(op, self.first_conv_extra_channels, self.gathers_patches)

    @property
    def prices_s(self) -> tuple[float, ...]:
        """Seconds per unit, in the order of `Work`."""
        return (
            self.conv_s_per_mac,
            self.first_conv_s_per_mac,
            self.depthwise_s_per_mac,
            self.element_s,
            self.weight_s,
            self.per_op_s,
        )

    def total_s(self, ops: Iterable[Op]) -> float:
        """Seconds of one inference."""
        return sum(self.op_s(op) for op in ops)

    def interval_s(self, ops: Iterable[Op]) -> tuple[float, float]:
        """80 % interval of one inference, in seconds."""
        total = self.total_s(ops)
        return total * self.band.low, total * self.band.high


class Work(NamedTuple):
    """What one op asks of a device: the six amounts that are priced."""

    conv_macs: float = 0
    first_conv_macs: float = 0
    depthwise_macs: float = 0
    elements: float = 0
    weights: float = 0
    ops: float = 1


def work(op: Op, first_conv_extra_channels: int = 0, gathers_patches: bool = False) -> Work:
    """The priced amounts of an op; the arguments are those of `LatencyModel`."""
    elements, weights = moved_elements(op, gathers_patches), op.weights
    if op.kind == "depthwise":
        return Work(depthwise_macs=op.macs, elements=elements, weights=weights)
    if op.kind == "rnn":  # every step reads the weights again
        return Work(elements=elements, weights=weights * op.out_positions)
    if op.out_positions == 1 or op.kind not in ("conv", "dense", "matmul"):
        return Work(elements=elements, weights=weights)
    if op.kind == "conv" and op.kernel > 1 and op.groups == 1 and op.in_channels <= _THIN:
        gathered = op.reduction * op.out_positions * (op.out_channels + first_conv_extra_channels)
        return Work(first_conv_macs=gathered, elements=elements, weights=weights)
    return Work(conv_macs=op.macs, elements=elements, weights=weights)


def moved_elements(op: Op, gathers_patches: bool = False) -> int:
    """Elements an op reads and writes; with patches gathered, the input counts once per kernel position."""
    if op.kind in ("conv", "dense", "matmul"):
        if op.out_positions == 1 and op.kind != "matmul":
            return 0  # streaming the weights is all there is
        gathered = op.out_positions * op.in_channels * op.kernel
        return (gathered if gathers_patches and not op.transposed else op.in_elements) + op.out_elements
    if op.kind in ("depthwise", "mul", "resize", "other", "rnn"):
        return op.in_elements + op.out_elements
    if op.kind in ("pool", "mean"):
        return op.in_elements
    return _TOUCHED[op.kind] * op.out_elements
