"""Surgery: remove channels for good. The result computes exactly what the masked model computes.

Parameters are sliced, size constants are taken from the rewritten graph; nothing else changes. The argument is never
edited.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch.fx.node import Node as FxNode

from edgeprune.graph import Arg, Node, Ref
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan, apply, kept_positions
from edgeprune.pruning.trace import Captured, CapturedModule, attribute


def prune(captured: Captured, groups: ChannelGroups, plan: Plan) -> Captured:
    """A new, smaller captured model.

    Raises:
        UsageError: The plan does not fit the model.
    """
    graph = apply(plan, groups)
    keep = groups.keep_mask({name: np.array(indices) for name, indices in plan.keep.items()})
    module = copy_module(captured.module)
    for path, node in groups.graph.parameters.items():
        masks = [kept_positions(groups, keep, node.name, axis) for axis in range(len(node.shape))]
        if any(mask is not None and not mask.all() for mask in masks):
            _slice_parameter(module, path, masks)
    for fx_node in module.graph.nodes:
        old, new = groups.graph.by_name[fx_node.name], graph.by_name[fx_node.name]
        if new != old:
            _rewrite(module, fx_node, old, new)
    module.recompile()
    return Captured(module, graph)


def masked(captured: Captured, groups: ChannelGroups, plan: Plan) -> CapturedModule:
    """The full-size model with every weight of a removed channel set to zero: what surgery must reproduce."""
    keep = groups.keep_mask({name: np.array(indices) for name, indices in plan.keep.items()})
    module = copy_module(captured.module)
    for path, node in groups.graph.parameters.items():
        tensor = attribute(module, path)
        if not tensor.is_floating_point() or path.endswith(("running_mean", "running_var")):
            continue
        for axis in range(len(node.shape)):
            mask = kept_positions(groups, keep, node.name, axis)
            if mask is not None and not mask.all():
                with torch.no_grad():
                    removed = torch.from_numpy(np.flatnonzero(~mask)).to(tensor.device)
                    tensor.index_fill_(axis, removed, 0.0)
    return module


def copy_module(module: CapturedModule) -> CapturedModule:
    """An independent copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pytree deprecation while it copies the calling convention
        return copy.deepcopy(module)


def _slice_parameter(module: torch.nn.Module, path: str, masks: list[Any]) -> None:
    owner_path, _, name = path.rpartition(".")
    owner = module.get_submodule(owner_path)
    tensor = attribute(module, path)
    data = tensor.detach()
    for axis, mask in enumerate(masks):
        if mask is not None and not mask.all():
            data = data.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(data.device))
    data = data.clone()
    if isinstance(tensor, torch.nn.Parameter):
        setattr(owner, name, torch.nn.Parameter(data, requires_grad=tensor.requires_grad))
    elif name in owner._buffers:
        owner.register_buffer(name, data, persistent=name not in owner._non_persistent_buffers_set)
    else:
        setattr(owner, name, data)


def _rewrite(module: CapturedModule, fx_node: FxNode, old: Node, new: Node) -> None:
    if new.op != old.op:
        packet, overload = new.op.removeprefix("aten.").rsplit(".", 1)
        fx_node.target = getattr(getattr(torch.ops.aten, packet), overload)
        by_name = {n.name: n for n in module.graph.nodes}
        fx_node.args = tuple(_to_fx(arg, by_name) for arg in new.args)
        fx_node.kwargs = {}
        return
    for position, (before, after) in enumerate(zip(old.args, new.args, strict=True)):
        if before != after:
            fx_node.update_arg(position, _merged(fx_node.args[position], before, after))


def _merged(current: Any, before: Arg, after: Arg) -> Any:
    """`current` with the literals that differ between `before` and `after` replaced; run-time numbers stay."""
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return [_merged(c, b, a) for c, b, a in zip(current, before, after, strict=True)]
    return current if before == after else after


def _to_fx(arg: Arg, by_name: dict[str, FxNode]) -> Any:
    if isinstance(arg, Ref):
        return by_name[arg.name]
    if isinstance(arg, tuple):
        return [_to_fx(a, by_name) for a in arg]
    return arg
