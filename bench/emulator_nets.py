"""Published networks as .tflite files of the same operators and sizes, with random weights: their cost is the same."""

from __future__ import annotations

from math import isqrt
from pathlib import Path

from edgeprune.backends.tflite.writer import write
from edgeprune.device.networks import Layer, Network
from edgeprune.device.ops import Op
from edgeprune.errors import UsageError
from tools.engines import tflite_network


def network(model_id: str) -> Network:
    """The network of a name that the measurement tables use, such as `mobilenet_v1_1.0_224`.

    Raises:
        UsageError: None of that name is defined here.
    """
    ops = tflite_network(model_id)
    if ops is None:
        raise UsageError(f"no published network is called {model_id!r}", where="--networks")
    gates = {op.inputs[-1] for op in ops if op.kind == "mul"}
    first, layers, at = ops[0], list[Layer](), {ops[0].inputs[0]: 0}
    for op in ops:
        layers.append(_layer(op, tuple(at[name] for name in op.inputs), op.output in gates))
        at[op.output] = len(layers)
    side = isqrt(first.in_positions)
    return Network(model_id, (side, side, first.in_channels), tuple(layers))


def written(model_id: str, precision: str, folder: Path) -> Path:
    """The network's file.

    Raises:
        MissingExtraError: The writer's schema is not installed.
        UnsupportedError: A layer is of a kind that the writer does not know.
        UsageError: As in `network`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model_id}.{precision}.tflite"
    write(network(model_id), path, precision)  # type: ignore[arg-type]  # one of them
    return path


def _layer(op: Op, inputs: tuple[int, ...], gate: bool) -> Layer:
    """One operator. A swish that stands alone is a hard one; a gate's function is written as a sigmoid."""
    if op.kind == "activation":
        return Layer("activation", inputs, activation="logistic" if gate else "hard_swish")
    channels = op.out_channels if op.kind in ("conv", "depthwise", "dense") else 0
    function = "average" if op.kind == "pool" else op.activation
    return Layer(op.kind, inputs, channels, isqrt(op.kernel), isqrt(op.stride), op.groups, function)
