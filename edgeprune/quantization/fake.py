"""The int8 model in torch: a captured program on the very grid that the exported files use.

Weights are symmetric with one scale per output channel, activations affine with one range per tensor, and an operator
is what runtimes fuse into one: only its result is rounded. What is not modelled is below one step: the rounding of
biases (32 bits) and of the fixed-point factors, ties, and the ranges that a runtime shares between input and output
of pools and reshapes. Gradients pass straight through the rounding, so the program can also be trained.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from edgeprune.device.fusion import fuse
from edgeprune.pruning.trace import Captured, copy_module, graph_of
from edgeprune.quantization.layers import Layer, layers
from edgeprune.quantization.ranges import LEVELS, Range

_MEMORY = 0.99  # share of a range that stays when a training batch shows another one


class FakeRange(torch.nn.Module):
    """An activation rounded to 256 levels of its range, which follows what training shows (a moving average)."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, extent: Range) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(extent[0]))
        self.register_buffer("high", torch.tensor(extent[1]))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the same shape on the grid."""
        if self.training:
            with torch.no_grad():
                self.low.lerp_(values.detach().amin().clamp_max(0).to(self.low), 1 - _MEMORY)
                self.high.lerp_(values.detach().amax().clamp_min(0).to(self.high), 1 - _MEMORY)
        step = ((self.high - self.low) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny).to(values)
        zero = torch.round(-self.low.to(values) / step).clamp(0, LEVELS)
        inside = values.clamp(-zero * step, (LEVELS - zero) * step)
        return _straight_through(inside, torch.round(inside / step) * step)


def fake_weight(weight: torch.Tensor, axis: int, limit: int) -> torch.Tensor:
    """The weight rounded to whole steps, one scale per channel on `axis`; its largest magnitude is `limit` steps."""
    axes = [other for other in range(weight.ndim) if other != axis]
    step = (weight.detach().abs().amax(axes, keepdim=True) / limit).clamp_min(torch.finfo(weight.dtype).tiny)
    return _straight_through(weight, torch.round(weight / step).clamp(-limit, limit) * step)


def quantised_nodes(captured: Captured) -> tuple[str, ...]:
    """The nodes that int8 gives a range, in execution order: inputs, and results of fused operators.

    What has several results, as a recurrent layer has, stays float here.
    """
    graph = captured.graph
    rounded = {op.output for op in fuse(graph)} | {node.name for node in graph.inputs}
    return tuple(node.name for node in graph.nodes if node.name in rounded and len(node.shapes) == 1)


def quantised(
    captured: Captured, ranges: Mapping[str, Range], weight_limit: int, only: Collection[Layer] | None = None
) -> Captured:
    """A copy that computes on the int8 grid.

    Args:
        captured: With BatchNorm folded (`layers.folded`).
        ranges: Of the nodes of `quantised_nodes`; one that is not there stays float.
        weight_limit: Largest magnitude of an int8 weight: 127, or 64 where a runtime keeps a bit free.
        only: Layers whose weight, input and result are rounded, nothing else; None rounds everything.
    """
    module = copy_module(captured.module)
    chosen = layers(module) if only is None else tuple(only)
    by_name = {node.name: node for node in module.graph.nodes}
    rounded = set(ranges) if only is None else _around(captured, chosen) & set(ranges)
    for layer in chosen:
        node = by_name[layer.node]
        with module.graph.inserting_before(node):
            weight = module.graph.call_function(fake_weight, (node.args[1], layer.axis, weight_limit))
        weight.meta = dict(node.args[1].meta)
        node.update_arg(1, weight)
    for name in sorted(rounded):
        node = by_name[name]
        module.add_submodule(f"{name}_range", FakeRange(ranges[name]))
        with module.graph.inserting_after(node):
            fake = module.graph.call_module(f"{name}_range", (node,))
        fake.meta = dict(node.meta)
        node.replace_all_uses_with(fake, delete_user_cb=lambda user, fake=fake: user is not fake)
    module.recompile()
    return Captured(module.train(captured.module.training), graph_of(module))


def _around(captured: Captured, chosen: Collection[Layer]) -> set[str]:
    """The nodes that the fused operators of these layers read and write."""
    nodes = {layer.node for layer in chosen}
    operators = [op for op in fuse(captured.graph) if nodes & set(op.nodes)]
    return {name for op in operators for name in (*op.inputs, op.output)}


def _straight_through(values: torch.Tensor, on_grid: torch.Tensor) -> torch.Tensor:
    return values + (on_grid - values).detach()
