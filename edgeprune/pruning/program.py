"""Put a captured program into the form that pruning needs: nothing in it but what depends on input and parameters.

torch.export writes a program as the user's Python ran: sizes recomputed from other sizes, position tables built anew,
one tensor under two names. Here sizes become literals with at most one free axis, what depends on neither the input
nor a trainable tensor becomes a constant, tied parameters get one name, and attention carries its scale.
"""

from __future__ import annotations

import warnings
from functools import partial
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx.node import Node as FxNode

_SIZED = {  # operator -> position of the list of sizes
    torch.ops.aten.view.default: 1,
    torch.ops.aten.reshape.default: 1,
    torch.ops.aten._unsafe_view.default: 1,
}
_EXPANDED = (torch.ops.aten.expand.default,)
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_CHECKS = (
    torch.ops.aten._assert_tensor_metadata.default,
    torch.ops.aten._assert_scalar.default,
    torch.ops.aten._assert_async.msg,
    torch.ops.aten.sym_constrain_range.default,
    torch.ops.aten.sym_constrain_range_for_size.default,
)
_RANDOM_MARK = torch.Tag.nondeterministic_seeded
_LARGEST_CONSTANT = 1 << 24  # elements; larger tables are computed where they are used


def tidied(module: GraphModule) -> None:
    """Take out of a captured program, in place, what only restates the example; it computes the same."""
    _inlined_regions(module)
    _without_checks(module)
    _one_name_per_tensor(module)


def literal_sizes(module: GraphModule) -> None:
    """Sizes that a program with a symbolic batch computes become literals, in place."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            _literal_sizes(node)


def normalise(module: GraphModule) -> None:
    """Rewrite a program with literal sizes and a free batch in place; what it computes stays the same."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            _explicit_scale(node)
    module.graph.eliminate_dead_code()
    _folded_constants(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()


def _without_checks(module: GraphModule) -> None:
    """Checks of the example's sizes, which surgery changes."""
    for node in list(module.graph.nodes):
        guard = node.op == "call_module" and node.target == "_guards_fn"
        if guard or (node.op == "call_function" and node.target in _CHECKS):
            module.graph.erase_node(node)


def _inlined_regions(module: GraphModule) -> None:
    """Regions under a switched-off autocast, or under no_grad, run as any other steps."""
    for node in list(module.graph.nodes):
        name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
        if name == "wrap_with_autocast" and not node.args[2]:
            region, operands = node.args[4], node.args[5:]
        elif name == "wrap_with_set_grad_enabled":
            region, operands = node.args[1], node.args[2:]
        else:
            continue
        with module.graph.inserting_before(node):
            result = _copied(module, getattr(module, str(region.target)), operands)
            if name == "wrap_with_set_grad_enabled" and not node.args[0]:
                result = torch.fx.node.map_arg(
                    result, partial(module.graph.call_function, torch.ops.aten.detach.default)
                )
        if isinstance(result, tuple | list):
            for user in list(node.users):
                user.replace_all_uses_with(result[user.args[1]])
                module.graph.erase_node(user)
        else:
            node.replace_all_uses_with(result)
        module.graph.erase_node(node)


def _copied(module: GraphModule, region: GraphModule, operands: tuple[Any, ...]) -> Any:
    """The steps of a region put into the program at the point of insertion; what the region returns."""
    copied: dict[FxNode, Any] = {}
    values = iter(operands)
    for step in region.graph.nodes:
        if step.op == "placeholder":
            copied[step] = next(values)
        elif step.op == "output":
            return torch.fx.node.map_arg(step.args[0], copied.__getitem__)
        else:
            copied[step] = module.graph.node_copy(step, copied.__getitem__)
    return None


def _one_name_per_tensor(module: GraphModule) -> None:
    """A parameter that is reached under several names is one tensor and goes by its first."""
    first: dict[int, FxNode] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            tensor = getattr(module.get_submodule(owner), name)
            if not isinstance(tensor, torch.Tensor):
                continue
            known = first.setdefault(id(tensor), node)
            if known is not node:
                node.replace_all_uses_with(known)
                module.graph.erase_node(node)
                if known.target != node.target:
                    delattr(module.get_submodule(owner), name)


def _sizes(node: FxNode) -> list[int | torch.SymInt] | None:
    value = node.meta.get("val")
    return list(value.shape) if isinstance(value, torch.Tensor) else None


def _literal_sizes(node: FxNode) -> None:
    """Sizes given as numbers: -1 for the one axis that follows the batch, literals elsewhere."""
    sizes = _sizes(node)
    if sizes is None:
        return
    free = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
    if node.target in _SIZED and len(free) <= 1 and isinstance(node.args[_SIZED[node.target]], list | tuple):
        node.update_arg(_SIZED[node.target], [size if isinstance(size, int) else -1 for size in sizes])
    elif node.target in _EXPANDED:
        source = _sizes(node.args[0]) or []  # type: ignore[arg-type]
        given = list(node.args[1])  # type: ignore[arg-type]
        offset = len(sizes) - len(source)
        for i, size in enumerate(sizes):
            if isinstance(size, int):
                given[i] = size
            elif i >= offset and not isinstance(source[i - offset], int):
                given[i] = -1
        node.update_arg(1, given)


def _explicit_scale(node: FxNode) -> None:
    """The temperature of the dense model stays when heads get narrower."""
    if node.target is _ATTENTION and node.kwargs.get("scale") is None:
        query = node.args[0].meta["val"]  # type: ignore[union-attr]
        node.kwargs = {**node.kwargs, "scale": float(query.shape[-1]) ** -0.5}


def _folded_constants(module: GraphModule) -> None:
    """Replace what depends on neither the input nor a trainable tensor by its value.

    But for a buffer that is only rescaled: its value would freeze the precision that the program was captured in.
    """
    fixed = _fixed_nodes(module)
    rescaled = _rescaled_buffers(module, fixed)
    values: dict[FxNode, Any] = {}
    made: dict[tuple[FxNode, int], FxNode] = {}
    for node in list(module.graph.nodes):
        if node in fixed:
            values[node] = _evaluated(module, node, values)
            continue
        for source in [n for n in node.all_input_nodes if n in fixed and n not in rescaled]:
            value = values[source]
            if isinstance(value, torch.Tensor):
                key = (source, value._version)
                if key not in made:
                    made[key] = _constant(module, node, value, f"_constant_{len(made)}")
                node.replace_input_with(source, made[key])
    for node in reversed(list(module.graph.nodes)):
        if node in fixed and not node.users and node.op != "placeholder":
            module.graph.erase_node(node)


def _fixed_nodes(module: GraphModule) -> set[FxNode]:
    """Nodes that give the same at every call: made from constants and from buffers that nothing writes into."""
    fixed: set[FxNode] = set()
    state = {_written(node) for node in module.graph.nodes if node.op == "call_function"}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            tensor = getattr(module.get_submodule(owner), name)
            if isinstance(tensor, torch.Tensor) and not isinstance(tensor, torch.nn.Parameter) and node not in state:
                fixed.add(node)
        elif node.op == "call_function" and _is_fixed(node, fixed):
            fixed.add(node)
    changed = True
    while changed:  # a constant that something else writes into is none
        writers = [node for node in module.graph.nodes if node.op == "call_function" and node not in fixed]
        written = {target for node in writers if (target := _written(node)) in fixed and target is not None}
        changed = bool(written)
        while written:
            loose = {n for n in fixed if n in written}
            fixed -= loose
            written = {n for n in fixed if any(m in loose for m in n.all_input_nodes)} | {
                m for n in loose for m in n.all_input_nodes if m in fixed and m.op != "get_attr" and _aliases(n)
            }
    return fixed


def _rescaled_buffers(module: GraphModule, fixed: set[FxNode]) -> set[FxNode]:
    """Of the fixed nodes the buffers, and what is computed of one floating-point buffer element by element."""
    rescaled: set[FxNode] = set()
    for node in module.graph.nodes:
        if node not in fixed:
            continue
        sources = node.all_input_nodes
        if node.op == "get_attr":
            rescaled.add(node)
        elif len(sources) == 1 and sources[0] in rescaled and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            before, after = sources[0].meta.get("val"), node.meta["val"]
            if isinstance(before, torch.Tensor) and before.is_floating_point() and before.shape == after.shape:
                rescaled.add(node)
    return rescaled


def _is_fixed(node: FxNode, fixed: set[FxNode]) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) and node.target.__name__ != "getitem":  # type: ignore[union-attr]
        return False
    if isinstance(node.target, torch._ops.OpOverload) and _RANDOM_MARK in node.target.tags:
        return False
    value = node.meta.get("val")
    leaves = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(v, torch.Tensor) and _is_static(v) for v in leaves):
        return False
    inputs = node.all_input_nodes
    if _only_as_model(node):
        inputs = [n for n in inputs if n is not node.args[0]]
    return all(n in fixed for n in inputs)


def _only_as_model(node: FxNode) -> bool:
    """`new_zeros` and its like take nothing but type and device from their first argument."""
    name = str(node.target)
    return name.startswith(("aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.zeros_like", "aten.ones_like"))


def _is_static(value: torch.Tensor) -> bool:
    return all(isinstance(n, int) for n in value.shape) and prod(value.shape) <= _LARGEST_CONSTANT


def _written(node: FxNode) -> FxNode | None:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not node.args or not isinstance(node.args[0], FxNode):
        return None
    return node.args[0]


def _aliases(node: FxNode) -> bool:
    """Whether a node's value may share memory with its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(r.alias_info is not None for r in schema.returns)


def _evaluated(module: GraphModule, node: FxNode, values: dict[FxNode, Any]) -> Any:
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return getattr(module.get_submodule(owner), name).detach().clone()
    if _only_as_model(node):
        value = node.meta["val"]
        fill = {"aten.new_full": node.args[2] if len(node.args) > 2 else 0}.get(str(node.target).rsplit(".", 1)[0])
        fill = float("ones" in str(node.target)) if fill is None else fill
        return torch.full([int(n) for n in value.shape], fill, dtype=value.dtype)  # type: ignore[arg-type]

    def look_up(n: FxNode) -> Any:
        return values[n]

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = torch.fx.node.map_arg(node.args, look_up)
        kwargs = torch.fx.node.map_arg(node.kwargs, look_up)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _constant(module: GraphModule, user: FxNode, value: torch.Tensor, name: str) -> FxNode:
    while hasattr(module, name):
        name += "_"
    module.register_buffer(name, value.detach().clone(), persistent=False)
    with module.graph.inserting_before(user):
        node = module.graph.get_attr(name)
    node.meta["val"] = value
    return node
