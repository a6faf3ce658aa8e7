"""Surgery: remove channels for good. The result computes exactly what the masked model computes.

Parameters are sliced, size constants are taken from the rewritten graph; nothing else changes. The argument is never
edited.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.fx.node import Node as FxNode

from edgeprune.graph import Arg, Node, Ref
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan, apply, shrinking_of
from edgeprune.pruning.rewrites import Mask
from edgeprune.pruning.trace import Captured, CapturedModule, attribute


def prune(captured: Captured, groups: ChannelGroups, plan: Plan) -> Captured:
    """A new, smaller captured model.

    Raises:
        UsageError: The plan does not fit the model.
    """
    graph = apply(plan, groups)
    shrinking = shrinking_of(groups, plan)
    smaller: dict[int, torch.Tensor] = {}
    for path, node in groups.graph.parameters.items():
        masks = [shrinking.mask(node.name, axis) for axis in range(len(node.shape))]
        value = graph.by_name[node.name].value
        if value != node.value or any(mask is not None and not mask.all() for mask in masks):
            tensor = attribute(captured.module, path)
            smaller[id(tensor)] = _sliced(tensor, masks, value)
    module = copy_module(captured.module, smaller)
    for fx_node in module.graph.nodes:
        old, new = groups.graph.by_name[fx_node.name], graph.by_name[fx_node.name]
        if new != old:
            _rewrite(module, fx_node, old, new)
    module.recompile()
    return Captured(module, graph)


def copy_module(module: CapturedModule, replaced: Mapping[int, torch.Tensor] | None = None) -> CapturedModule:
    """An independent copy; tensors whose id is in `replaced` are taken from there instead of copied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pytree deprecation while it copies the calling convention
        return copy.deepcopy(module, dict(replaced or {}))


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


def _rewrite(module: CapturedModule, fx_node: FxNode, old: Node, new: Node) -> None:
    if new.op != old.op:
        packet, overload = new.op.removeprefix("aten.").rsplit(".", 1)
        fx_node.target = getattr(getattr(torch.ops.aten, packet), overload)
        by_name = {n.name: n for n in module.graph.nodes}
        fx_node.args = tuple(_to_fx(arg, by_name) for arg in new.args)
        fx_node.kwargs = {}
        return
    fx_node.args, fx_node.kwargs = rewritten_args(fx_node, old, new)


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


def _to_fx(arg: Arg, by_name: dict[str, FxNode]) -> Any:
    if isinstance(arg, Ref):
        return by_name[arg.name]
    if isinstance(arg, tuple):
        return [_to_fx(a, by_name) for a in arg]
    return arg
