"""A captured program run for its insides: the tensors at some nodes, gates on them, other weights than its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode

from edgeprune.pruning.trace import Captured

Weights = dict[str, torch.Tensor]  # by path


class Run(Interpreter):
    """Runs a captured program and keeps the tensors at the named nodes, safe from in-place operators after them.

    Args:
        keep: Nodes whose tensors are kept.
        weights: Tensors that take the place of the module's own, by path; the module is not touched.
        gates: Per node, what its tensor is multiplied by.
    """

    def __init__(
        self,
        captured: Captured,
        keep: Iterable[str] = (),
        weights: Mapping[str, torch.Tensor] | None = None,
        gates: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(captured.module)
        self.names = frozenset(keep)
        self.weights = weights or {}
        self.gates = gates or {}
        self.kept: dict[str, torch.Tensor] = {}

    def run_node(self, n: FxNode) -> Any:
        if n.op == "get_attr" and n.target in self.weights:
            return self.weights[str(n.target)]
        value = super().run_node(n)
        if n.name in self.gates:
            value = value * self.gates[n.name]
        if n.name in self.names:
            self.kept[n.name] = value
            return value.clone()
        return value


def leaves(captured: Captured) -> Weights:
    """The module's floating-point parameters as tensors of their own to differentiate by; they share its memory."""
    found = captured.module.named_parameters()
    return {path: value.detach().requires_grad_() for path, value in found if value.is_floating_point()}


def slopes(value: torch.Tensor, tensors: Sequence[torch.Tensor], *, again: bool = False) -> tuple[torch.Tensor, ...]:
    """The gradient of one number by each tensor, zero where it does not depend on it; `.grad` stays as it is.

    Args:
        again: The result is to be differentiated too.
    """
    if not tensors or not value.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in tensors)
    return torch.autograd.grad(value, tensors, create_graph=again, allow_unused=True, materialize_grads=True)
