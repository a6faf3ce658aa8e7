"""Surgery: remove channels for good. The result computes exactly what the masked model computes.

Parameters are sliced, size constants are taken from the rewritten graph; nothing else changes but for blocks that go
whole. The argument is never edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.fx.node import Node as FxNode

from edgeprune.graph import Node, Ref
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.masked import constant_values, rewritten_args
from edgeprune.pruning.plan import Plan, planned, shrinking_of
from edgeprune.pruning.rewrites import Mask
from edgeprune.pruning.trace import Captured, CapturedModule, attribute, copy_module


def prune(captured: Captured, groups: ChannelGroups, plan: Plan) -> Captured:
    """A new, smaller captured model. Where a whole block goes, the constant it leaves becomes a parameter.

    Raises:
        UsageError: The plan does not fit the model.
    """
    where = planned(plan, groups)
    graph = where.graph
    shrinking = shrinking_of(groups, plan)
    smaller: dict[int, torch.Tensor] = {}
    for path, node in groups.graph.parameters.items():
        if path not in graph.parameters:
            continue
        masks = [shrinking.mask(node.name, axis) for axis in range(len(node.shape))]
        value = graph.by_name[node.name].value
        if value != node.value or any(mask is not None and not mask.all() for mask in masks):
            tensor = attribute(captured.module, path)
            smaller[id(tensor)] = _sliced(tensor, masks, value)
    module = copy_module(captured.module, smaller)
    if where.constants:
        _insert(module, constant_values(captured, groups, plan, where))
    by_name = {node.name: node for node in module.graph.nodes}
    for name, fx_node in by_name.items():
        old, new = groups.graph.by_name.get(name), graph.by_name.get(name)
        if old is not None and new is not None and new != old:
            _rewrite(fx_node, old, new, by_name)
    _erase(module, [node for name, node in by_name.items() if name not in graph.by_name])
    module.recompile()
    return Captured(module, graph)


def written_back(captured: Captured, groups: ChannelGroups, plan: Plan, pruned: Captured) -> Captured:
    """The whole model with the weights of a pruned one where the plan keeps them, and its own elsewhere.

    Args:
        pruned: From `prune` of the same model and plan, trained since.
    """
    graph, shrinking = planned(plan, groups).graph, shrinking_of(groups, plan)
    replaced: dict[int, torch.Tensor] = {}
    for path, node in groups.graph.parameters.items():
        whole = attribute(captured.module, path)
        if path not in graph.parameters or not whole.is_floating_point():
            continue
        masks = [shrinking.mask(node.name, axis) for axis in range(len(node.shape))]
        kept = [np.arange(n) if mask is None else np.flatnonzero(mask) for n, mask in zip(node.shape, masks)]
        data = whole.detach().clone()
        small = attribute(pruned.module, path).detach().to(data.device)
        if kept:
            data[tuple(torch.from_numpy(index).to(data.device) for index in np.ix_(*kept))] = small
        else:
            data.copy_(small)
        is_weight = isinstance(whole, torch.nn.Parameter)
        replaced[id(whole)] = torch.nn.Parameter(data, requires_grad=whole.requires_grad) if is_weight else data
    return Captured(copy_module(captured.module, replaced), captured.graph)


def _insert(module: CapturedModule, constants: Mapping[str, torch.Tensor]) -> None:
    """New parameters before everything else, in the given order."""
    first = next(iter(module.graph.nodes))
    with module.graph.inserting_before(first):
        for name, value in constants.items():
            module.register_parameter(name, torch.nn.Parameter(value, requires_grad=value.is_floating_point()))
            module.graph.get_attr(name)


def _erase(module: CapturedModule, nodes: list[FxNode]) -> None:
    """Take steps out of a program, with the parameters that nothing reads without them."""
    for node in reversed(nodes):
        module.graph.erase_node(node)
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            delattr(module.get_submodule(owner), name)
    if nodes:
        module.delete_all_unused_submodules()


def _sliced(tensor: torch.Tensor, masks: list[Mask | None], value: tuple[int, ...]) -> torch.Tensor:
    """The positions that stay, or the given whole numbers, as a tensor of the same kind."""
    data = tensor.detach()
    for axis, mask in enumerate(masks):
        if mask is not None and not mask.all():
            data = data.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(data.device))
    if value:
        data = data.new_tensor(value)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _rewrite(fx_node: FxNode, old: Node, new: Node, by_name: Mapping[str, FxNode]) -> None:
    if new.op != old.op:
        packet, overload = new.op.removeprefix("aten.").rsplit(".", 1)
        fx_node.target = getattr(getattr(torch.ops.aten, packet), overload)
        fx_node.args = tuple(_to_fx(arg, by_name) for arg in new.args)
        fx_node.kwargs = {key: _to_fx(arg, by_name) for key, arg in new.kwargs.items()}
        return
    args, kwargs = rewritten_args(fx_node, old, new)
    fx_node.args = tuple(_to_fx(arg, by_name) for arg in args)
    fx_node.kwargs = {key: _to_fx(arg, by_name) for key, arg in kwargs.items()}


def _to_fx(arg: Any, by_name: Mapping[str, FxNode]) -> Any:
    if isinstance(arg, Ref):
        return by_name[arg.name]
    if isinstance(arg, tuple | list):
        return [_to_fx(a, by_name) for a in arg]
    return arg
