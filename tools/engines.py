"""What each engine's kernels ask of a core: which amounts are priced, and what is assumed of the prices beforehand.

TFLite, Arm NN and XNNPACK take the six amounts of `LatencyModel`, so that a fitted engine is one a target can ship.
ncnn needs more: Winograd's algorithm for 3x3 convolutions, convolutions in groups that run one after the other, widths
that its packing by four does not divide. Its prices are pooled over devices, because a group has twenty networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from edgeprune.device.latency import Work
from edgeprune.device.ops import Op
from tools import ncnn_detectors, ncnn_networks
from tools.detectors import yolox
from tools.fitting import BOARD_PRIOR, Prior, amounts
from tools.networks import build

# Output channels that gathering the patches of a first convolution is worth; an effect of fp32 only.
EXTRA_CHANNELS = {"fp32": 16, "int8": 0}
_THIN = 4  # input channels up to which a convolution counts as a first one
_LANES = 4  # channels that ncnn packs together


@dataclass(frozen=True)
class Engine:
    """Kernels of one library.

    Attributes:
        terms: What is priced, the count of operators last.
        amounts: Summed amounts of a network's operators in a precision, in the order of `terms`.
        network: Operators of a network by its name in the tables, as this engine runs it; None when not defined.
        pooled: Whether ratios of prices are learnt over devices first.
    """

    name: str
    terms: tuple[str, ...]
    prior: Prior
    noise: float
    amounts: Callable[[Sequence[Op], str], tuple[float, ...]]
    network: Callable[[str], tuple[Op, ...] | None]
    pooled: bool = False


@cache
def tflite_network(model_id: str) -> tuple[Op, ...] | None:
    """The operators of a network by its name in the tables of TFLite and its kin."""
    if model_id.startswith("netspresso_yolox_") and model_id.endswith("_640"):
        return yolox(model_id.split("_")[2])
    return build(model_id)


@cache
def _ncnn_network(model_id: str) -> tuple[Op, ...] | None:
    return ncnn_networks.build(model_id) or ncnn_detectors.build(model_id)


def _gathering(ops: Sequence[Op], precision: str) -> tuple[float, ...]:
    return amounts(ops, EXTRA_CHANNELS["int8" if precision == "int8" else "fp32"], gathers_patches=True)


def _in_place(ops: Sequence[Op], precision: str) -> tuple[float, ...]:
    return amounts(ops, EXTRA_CHANNELS["int8" if precision == "int8" else "fp32"], gathers_patches=False)


# Term -> ratio to a MAC of a 1x1 convolution, its spread (log). About thirty variants were compared with one network
# left out; elements: Winograd's transforms touch eight times what the convolution reads and writes.
_NCNN_TERMS = {
    "pointwise_macs": (1.0, 0.4),
    "winograd_macs": (0.2, 0.4),
    "spatial_macs": (1.0, 0.4),
    "first_conv_macs": (2.0, 0.6),
    "depthwise_macs": (4.0, 0.6),
    "elements": (8.0, 0.7),
    "weights": (15.0, 0.8),
    "dense_weights": (12.0, 0.6),
    "grouped_macs": (1.0, 0.5),
    "odd_macs": (1.0, 0.5),
}
_NCNN_TOUCHED = {"add": 1.0, "concat": 4.0, "mul": 2.0}
_WINOGRAD_TOUCHED = 8.0
_GROUP_START = 12.0  # input channels that starting one group is worth


def _ncnn_amounts(ops: Sequence[Op], precision: str) -> tuple[float, ...]:
    del precision
    sums = dict.fromkeys((*_NCNN_TERMS, "ops"), 0.0)
    for op in ops:
        for term, amount in _ncnn_op(op).items():
            sums[term] += amount
    return tuple(sums.values())


def _ncnn_op(op: Op) -> dict[str, float]:
    both = float(op.in_elements + op.out_elements)
    if op.kind == "depthwise":
        return {"depthwise_macs": op.macs, "elements": both, "weights": op.weights, "ops": 1}
    if op.kind in ("conv", "dense"):
        return _ncnn_convolution(op, both)
    if op.kind in ("pool", "mean"):
        return {"elements": op.in_elements, "ops": 1}
    return {"elements": _NCNN_TOUCHED.get(op.kind, 1.0) * op.out_elements}


def _ncnn_convolution(op: Op, both: float) -> dict[str, float]:
    if op.out_positions == 1:
        return {"dense_weights": op.weights, "ops": 1}
    found: dict[str, float] = {"elements": both, "weights": op.weights, "ops": 1}
    if op.groups > 1:
        return {**found, "grouped_macs": op.macs * (1 + _GROUP_START * op.groups / op.in_channels)}
    if op.in_channels <= _THIN:
        return {**found, "first_conv_macs": op.macs}
    if op.in_channels % _LANES or op.out_channels % _LANES:
        found["odd_macs"] = op.macs
    if op.kernel == 1:
        return {**found, "pointwise_macs": op.macs}
    if (op.kernel, op.stride) == (9, 1):
        return {**found, "winograd_macs": op.macs, "elements": both * (1 + _WINOGRAD_TOUCHED)}
    gathered = op.out_positions * op.in_channels * op.kernel
    return {**found, "spatial_macs": op.macs, "elements": both + gathered}


_NCNN_PRIOR = Prior(
    prices_s=(*(ratio * 1e-11 for ratio, _ in _NCNN_TERMS.values()), 1e-5),
    sigmas=(*(spread for _, spread in _NCNN_TERMS.values()), 1.0),
)

ENGINES = {
    engine.name: engine
    for engine in (
        Engine("ruy", Work._fields, BOARD_PRIOR, 0.05, _gathering, tflite_network),
        Engine("armnn", Work._fields, BOARD_PRIOR, 0.05, _gathering, tflite_network),
        Engine("xnnpack", Work._fields, BOARD_PRIOR, 0.05, _in_place, tflite_network),
        Engine("phone", Work._fields, BOARD_PRIOR, 0.1, _in_place, tflite_network, pooled=True),
        Engine("ncnn", (*_NCNN_TERMS, "ops"), _NCNN_PRIOR, 0.08, _ncnn_amounts, _ncnn_network, pooled=True),
    )
}
