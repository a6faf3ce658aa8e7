"""The plan applied to the user's own module: the same class, the same Python, smaller tensors.

The captured program is right by construction; here the model's own Python has to follow the smaller sizes. Whether it
does is not guessed but run: the smaller module must take the same path on the example as the planned program, and every
floating-point tensor on the way must agree. Where Python writes sizes out (`view(-1, 256)`), the plan is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode
from torch.utils import _pytree as pytree

from edgeprune.errors import UnsupportedError
from edgeprune.graph import Graph, Node, Ref
from edgeprune.pruning import surgery
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.masked import Masked
from edgeprune.pruning.observe import Observed, call_arguments, observe, unchanged
from edgeprune.pruning.plan import Plan, shrinking_of
from edgeprune.pruning.recording import Following, Record, record, settled, sums, tensors_in
from edgeprune.pruning.rewrites import Shrinking
from edgeprune.pruning.trace import Captured, attribute

# Largest difference that rounding explains, relative to the sum of absolute values.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 1e-2


def prune_module(
    model: nn.Module, groups: ChannelGroups, plan: Plan, example: Any, observed: Observed | None = None
) -> nn.Module:
    """A smaller copy of the user's own module, checked on the example. The model is left unchanged.

    Parameters and buffers are sliced (tied ones stay tied), size attributes of torch's layers follow, everything else
    is as it was: its Python, hooks, mode, and what the plan does not name.

    Args:
        groups: Of the model, found through `trace` or `observe`.
        plan: For these groups.
        example: As for `observe`.
        observed: What `observe(model, example)` gave, where it is known already.

    Raises:
        UsageError: The plan does not fit the groups.
        UnsupportedError: The model's own Python does not compute what the plan means; the message names where.
    """
    observed = observe(model, example) if observed is None else observed
    if not all(plan.keep.values()):
        raise _refusal("it would still run blocks of which no channel is left", type(model).__name__)
    own = groups if groups.graph == observed.graph else channel_groups(observed.graph, groups.by_head)
    own_plan = plan if own is groups else _translated(plan, groups, own)
    planned = surgery.prune(observed, own, own_plan)
    if len(planned.graph.nodes) != len(observed.graph.nodes):
        raise _refusal("it would still run blocks of which no channel is left", type(model).__name__)
    try:
        smaller = copy.deepcopy(model)
    except Exception as err:  # whatever the user's objects raise
        raise UnsupportedError(f"the model cannot be copied: {err}", where=type(model).__name__) from err
    _take_tensors(smaller, planned)
    _set_sizes(smaller, planned.graph, observed.owners)
    try:
        with unchanged(smaller):
            smaller.eval()
            _check(smaller, observed, planned, shrinking_of(own, own_plan), call_arguments(model, example))
    except UnsupportedError:
        # Rounding may explain it, where little is left of large numbers that cancel.
        if not _exact_in_double(model, own, own_plan, example):
            raise
    return smaller


def _exact_in_double(model: nn.Module, groups: ChannelGroups, plan: Plan, example: Any) -> bool:
    """Whether the plan passes the check in double precision; False for a model that is in it already."""
    kinds = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
    if not kinds or torch.float64 in kinds:
        return False
    exact = pytree.tree_map_only(torch.Tensor, lambda x: x.double() if x.is_floating_point() else x, example)
    try:
        prune_module(copy.deepcopy(model).double(), groups, plan, exact)
    except UnsupportedError:
        return False
    return True


def _translated(plan: Plan, groups: ChannelGroups, own: ChannelGroups) -> Plan:
    """The same plan for groups found another way: what goes is told by parameter positions, which both know."""
    shrinking = shrinking_of(groups, plan)
    gone: set[int] = set()
    stays: set[int] = set()
    for path, node in own.graph.parameters.items():
        other = groups.graph.parameters.get(path)
        for axis in range(len(node.shape)):
            components = own.components_at(node.name, axis)
            mask = None if other is None else shrinking.mask(other.name, axis)
            if components is not None and mask is not None:
                gone.update(components[~mask].tolist())
                stays.update(components[mask].tolist())
    keep = {}
    for group in own.groups:
        left = [i for i, c in enumerate(group.channels.tolist()) if c not in gone]
        gone.difference_update(group.channels.tolist())
        if len(left) < group.width:
            keep[group.name] = tuple(left)
    if gone or any(not left for left in keep.values()):
        raise UnsupportedError("the plan removes channels that stay when the model's own Python runs")
    return Plan(keep=keep)


def _take_tensors(smaller: nn.Module, planned: Captured) -> None:
    """Put the planned program's parameters and buffers into the module, under every name they go by."""
    tensors = [*smaller.named_parameters(remove_duplicate=False), *smaller.named_buffers(remove_duplicate=False)]
    paths: dict[int, list[str]] = {}
    for path, tensor in tensors:
        paths.setdefault(id(tensor), []).append(path)
    for target in planned.graph.parameters:
        old = attribute(smaller, target)
        data = attribute(planned.module, target).detach()
        if data.shape == old.shape and torch.equal(data, old):
            continue
        new = data.clone()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for path in paths.get(id(old), [target]):
            owner, _, name = path.rpartition(".")
            setattr(smaller.get_submodule(owner), name, new)


def _set_sizes(smaller: nn.Module, graph: Graph, owners: Mapping[str, str]) -> None:
    """Size attributes of the layers whose forward pass ran an operator of theirs."""
    for node in graph.nodes:
        module = smaller.get_submodule(owners.get(node.name, ""))
        for name, value in _sizes(module, node, graph).items():
            if hasattr(module, name) and getattr(module, name) != value:
                setattr(module, name, value)
    for module in smaller.modules():
        if isinstance(module, nn.MultiheadAttention):
            _set_attention_sizes(module)


def _sizes(module: nn.Module, node: Node, graph: Graph) -> dict[str, Any]:
    op = node.base

    def shape(position: int) -> tuple[int, ...]:
        ref = node.args[position]
        assert isinstance(ref, Ref)
        return graph.by_name[ref.name].shape

    if isinstance(module, nn.modules.conv._ConvNd) and op.startswith("conv"):
        groups = node.args[6] if len(node.args) > 6 else 1
        assert isinstance(groups, int)
        first, second = shape(1)[:2]
        sizes = (first, second * groups) if module.transposed else (second * groups, first)
        return {"in_channels": sizes[0], "out_channels": sizes[1], "groups": groups}
    if isinstance(module, nn.Linear) and op == "linear":
        return {"out_features": shape(1)[0], "in_features": shape(1)[1]}
    if isinstance(module, nn.Bilinear) and op == "bilinear":
        return dict(zip(("out_features", "in1_features", "in2_features"), shape(2)))
    if isinstance(module, nn.modules.batchnorm._NormBase) and op in ("batch_norm", "instance_norm"):
        return {"num_features": node.shapes[0][1]}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and op in ("layer_norm", "rms_norm"):
        return {"normalized_shape": node.args[1]}
    if isinstance(module, nn.GroupNorm) and op == "group_norm":
        return {"num_groups": node.args[1], "num_channels": node.shape[1]}
    if isinstance(module, nn.PReLU) and op == "prelu":
        return {"num_parameters": shape(1)[0]}
    if isinstance(module, nn.Embedding) and op == "embedding":
        return dict(zip(("num_embeddings", "embedding_dim"), shape(0)))
    if isinstance(module, nn.Unflatten) and op == "unflatten":
        return {"unflattened_size": node.args[2]}
    if isinstance(module, nn.RNNBase) and op in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        fed, recurrent = module.get_parameter("weight_ih_l0").shape, module.get_parameter("weight_hh_l0").shape
        return {
            "input_size": fed[1],
            "hidden_size": recurrent[0] // _GATES.get(op, 1),
            "proj_size": recurrent[1] if module.proj_size else 0,
        }
    return {}


_GATES = {"lstm": 4, "gru": 3}


def _set_attention_sizes(module: nn.MultiheadAttention) -> None:
    """Inner and outer width are one number there; a plan that parts them is refused when the module runs."""
    width = module.out_proj.weight.shape[0]
    if width != module.embed_dim:
        module.embed_dim, module.head_dim = width, width // module.num_heads
        module.kdim = width if module._qkv_same_embed_dim else module.k_proj_weight.shape[1]
        module.vdim = width if module._qkv_same_embed_dim else module.v_proj_weight.shape[1]


# The check ---------------------------------------------------------------------------------------------------------


class _OnPath:
    """Keeps a program on the path of the example, and the sums of what it computes."""

    held: Mapping[str, Any]
    sums: dict[str, tuple[float, float]]

    def run_node(self, n: FxNode) -> Any:
        value = super().run_node(n)  # type: ignore[misc]
        if n.op != "call_function":
            return value
        if isinstance(value, torch.Tensor):
            if n.name in self.held:
                value = settled(value, self.held[n.name])
            if value.is_floating_point():
                self.sums[n.name] = sums(value)
        return self.held[n.name] if n.name in self.held and not isinstance(value, torch.Tensor) else value


class _Replay(_OnPath, Interpreter):
    """The planned program."""

    def __init__(self, planned: Captured, held: Mapping[str, Any]) -> None:
        super().__init__(planned.module)
        self.held, self.sums = held, {}


class _MaskedReplay(_OnPath, Masked):
    """The original program with the removed channels masked."""

    def __init__(self, observed: Observed, shrinking: Shrinking, planned: Captured, held: Mapping[str, Any]) -> None:
        super().__init__(observed.module, shrinking, planned.graph)
        self.held, self.sums = held, {}


@torch.no_grad()
def _check(
    smaller: nn.Module, observed: Observed, planned: Captured, shrinking: Shrinking, arguments: tuple[Any, ...]
) -> None:
    """Refuse a module that does not compute what the planned program and the masked original compute.

    What decides the path (positions, truth values, Python numbers) is held at what the model decided, in all three: a
    box more or less would be no difference of the network. Where its size follows the plan, it is compared as it
    comes. All floating-point tensors on the path are compared by their sums, the outputs number by number.
    """
    before, after = observed.graph, planned.graph
    same = {node.name for node in before.nodes if node.shapes == after.by_name[node.name].shapes}
    held = {name: value for name, value in observed.held.items() if name in same}
    inputs = list(tensors_in(arguments))
    replay = _Replay(planned, held)
    results = [y for y in tensors_in(replay.run(*inputs)) if y.is_floating_point()]
    following = Following({node.name: node.op for node in before.nodes}, held)
    run = _followed(smaller, arguments, following)
    names = {node.name for node in run.program.nodes}
    tolerance = max((_TOLERANCE.get(p.dtype, _COARSE) for p in smaller.parameters()), default=_COARSE)
    for name, want in replay.sums.items():
        if name in names and name not in run.sums:
            continue  # an inner step of an operator
        if not _agree(want, run.sums.get(name), tolerance):
            raise _refusal(_difference(after.by_name[name], names, run), observed.owners.get(name, ""))
    for result, own in zip(results, run.outputs, strict=True):
        if result.shape != own.shape or not _close(result, own):
            raise _refusal("its outputs differ from the planned program's", type(smaller).__name__)
    masked = _MaskedReplay(observed, shrinking, planned, held)
    masked.run(*inputs)
    for name in replay.sums:
        if name in same and not _agree(masked.sums[name], replay.sums[name], tolerance):
            raise UnsupportedError(
                f"the pruned model differs from the masked one in {name} ({after.by_name[name].op})",
                where=observed.owners.get(name, ""),
            )


def _followed(smaller: nn.Module, arguments: tuple[Any, ...], following: Following) -> Record:
    try:
        try:
            return record(smaller, arguments, following)
        except UnsupportedError:
            record(smaller, arguments)  # the first call may set things up, as it did in the model
            return record(smaller, arguments, following)
    except UnsupportedError as err:
        raise _refusal(err.message, err.where) from err


def _refusal(message: str, where: str) -> UnsupportedError:
    return UnsupportedError(
        f"the model's own Python does not follow the plan: {message}",
        where=where,
        hint="sizes written out in Python, such as view(-1, 256), must be computed from the tensor's shape",
    )


def _difference(node: Node, names: set[str], run: Record) -> str:
    if node.name not in names:
        return f"it ends before {node.name}"
    got = next(n for n in run.program.nodes if n.name == node.name).meta["val"]
    if tuple(got.shape) != node.shape:
        return f"{node.name} ({node.op}) has the shape {tuple(got.shape)} instead of {node.shape}"
    return f"{node.name} ({node.op}) has other values"


def _agree(want: tuple[float, float], got: tuple[float, float] | None, tolerance: float) -> bool:
    if got is None:
        return False
    scale = tolerance * max(want[1], 1e-30)
    return all(bool(np.isclose(b, a, rtol=0, atol=scale, equal_nan=True)) for a, b in zip(want, got))


def _close(want: torch.Tensor, got: torch.Tensor) -> bool:
    tolerance = _TOLERANCE.get(want.dtype, _COARSE)
    scale = float(want.abs().nan_to_num().max()) if want.numel() else 0.0
    return bool(torch.allclose(got, want, rtol=0, atol=tolerance * max(scale, 1e-30), equal_nan=True))
