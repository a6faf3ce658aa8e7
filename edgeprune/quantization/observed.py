"""What the steps of a captured program hold on real inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode

from edgeprune.pruning.trace import CapturedModule
from edgeprune.quantization.ranges import Array, Range, RangePolicy, observe

_BATCH = 32


def node_ranges(
    module: CapturedModule, nodes: Collection[str], samples: torch.Tensor, policy: RangePolicy
) -> dict[str, Range]:
    """The range (lo, hi) of each named node over samples (n, ...), as exporters would choose it.

    Raises:
        QualityError: A node held a value that is not finite.
    """

    def values() -> Iterator[dict[str, Array]]:
        for held in node_values(module, nodes, samples):
            yield {name: value.numpy() for name, value in held.items()}

    return observe(values, policy)


def observed_channels(
    module: CapturedModule, nodes: Mapping[str, int], samples: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The least and the greatest value (channels,) of each node over samples (n, ...).

    Args:
        nodes: The channel axis of each node; a node with two axes has them last.
    """
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for held in node_values(module, nodes, samples):
        for name, value in held.items():
            rows = by_channel(value, nodes[name])
            low, high = rows.amin(1), rows.amax(1)
            old = found.get(name, (low, high))
            found[name] = torch.minimum(low, old[0]), torch.maximum(high, old[1])
    return found


@torch.no_grad()
def node_values(
    module: CapturedModule, nodes: Collection[str], samples: torch.Tensor
) -> Iterator[dict[str, torch.Tensor]]:
    """The values of the named nodes for one batch of samples (n, ...) after another, on the CPU."""
    for batch in torch.split(samples, _BATCH):
        reader = _Reader(module, nodes)
        reader.run(batch)
        yield reader.held


def by_channel(value: torch.Tensor, axis: int) -> torch.Tensor:
    """(channels, everything else) of an activation."""
    axis = axis if value.ndim > 2 else -1
    return value.movedim(axis, 0).reshape(value.shape[axis], -1)


class _Reader(Interpreter):
    """Runs a program and keeps what some nodes gave."""

    def __init__(self, module: CapturedModule, nodes: Collection[str]) -> None:
        super().__init__(module)
        self.nodes = frozenset(nodes)
        self.held: dict[str, torch.Tensor] = {}

    def run_node(self, n: FxNode) -> Any:
        value = super().run_node(n)
        if n.name in self.nodes:
            self.held[n.name] = value.detach().cpu().clone()
        return value
