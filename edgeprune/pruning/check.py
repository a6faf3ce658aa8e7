"""The proof that surgery did what it says: the pruned model against the full-size model with the same channels masked.

Masked means: every weight of a removed channel is zero, in the original program. Where zero is not neutral (statistics
of a norm, softmax, mean, maximum, a product of two activations), the operator runs over the channels that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode
from torch.utils import _pytree as pytree

from edgeprune.graph import Graph, Node
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan, apply, keeps_all, shrinking_of
from edgeprune.pruning.rewrites import Shrinking
from edgeprune.pruning.surgery import copy_module, prune, rewritten_args
from edgeprune.pruning.trace import Captured, CapturedModule

TOLERANCE = 1e-5  # of the largest output, in single precision
_DOUBLE = 1e-9

_REDUCING = frozenset(
    "mean sum amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm norm".split()
    + "softmax log_softmax _softmax layer_norm rms_norm group_norm".split()
)
_CONTRACTING = frozenset("matmul mm bmm mv dot einsum baddbmm scaled_dot_product_attention bilinear".split())
_SINGULAR = frozenset("div rsqrt sqrt log pow reciprocal _weight_norm _weight_norm_interface".split())  # at zero


@dataclass(frozen=True)
class Checked:
    """A pruned model that was compared with its masked original.

    Attributes:
        plan: What was really removed.
        error: max |pruned - masked| / max |masked| on the inputs of the check.
        excluded: Groups that were left whole because removing their channels changed the result, with their error.
    """

    pruned: Captured
    plan: Plan
    error: float
    excluded: Mapping[str, float]


def checked_prune(captured: Captured, groups: ChannelGroups, plan: Plan, inputs: tuple[Any, ...]) -> Checked:
    """Prune, compare on real inputs, and leave out whatever group does not pass.

    Args:
        inputs: As the model takes them, batch on axis 0.

    Raises:
        UsageError: The plan does not fit the model.
    """
    excluded: dict[str, float] = {}
    while True:
        pruned = prune(captured, groups, plan)
        error = difference(captured, groups, plan, pruned, inputs)
        if error <= TOLERANCE or keeps_all(groups, plan):
            return Checked(pruned, plan, error, excluded)
        # Groups that pass alone and fail together: leave out all that are still in.
        excluded |= _failing(captured, groups, plan, inputs) or dict.fromkeys(plan.keep, error)
        left = {name: kept for name, kept in plan.keep.items() if name not in excluded}
        plan = plan.model_copy(update={"keep": left})


def vetted(captured: Captured, groups: ChannelGroups, inputs: tuple[Any, ...], seed: int = 0) -> ChannelGroups:
    """The groups that pass the check at half of their channels, drawn at random; the others frozen, with their error.

    Args:
        inputs: As the model takes them, batch on axis 0.
    """
    rng = np.random.default_rng(seed)
    half = {
        group.name: tuple(sorted(rng.choice(group.width, (group.width + 1) // 2, replace=False).tolist()))
        for group in groups.groups
        if group.width > 1
    }
    excluded = checked_prune(captured, groups, Plan(keep=half), inputs).excluded
    return groups.without({name: f"pruned differs from masked by {error:.1e}" for name, error in excluded.items()})


def _failing(captured: Captured, groups: ChannelGroups, plan: Plan, inputs: tuple[Any, ...]) -> dict[str, float]:
    errors = {}
    for name, kept in plan.keep.items():
        alone = Plan(keep={name: kept})
        error = difference(captured, groups, alone, prune(captured, groups, alone), inputs)
        if not error <= TOLERANCE:
            errors[name] = error
    return errors


def difference(
    captured: Captured, groups: ChannelGroups, plan: Plan, pruned: Captured, inputs: tuple[Any, ...]
) -> float:
    """max |pruned - masked| / max |masked| over all floating-point outputs; infinite where the pruned model fails.

    In the model's precision first; where rounding could explain what is found, in double precision, scaled so that
    `TOLERANCE` is the limit in both.
    """
    error = _difference(captured, groups, plan, pruned, inputs)
    if TOLERANCE < error < float("inf"):
        double = [Captured(copy_module(c.module).double(), c.graph) for c in (captured, pruned)]
        exact = tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs)
        try:
            error = _difference(double[0], groups, plan, double[1], exact) * (TOLERANCE / _DOUBLE)
        except RuntimeError:  # a constant of the program is bound to single precision
            return error
    return error


@torch.no_grad()
def _difference(
    captured: Captured, groups: ChannelGroups, plan: Plan, pruned: Captured, inputs: tuple[Any, ...]
) -> float:
    want = _tensors(masked_outputs(captured, groups, plan, *_copied(inputs)))
    try:
        got = _tensors(pruned.module.eval()(*_copied(inputs)))
    except (RuntimeError, IndexError, ValueError):  # a size that does not fit
        return float("inf")
    if [t.shape for t in want] != [t.shape for t in got]:
        return float("inf")
    pairs = [(w.double(), g.double()) for w, g in zip(want, got, strict=True) if w.numel()]
    scale = max((float(w.abs().max()) for w, _ in pairs), default=0.0)
    worst = max((float((w - g).abs().max()) for w, g in pairs), default=0.0)
    if not worst < float("inf"):  # infinite or not a number
        return float("inf")
    return worst / scale if scale > 0 else worst


def _copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A model may write into its inputs."""
    copies: tuple[Any, ...] = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, inputs)
    return copies


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor) and t.is_floating_point()]


@torch.no_grad()
def masked_outputs(captured: Captured, groups: ChannelGroups, plan: Plan, *inputs: Any) -> Any:
    """What the full-size model computes with the plan's removed channels masked, in eval mode."""
    masked = _Masked(captured.module, shrinking_of(groups, plan), apply(plan, groups))
    was_training = captured.module.training
    captured.module.eval()
    try:
        outputs = masked.run(*pytree.tree_leaves(inputs), enable_io_processing=False)
        return captured.module.graph.process_outputs(outputs)
    finally:
        captured.module.train(was_training)


class _Masked(Interpreter):
    """Runs the full-size program with masked weights; reductions over channels run on those that are left."""

    def __init__(self, module: CapturedModule, shrinking: Shrinking, planned: Graph) -> None:
        super().__init__(module)
        self.shrinking = shrinking
        self.planned = planned

    def run_node(self, n: FxNode) -> Any:
        if n.op == "get_attr":
            node, tensor = self.shrinking.graph.by_name[n.name], super().run_node(n)
            statistics = node.target.endswith(("running_mean", "running_var"))
            return self._cleared(node, tensor) if tensor.is_floating_point() and not statistics else tensor
        if n.op != "call_function":
            return super().run_node(n)
        node = self.shrinking.graph.by_name[n.name]
        op = node.base
        if (op in _REDUCING or op == "batch_norm") and self._touched(node):
            return self._on_survivors(n, node)
        if op in _CONTRACTING and n.all_input_nodes:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return n.target(*self._first_cleared(n, node, args), **kwargs)  # type: ignore[operator]
        value = super().run_node(n)
        return self._cleared(node, value) if op in _SINGULAR and isinstance(value, torch.Tensor) else value

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
        inputs = {m: self._selected(m) for m in n.all_input_nodes}
        args, kwargs = rewritten_args(n, node, self.planned.by_name[node.name])
        args = torch.fx.node.map_arg(args, lambda m: inputs[m])
        kwargs = torch.fx.node.map_arg(kwargs, lambda m: inputs[m])
        value = n.target(*args, **kwargs)  # type: ignore[operator]
        if isinstance(value, torch.Tensor):
            return self._put_back(node, 0, value)
        return type(value)(self._put_back(node, i, v) for i, v in enumerate(value))

    def _selected(self, n: FxNode) -> Any:
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
        for axis in range(value.ndim):
            mask = self.shrinking.mask(node.name, axis)
            if mask is not None and not mask.all() and len(mask) == value.shape[axis]:
                value = value.index_fill(axis, torch.from_numpy((~mask).nonzero()[0]), 0.0)
        return value
