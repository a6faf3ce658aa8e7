"""The form of a model that every converter takes: a captured graph in inference mode, at batch one.

Rewrites here change how the model is written down, never what it computes: converters stumble over `view` after a
change of layout, miscompile inference-mode dropout, and leave a transpose where a spatial map is flattened.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.conversion.chatter import quiet
from edgeprune.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

Array = np.ndarray[Any, np.dtype[Any]]


def prepare(model: torch.nn.Module, example: Array) -> GraphModule:
    """A copy of the model as a graph of ATen operators in inference mode, for inputs of the example's shape.

    Args:
        model: Any module with one tensor input, plain or captured.
        example: (1, ...) float32.

    Raises:
        UnsupportedError: torch.export cannot capture it.
    """
    import torch

    with quiet("capturing the model for export"), torch.no_grad():
        own = copy.deepcopy(model).cpu()
        own.eval()
        graph_module = torch.export.export(own, (torch.from_numpy(example[:1]),), strict=False).module()
    assert isinstance(graph_module, torch.fx.GraphModule)
    aten = torch.ops.aten
    for node in list(graph_module.graph.nodes):
        if node.op == "call_module":  # input guards, which no converter knows
            graph_module.graph.erase_node(node)
        elif node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        elif node.target in _identities():
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
        elif node.target is aten.mean.dim:
            _pool_instead_of_mean(graph_module, node)
    return _finished(graph_module)


def _identities() -> tuple[Any, ...]:
    import torch

    aten = torch.ops.aten
    return (
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.alias.default,
    )


def _pool_instead_of_mean(graph_module: GraphModule, node: Node) -> None:
    """Pooling keeps its layout through the channel-last conversion where a mean over axes 2 and 3 does not."""
    import torch

    source, axes = node.args[0], node.args[1]
    rank = source.meta["val"].ndim  # type: ignore[union-attr]
    if rank != 4 or sorted(axis % rank for axis in axes) != [2, 3] or node.kwargs:  # type: ignore[union-attr]
        return
    keep = len(node.args) > 2 and bool(node.args[2])
    with graph_module.graph.inserting_before(node):
        pooled = graph_module.graph.call_function(torch.ops.aten.adaptive_avg_pool2d.default, (source, [1, 1]))
        value = source.meta["val"]  # type: ignore[union-attr]
        pooled.meta["val"] = value.new_empty((*value.shape[:2], 1, 1))
        new = pooled if keep else graph_module.graph.call_function(torch.ops.aten.flatten.using_ints, (pooled, 1))
    new.meta.setdefault("val", node.meta["val"])
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)


def weights_of(model: torch.nn.Module, paths: Collection[str]) -> tuple[Array, ...]:
    """The weights at these dotted paths: what a converter knows a layer by, whatever it calls it."""
    return tuple(model.get_parameter(path).detach().cpu().numpy() for path in paths)


def names_holding(weights: Collection[Array], constants: Mapping[str, Array]) -> frozenset[str]:
    """The constants of a converted file that hold one of these weights, in any order of their elements.

    Raises:
        UnsupportedError: A weight is in none.
    """
    found: set[str] = set()
    for weight in weights:
        wanted = np.sort(weight, axis=None)
        same = {name for name, value in constants.items() if _same(wanted, value)}
        if not same:
            raise UnsupportedError(
                f"the converted file holds no weight like the one of shape {weight.shape} that shall stay float",
                hint="leave that layer in int8",
            )
        found |= same
    return frozenset(found)


def _same(wanted: Array, value: Array) -> bool:
    if value.size != wanted.size or value.dtype.kind != "f":
        return False
    return np.allclose(np.sort(value, axis=None), wanted, rtol=1e-5, atol=1e-7 * float(np.abs(wanted).max()))


def flatten_channel_last(graph_module: GraphModule) -> GraphModule:
    """Flatten spatial maps in (H, W, C) order where only linear layers read them; their columns are permuted.

    The result computes the same. It spares a channel-last runtime the transpose before the flattened layer.
    Edits and returns its argument.
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph_module.graph.nodes):
        if node.target not in (aten.reshape.default, aten.flatten.using_ints) or not _flattens_map(node):
            continue
        linears = list(_readers(node))
        if not all(linear is not None for linear in linears):
            continue
        source = node.args[0]
        with graph_module.graph.inserting_before(node):
            last = graph_module.graph.call_function(aten.permute.default, (source, [0, 2, 3, 1]))
        last.meta["val"] = source.meta["val"].permute(0, 2, 3, 1)
        node.update_arg(0, last)
        for linear in linears:
            assert linear is not None
            _permute_columns(graph_module, linear, tuple(source.meta["val"].shape[1:]))
    return _finished(graph_module)


def _flattens_map(node: Node) -> bool:
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    return len(before) == 4 and len(after) == 2 and before[2] * before[3] > 1 and before[0] == after[0]


def _readers(node: Node) -> Iterator[Node | None]:
    """The linear layers that read `node` through element-wise operators; None for any other reader."""
    import torch

    aten = torch.ops.aten
    elementwise = (
        *(aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default, aten.hardswish.default),
        *(aten.sigmoid.default, aten.tanh.default, aten.silu.default, aten.gelu.default, aten.leaky_relu.default),
        *(aten.hardsigmoid.default, aten.elu.default, aten.clamp.default),
    )
    for user in node.users:
        if user.target is aten.linear.default and user.args[0] is node:
            yield user
        elif user.target in elementwise:
            yield from _readers(user)
        else:
            yield None


def _permute_columns(graph_module: GraphModule, linear: Node, chw: tuple[int, ...]) -> None:
    import torch

    attribute = linear.args[1]
    owner: Any = graph_module
    for part in str(attribute.target).split("."):  # type: ignore[union-attr]
        owner = getattr(owner, part)
    weight = owner.detach().reshape(-1, *chw).permute(0, 2, 3, 1).reshape(owner.shape).contiguous()
    name = f"{linear.name}_weight_channel_last"
    graph_module.register_parameter(name, torch.nn.Parameter(weight, requires_grad=False))
    with graph_module.graph.inserting_before(linear):
        new = graph_module.graph.get_attr(name)
    new.meta.update(attribute.meta)  # type: ignore[union-attr]
    linear.update_arg(1, new)


def _finished(graph_module: GraphModule) -> GraphModule:
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    for module in graph_module.modules():
        module.training = False
    # torch's captured modules refuse train() and eval(); converters call them on a graph that has no modes left.
    object.__setattr__(graph_module, "eval", lambda: graph_module)
    object.__setattr__(graph_module, "train", lambda mode=True: graph_module)
    return graph_module
