"""The full-size program with a plan's removed channels masked: the reference for surgery.

Masked means: every weight of a removed channel is zero, in the original program. Where zero is not neutral (statistics
of a norm, softmax, mean, maximum, a product of two activations), the operator runs over the channels that are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode
from torch.utils import _pytree as pytree

from edgeprune.graph import Arg, Graph, Node, Ref, Shape
from edgeprune.pruning.blocks import Remains
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan, Planned, planned, shrinking_of
from edgeprune.pruning.rewrites import Shrinking
from edgeprune.pruning.trace import Captured, CapturedModule

_REDUCING = frozenset(
    "mean sum amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm norm".split()
    + "softmax log_softmax _softmax layer_norm rms_norm group_norm".split()
)
_CONTRACTING = frozenset("matmul mm bmm mv dot einsum baddbmm scaled_dot_product_attention bilinear".split())
_SINGULAR = frozenset("div rsqrt sqrt log pow reciprocal _weight_norm _weight_norm_interface".split())  # at zero


@torch.no_grad()
def masked_outputs(captured: Captured, groups: ChannelGroups, plan: Plan, *inputs: Any) -> Any:
    """What the full-size model computes with the plan's removed channels masked, in eval mode."""
    masked = _masked(captured, groups, plan, planned(plan, groups))
    with _eval_mode(captured.module):
        outputs = masked.run(*pytree.tree_leaves(inputs), enable_io_processing=False)
        return captured.module.graph.process_outputs(outputs)


@torch.no_grad()
def constant_values(captured: Captured, groups: ChannelGroups, plan: Plan, where: Planned) -> dict[str, torch.Tensor]:
    """What the new parameters of a plan that removes blocks hold, by path. No input is needed: none reaches them."""
    masked = _masked(captured, groups, plan, where)
    wanted = _without_input(groups.graph, where.remains)
    kind = next(p for p in captured.module.parameters() if p.is_floating_point())
    paths = {name: path for path, name in where.constants.items()}
    values: dict[str, torch.Tensor] = {}
    with _eval_mode(captured.module):
        for n in captured.module.graph.nodes:
            node = groups.graph.by_name[n.name]
            if node.name not in wanted:
                continue
            if node.base == "sym_size":  # at batch one
                source, dim = node.args
                assert isinstance(source, Ref) and isinstance(dim, int)
                masked.env[n] = groups.graph.by_name[source.name].shape[dim]
            elif node.name in masked.dead:
                masked.env[n] = next(kind.new_zeros(shape) for shape in node.shapes)
            else:
                masked.env[n] = masked.run_node(n)
            if n.name in paths:
                path = paths[n.name]
                values[path] = _narrowed(masked.selected(n), where.graph.parameters[path].shape).clone()
    return values


def _without_input(graph: Graph, remains: Remains) -> set[str]:
    """The constants of what remains, and all that they are computed from; a dead tensor is zeros."""
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        fate = remains.fates.get(node.name)
        if fate is not None and fate.kind == "constant":
            wanted.add(node.name)
        if node.name in wanted and node.base != "sym_size" and (fate is None or fate.kind == "constant"):
            wanted.update(node.refs)
    return wanted


def _narrowed(value: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The first position on every axis of size one."""
    for axis, size in enumerate(shape):
        value = value.narrow(axis, 0, size)
    return value


@contextmanager
def _eval_mode(module: CapturedModule) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def rewritten_args(fx_node: FxNode, old: Node, new: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a program's step with the literals that a plan changes; run-time numbers stay."""
    args = tuple(_merged(c, b, a) for c, b, a in zip(fx_node.args, old.args, new.args, strict=True))
    kwargs = {key: _merged(fx_node.kwargs[key], old.kwargs[key], new.kwargs[key]) for key in fx_node.kwargs}
    return args, kwargs


def _merged(current: Any, before: Arg, after: Arg) -> Any:
    """`current` with the literals that differ between `before` and `after` replaced; run-time numbers stay."""
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return [_merged(c, b, a) for c, b, a in zip(current, before, after, strict=True)]
    return current if before == after else after


def _masked(captured: Captured, groups: ChannelGroups, plan: Plan, where: Planned) -> Masked:
    return Masked(captured.module, shrinking_of(groups, plan), where.shrunk, where.dead)


class Masked(Interpreter):
    """Runs the full-size program with masked weights; reductions over channels run on those that are left.

    Args:
        planned: The graph after the plan, no node left out.
        dead: Its nodes that have no channels; they give zeros.
    """

    def __init__(
        self, module: CapturedModule, shrinking: Shrinking, planned: Graph, dead: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(module)
        self.shrinking = shrinking
        self.planned = planned
        self.dead = dead

    def run_node(self, n: FxNode) -> Any:
        if n.op == "get_attr":
            tensor = super().run_node(n)
            return tensor if isinstance(tensor, torch.nn.Parameter) else self._cleared_tensor(n, tensor)
        if n.op != "call_function":
            return super().run_node(n)
        node = self.shrinking.graph.by_name[n.name]
        op = node.base
        if node.name in self.dead:
            return pytree.tree_map_only(torch.Tensor, torch.zeros_like, super().run_node(n))
        if (op in _REDUCING or op == "batch_norm") and self._touched(node):
            return self._on_survivors(n, node)
        if op in _CONTRACTING and n.all_input_nodes:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return n.target(*self._first_cleared(n, node, args), **kwargs)  # type: ignore[operator]
        value = super().run_node(n)
        return self._cleared(node, value) if op in _SINGULAR and isinstance(value, torch.Tensor) else value

    def map_nodes_to_values(self, args: Any, n: FxNode) -> Any:
        """What a step reads. Parameters are masked here, not where they are listed: few copies live at a time."""

        def read(source: FxNode) -> Any:
            value = self.env[source]
            return self._cleared_tensor(source, value) if isinstance(value, torch.nn.Parameter) else value

        return torch.fx.node.map_arg(args, read)

    def _cleared_tensor(self, n: FxNode, tensor: torch.Tensor) -> torch.Tensor:
        node = self.shrinking.graph.by_name[n.name]
        statistics = node.target.endswith(("running_mean", "running_var"))
        return self._cleared(node, tensor) if tensor.is_floating_point() and not statistics else tensor

    def _touched(self, node: Node) -> bool:
        """Whether an axis that the operator reduces over may lose positions."""
        x = node.refs[0]
        shape = self.shrinking.graph.by_name[x].shapes
        axes = range(len(shape[0])) if len(shape) == 1 else ()
        masks = {axis: self.shrinking.mask(x, axis) for axis in axes}
        if node.base == "batch_norm":
            masks.pop(1, None)
        return any(mask is not None and not mask.all() for mask in masks.values())

    def _on_survivors(self, n: FxNode, node: Node) -> Any:
        """Select the channels that are left, run the operator as planned, put the result back among zeros."""
        inputs = {m: self.selected(m) for m in n.all_input_nodes}
        args, kwargs = rewritten_args(n, node, self.planned.by_name[node.name])
        args = torch.fx.node.map_arg(args, lambda m: inputs[m])
        kwargs = torch.fx.node.map_arg(kwargs, lambda m: inputs[m])
        value = n.target(*args, **kwargs)  # type: ignore[operator]
        if isinstance(value, torch.Tensor):
            return self._put_back(node, 0, value)
        return type(value)(self._put_back(node, i, v) for i, v in enumerate(value))

    def selected(self, n: FxNode) -> Any:
        """A value that was computed, without its removed positions."""
        value = self.env[n]
        if not isinstance(value, torch.Tensor):
            return value
        for axis in range(value.ndim):
            mask = self.shrinking.mask(n.name, axis)
            if mask is not None and not mask.all() and len(mask) == value.shape[axis]:
                value = value.index_select(axis, torch.from_numpy(mask.nonzero()[0]))
        return value

    def _put_back(self, node: Node, output: int, value: torch.Tensor) -> torch.Tensor:
        for axis in range(value.ndim):
            mask = self.shrinking.mask(node.name, axis, output)
            if mask is not None and not mask.all():
                shape = (*value.shape[:axis], len(mask), *value.shape[axis + 1 :])
                value = value.new_zeros(shape).index_copy_(axis, torch.from_numpy(mask.nonzero()[0]), value)
        return value

    def _first_cleared(self, n: FxNode, node: Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """One operand of a product without its removed positions."""
        first = self.shrinking.graph.by_name[node.refs[0]]
        if node.base == "einsum":
            operands = [self._cleared(first, args[1][0]), *args[1][1:]]
            return (args[0], operands, *args[2:])
        if node.base == "baddbmm":
            return (args[0], self._cleared(self.shrinking.graph.by_name[node.refs[1]], args[1]), *args[2:])
        return (self._cleared(first, args[0]), *args[1:])

    def _cleared(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        masks = [self.shrinking.mask(node.name, axis) for axis in range(value.ndim)]
        going = {
            axis: torch.from_numpy((~mask).nonzero()[0])
            for axis, mask in enumerate(masks)
            if mask is not None and not mask.all() and len(mask) == value.shape[axis]
        }
        if going:
            value = value.clone()
        for axis, positions in going.items():
            value.index_fill_(axis, positions, 0.0)
        return value
