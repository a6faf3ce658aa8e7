"""Bias correction: what rounding shifts a channel by on average is taken from the layer's bias.

Rounded weights no longer average to what they stood for, so every channel of a layer is off by a constant; small
layers, such as depthwise ones, most (Nagel et al. 2019, arXiv 1906.04721, the empirical form).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode

from edgeprune.pruning.trace import Captured, CapturedModule, attribute
from edgeprune.quantization.fake import quantised, quantised_nodes
from edgeprune.quantization.layers import Layer, layers, single_use, with_tensors
from edgeprune.quantization.observed import by_channel, node_ranges, node_values
from edgeprune.quantization.ranges import RangePolicy


def corrected(captured: Captured, samples: torch.Tensor, policy: RangePolicy, weight_limit: int) -> Captured:
    """A copy whose biases undo the mean error of every layer on the samples, layer by layer as they are executed.

    Each layer is judged behind the layers before it, rounded and corrected. The float model changes on purpose: it is
    right only where it is rounded.

    Args:
        captured: With BatchNorm folded (`layers.folded`).
        samples: Inputs (n, ...), taken at once.
        weight_limit: As of `fake.quantised`.
    """
    module = captured.module
    known = {layer.node: layer for layer in layers(module) if not layer.bias or single_use(module, layer.bias)}
    wanted = channel_means(module, known, samples)
    ranges = node_ranges(module, quantised_nodes(captured), samples, policy)
    correcting = _Correcting(quantised(captured, ranges, weight_limit).module, known, wanted)
    with torch.no_grad():
        correcting.run(samples)
    changed = {}
    for layer in known.values():
        shift = correcting.shifts[layer.node]
        path = layer.bias or f"{layer.name}.bias"
        changed[path] = (attribute(module, layer.bias).detach() if layer.bias else torch.zeros_like(shift)) - shift
    return with_tensors(captured, changed)


def channel_means(module: CapturedModule, known: dict[str, Layer], samples: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mean (channels,) of each layer's result, before its activation, over samples (n, ...)."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    for held in node_values(module, known, samples):
        for name, value in held.items():
            rows = by_channel(value, known[name].channel_axis)
            sums[name] = sums.get(name, torch.zeros(())) + rows.double().sum(1)
            counts[name] = counts.get(name, 0) + rows.shape[1]
    return {name: sums[name] / counts[name] for name in sums}


class _Correcting(Interpreter):
    """Runs the rounded program and shifts every layer's result to the mean that it should have."""

    def __init__(self, module: CapturedModule, known: dict[str, Layer], wanted: dict[str, torch.Tensor]) -> None:
        super().__init__(module)
        self.known, self.wanted = known, wanted
        self.shifts: dict[str, torch.Tensor] = {}

    def run_node(self, n: FxNode) -> Any:
        value = super().run_node(n)
        if n.name not in self.known:
            return value
        axis = self.known[n.name].channel_axis
        shift = (by_channel(value, axis).double().mean(1).cpu() - self.wanted[n.name]).to(value)
        self.shifts[n.name] = shift
        return value - (shift.view(-1, *[1] * (value.ndim - 2)) if axis == 1 else shift)
