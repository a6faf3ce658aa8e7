"""A captured program run for its insides: the tensors at some nodes, gates on them, other weights than its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter
from torch.fx.node import Node as FxNode
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeprune.errors import UnsupportedError
from edgeprune.pruning.criteria.evidence import Evidence
from edgeprune.pruning.criteria.sums import Slots
from edgeprune.pruning.sites import Site, producing_weights
from edgeprune.pruning.trace import Captured

Weights = dict[str, torch.Tensor]  # by path


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return (x + 3).clamp(0, 6) / 6


_SPELLED: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.hardsigmoid.default: _hard_sigmoid,
    torch.ops.aten.hardsigmoid_.default: _hard_sigmoid,
}


class Run(Interpreter):
    """Runs a captured program and keeps the tensors at the named nodes, safe from in-place operators after them.

    Args:
        keep: Nodes whose tensors are kept.
        weights: Tensors that take the place of the module's own, by path; the module is not touched.
        gates: Per node, what its tensor is multiplied by.
        twice: The result will be differentiated twice: operators that torch cannot, are spelled in others.
    """

    def __init__(
        self,
        module: GraphModule,
        keep: Iterable[str] = (),
        weights: Mapping[str, torch.Tensor] | None = None,
        gates: Mapping[str, torch.Tensor] | None = None,
        *,
        twice: bool = False,
    ) -> None:
        super().__init__(module)
        self.names = frozenset(keep)
        self.weights = weights or {}
        self.gates = gates or {}
        self.spelled = _SPELLED if twice else {}
        self.kept: dict[str, torch.Tensor] = {}

    def run_node(self, n: FxNode) -> Any:
        if n.op == "get_attr" and n.target in self.weights:
            return self.weights[str(n.target)]
        if n.target in self.spelled:
            args, _ = self.fetch_args_kwargs_from_env(n)
            value = self.spelled[n.target](*args)
        else:
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


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Operators whose fast kernels have no second derivative run without them.

    Raises:
        UnsupportedError: One has none at all.
    """
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield
    except RuntimeError as err:
        found = re.match(r"derivative for (\S+) is not implemented", str(err))
        if found is None:
            raise
        raise UnsupportedError(
            f"no second derivative: torch has none of {found[1]}",
            where="criterion",
            hint="take a criterion of first order, such as taylor_per_site or fisher",
        ) from err


def weight_places(evidence: Evidence, known: Iterable[str]) -> list[tuple[str, int]]:
    """(path, axis) of the weights that compute channels of a group, of those that are `known`."""
    paths, slots = frozenset(known), Slots(evidence.groups)
    found = [place for place in producing_weights(evidence.groups) if place[0] in paths]
    return [(path, axis) for path, axis in found if (slots.along(path, axis) >= 0).any()]


def gates_at(places: Iterable[Site], slots: Slots, row: torch.Tensor) -> Weights:
    """Gates (channels of all groups,) at every site, shaped to multiply its tensor; what stays is not gated."""
    gates = {}
    with_open = torch.cat([row, row.new_ones(1)])  # the last one is slot -1
    for site in places:
        gate = with_open[torch.as_tensor(slots.at(site), device=row.device)]
        dimensions = len(slots.groups.graph.by_name[site.node].shape)
        gates[site.node] = gate.reshape([-1 if d == site.axis else 1 for d in range(dimensions)])
    return gates
