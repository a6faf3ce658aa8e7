"""The only door from a torch model to a `Graph`: capture with torch.export, keep the program editable.

The captured program is a module of its own: the user's parameters under their original names, one ATen operator per
step. It trains, switches between train and eval mode and exports like the original, and its shape constants can be
rewritten even where the user's Python hard-codes them.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.node import Node as FxNode

from edgeprune.errors import UnsupportedError
from edgeprune.graph import Arg, Graph, Node, Ref, Shape

# Operators whose behaviour depends on train/eval mode, and the position of that flag.
_MODE_ARGUMENT = {
    torch.ops.aten.batch_norm.default: 5,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.dropout_.default: 2,
    torch.ops.aten.feature_dropout.default: 2,
    torch.ops.aten.feature_dropout_.default: 2,
    torch.ops.aten.alpha_dropout.default: 2,
}


class CapturedModule(GraphModule):
    """A captured program that switches between train and eval mode and takes any batch size."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        changed = False
        for node in self.graph.nodes:
            position = _MODE_ARGUMENT.get(node.target) if node.op == "call_function" else None
            if position is not None and len(node.args) > position and node.args[position] is not mode:
                node.update_arg(position, mode)
                changed = True
        if changed:
            self.recompile()
        return self

    def eval(self) -> Self:
        return self.train(False)


@dataclass(frozen=True)
class Captured:
    """A captured model: the program that runs and its torch-free picture, node for node."""

    module: CapturedModule
    graph: Graph


def trace(model: torch.nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> Captured:
    """The model as a program of ATen operators with a free batch size, in eval mode. The model is left unchanged.

    Args:
        model: Any module; captured as it behaves in eval mode.
        example: Its inputs, batch on axis 0; the values are not used.

    Raises:
        UnsupportedError: The model branches on its data or fixes the batch size; the message quotes why.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    pair = tuple(torch.cat([x[:1], x[:1]]).detach() for x in inputs)  # a batch of one would be taken as a constant
    batch = Dim("batch")
    was_training = model.training
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.eval()
            program = torch.export.export(model, pair, dynamic_shapes=[{0: batch} for _ in pair], strict=False)
            module = program.module()
    except Exception as err:  # torch.export raises many unrelated types
        reason = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise UnsupportedError(
            f"the model cannot be captured as a graph: {reason}",
            where=type(model).__name__,
            hint="the forward pass must not branch on values of its input and must accept any batch size",
        ) from err
    finally:
        model.train(was_training)
    assert isinstance(module, GraphModule)
    captured = _editable(module)
    return Captured(captured, graph_of(captured))


def _editable(module: GraphModule) -> CapturedModule:
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)  # checks the sizes of the example, which surgery changes
        elif node.op == "call_function" and node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captured = copy.deepcopy(CapturedModule(module, module.graph))  # parameters of its own
    for parameter in captured.parameters():
        parameter.requires_grad_(True)
    return captured.eval()


def graph_of(module: GraphModule) -> Graph:
    """The torch-free picture of a captured program. Shapes are those at batch size one."""
    return Graph(tuple(_node(module, node) for node in module.graph.nodes))


def _node(module: GraphModule, node: FxNode) -> Node:
    args = tuple(_arg(a) for a in node.args)
    kwargs = {key: _arg(value) for key, value in node.kwargs.items()}
    if node.op == "placeholder":
        return Node(node.name, "input", shapes=_shapes(node.meta.get("val")))
    if node.op == "get_attr":
        target = str(node.target)
        return Node(node.name, "parameter", shapes=(tuple(attribute(module, target).shape),), target=target)
    if node.op == "output":
        return Node(node.name, "output", args)
    if node.op == "call_module":
        return Node(node.name, f"module.{node.target}", args, kwargs, _shapes(node.meta.get("val")))
    return Node(node.name, _op_name(node.target), args, kwargs, _shapes(node.meta.get("val")))


def attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    """The parameter, buffer or constant at a dotted path."""
    owner, _, name = path.rpartition(".")
    value = getattr(module.get_submodule(owner), name)
    assert isinstance(value, torch.Tensor), path
    return value


def _op_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return f"builtin.{getattr(target, '__name__', target)}"


def _arg(value: Any) -> Arg:
    if isinstance(value, FxNode):
        return Ref(value.name)
    if isinstance(value, list | tuple):
        return tuple(_arg(v) for v in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)  # dtypes, devices, memory formats


def _shapes(value: Any) -> tuple[Shape, ...]:
    if isinstance(value, torch.Tensor):
        return (tuple(_at_batch_one(size) for size in value.shape),)
    if isinstance(value, list | tuple):
        return tuple(shape for v in value for shape in _shapes(v))
    return ()


def _at_batch_one(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    expr = size.node.expr
    return int(expr.subs({symbol: 1 for symbol in expr.free_symbols}))
