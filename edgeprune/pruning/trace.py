"""The only door from a torch model to a `Graph`: capture with torch.export, keep the program editable.

The captured program is a module of its own: the user's parameters under their original names, one ATen operator per
step. It trains, switches between train and eval mode and exports like the original, and its shape constants can be
rewritten even where the user's Python hard-codes them.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.export import Dim
from torch.fx import GraphModule
from torch.fx.node import Node as FxNode
from torch.utils import _pytree as pytree

from edgeprune.errors import UnsupportedError, UsageError
from edgeprune.graph import Arg, Graph, Node, Ref, Shape
from edgeprune.pruning.batch import SAMPLES, free_batch, sample_axes
from edgeprune.pruning.program import literal_sizes, normalise, tidied

_BATCH_NORM_MODE = 5
# Operators whose behaviour depends on train/eval mode, and the position of that flag.
_MODE_ARGUMENT = {
    torch.ops.aten.batch_norm.default: _BATCH_NORM_MODE,
    torch.ops.aten.instance_norm.default: _BATCH_NORM_MODE,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.dropout_.default: 2,
    torch.ops.aten.feature_dropout.default: 2,
    torch.ops.aten.feature_dropout_.default: 2,
    torch.ops.aten.alpha_dropout.default: 2,
}


_LONGEST_LIST = 1 << 16


class CapturedModule(GraphModule):
    """A captured program that switches between train and eval mode and takes any batch size."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        changed = False
        for node in self.graph.nodes:
            position = _MODE_ARGUMENT.get(node.target) if node.op == "call_function" else None
            if position == _BATCH_NORM_MODE and node.args[3] is None:  # has no statistics of its own to switch to
                continue
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


Example = torch.Tensor | tuple[Any, ...] | dict[str, Any]


def trace(model: torch.nn.Module, example: Example, *, training: bool = False) -> Captured:
    """The model as a program of ATen operators with a free batch size, in eval mode. The model is left unchanged.

    Args:
        model: Any module; captured as it behaves in eval mode.
        example: Its input, its inputs in order, or its inputs by name; lists and dictionaries of tensors may nest.
            The batch is on axis 0 of every tensor whose size there is the first tensor's; the values are not used.
        training: Take the branches of training mode instead.

    Raises:
        UnsupportedError: The model branches on its data or fixes the batch size; the message quotes why.
    """
    inputs = positional(model, example)
    pair, dynamic = two_samples(inputs)
    with warnings.catch_warnings(), evaluating(model, training):
        warnings.simplefilter("ignore")
        captured = _with_numbers(_exported(model, pair, None))
        if captured is None or not _agrees(model, captured, inputs):
            captured = editable(_exported(model, pair, dynamic))
    return Captured(captured, graph_of(captured))


def _exported(model: torch.nn.Module, pair: tuple[Any, ...], dynamic: Any) -> GraphModule:
    try:
        module = torch.export.export(model, pair, dynamic_shapes=dynamic, strict=False).module()
    except Exception as err:  # torch.export raises many unrelated types
        reason = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise UnsupportedError(
            f"the model cannot be captured as a graph: {reason}",
            where=type(model).__name__,
            hint="the forward pass must not branch on values of its input and must accept any batch size",
        ) from err
    assert isinstance(module, GraphModule)
    return module


def _with_numbers(module: GraphModule) -> CapturedModule | None:
    """A program that was captured with two samples, for any number; None where its sizes do not tell what they are."""
    tidied(module)
    inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
    sizes = {n.name: tuple(n.meta["val"].shape) for n in inputs if isinstance(n.meta.get("val"), torch.Tensor)}
    samples = [name for name, shape in sizes.items() if shape[:1] == (SAMPLES,)]
    multiples = sample_axes(graph_of(module), samples)
    if multiples is None or not free_batch(module, multiples):
        return None
    return _independent(module)


@torch.no_grad()
def _agrees(model: torch.nn.Module, captured: CapturedModule, inputs: tuple[Any, ...]) -> bool:
    """Whether model and program give the same for one sample, which no size from two of them would allow."""
    one = _samples(inputs, 1)
    try:
        want, got = (pytree.tree_leaves(run(*one)) for run in (model, captured))
    except Exception:  # what does not run with one sample is captured with a symbolic number of them
        return False
    pairs = [(w, g) for w, g in zip(want, got) if isinstance(w, torch.Tensor)]
    return len(want) == len(got) and all(
        w.shape == g.shape and torch.allclose(w, g, rtol=1e-3, atol=1e-4 * _scale(w), equal_nan=True) for w, g in pairs
    )


def _scale(tensor: torch.Tensor) -> float:
    return float(tensor.detach().abs().nan_to_num().max()) if tensor.is_floating_point() and tensor.numel() else 0.0


@contextlib.contextmanager
def evaluating(model: torch.nn.Module, training: bool = False) -> Iterator[None]:
    """The model in eval mode (or in training mode); every module is in its own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, mode in modes:
            module.training = mode


def positional(model: torch.nn.Module, example: Example) -> tuple[Any, ...]:
    """The inputs in the order in which the model's forward takes them.

    Raises:
        UsageError: A name that the forward does not take.
    """
    if isinstance(example, dict):
        try:
            return inspect.signature(model.forward).bind(**example).args
        except TypeError as err:
            raise UsageError(f"the example does not fit the model: {err}", where=type(model).__name__) from None
    return example if isinstance(example, tuple) else (example,)


def two_samples(inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The inputs with two samples each (a batch of one would be taken as a constant), and which axes are free."""
    batch, batched = Dim("batch"), _batched(inputs)
    dynamic = pytree.tree_map(lambda x: {0: batch} if batched(x) else None, inputs)
    return _samples(inputs, 2), dynamic


def _batched(inputs: tuple[Any, ...]) -> Callable[[Any], bool]:
    """Tells the tensors whose first axis holds samples: those with the size of the first tensor's."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor) and leaf.ndim]
    size = len(tensors[0]) if tensors else 0
    return lambda leaf: isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == size


def _samples(inputs: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The first sample, a number of times."""
    batched = _batched(inputs)
    found: tuple[Any, ...] = pytree.tree_map(lambda x: torch.cat([x[:1]] * count).detach() if batched(x) else x, inputs)
    return found


def editable(module: GraphModule) -> CapturedModule:
    """An exported program as a module that trains, switches modes and can be pruned, with tensors of its own."""
    tidied(module)
    literal_sizes(module)
    return _independent(module)


def _independent(module: GraphModule) -> CapturedModule:
    normalise(module)
    captured = copy_module(CapturedModule(module, module.graph))
    for parameter in captured.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return captured.eval()


def copy_module(module: CapturedModule, replaced: Mapping[int, torch.Tensor] | None = None) -> CapturedModule:
    """An independent copy; tensors whose id is in `replaced` are taken from there instead of copied."""
    memo: dict[int, Any] = dict(replaced or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pytree deprecation while it copies the calling convention
        for owner in reversed(list(module.modules())):
            if type(owner) is torch.nn.Module:
                memo[id(owner)] = _copied_owner(owner, memo)
        copied: CapturedModule = copy.deepcopy(module, memo)
    return copied


def _copied_owner(owner: torch.nn.Module, memo: dict[int, Any]) -> torch.nn.Module:
    """A module that only holds tensors and others like it; spelled out, because most of a copy's time goes here."""
    copied = torch.nn.Module()
    fresh = vars(copied)
    for name, value in vars(owner).items():
        if value or name not in fresh:  # all but what every new module has too
            fresh[name] = copy.deepcopy(value, memo)
    copied.training = owner.training
    return copied


def graph_of(module: GraphModule) -> Graph:
    """The torch-free picture of a captured program. Shapes are those at batch size one."""
    return Graph(tuple(_node(module, node) for node in module.graph.nodes))


def _node(module: GraphModule, node: FxNode) -> Node:
    shapes = node.meta.get("shapes") or _shapes(node.meta.get("val"))
    args = tuple(_arg(a) for a in node.args)
    kwargs = {key: _arg(value) for key, value in node.kwargs.items()}
    if node.op == "placeholder":
        return Node(node.name, "input", shapes=shapes)
    if node.op == "get_attr":
        target = str(node.target)
        tensor = attribute(module, target)
        return Node(node.name, "parameter", shapes=(tuple(tensor.shape),), target=target, value=_positions(tensor))
    if node.op == "output":
        return Node(node.name, "output", args)
    if node.op == "call_module":
        return Node(node.name, f"module.{node.target}", args, kwargs, shapes)
    return Node(node.name, _op_name(node.target), args, kwargs, shapes)


def attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    """The parameter, buffer or constant at a dotted path."""
    owner, _, name = path.rpartition(".")
    value = getattr(module.get_submodule(owner), name)
    assert isinstance(value, torch.Tensor), path
    return value


def _positions(tensor: torch.Tensor) -> tuple[int, ...]:
    """The contents of a list of whole numbers, which may be positions on a channel axis."""
    if tensor.dtype != torch.int64 or tensor.ndim != 1 or len(tensor) > _LONGEST_LIST:
        return ()
    return tuple(tensor.tolist())


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
