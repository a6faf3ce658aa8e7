"""What a model really runs on one example: every operator, in order, whatever Python decides in between.

`torch.export` needs a forward pass that is free of data-dependent Python. A run on concrete tensors does not: each
operator is noted where it enters the dispatcher, above autograd, so that it bears the same name as in a captured
program (`aten.conv2d`, not `aten.convolution`). Sizes that the model's Python computes become literals.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.fx import Graph as FxGraph
from torch.fx.node import Node as FxNode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from edgeprune.errors import UnsupportedError

CONSTANT = "_constant"  # prefix of tensors that the model's Python makes; no parameter or buffer holds them
_READS = frozenset(["numpy", "tolist", "__array__", "__dlpack__", "data_ptr"])


def read_by_python(tensor: torch.Tensor, how: str) -> None:
    """Stands in a recorded program where Python reads a tensor's values behind the operators' back."""


@dataclass(frozen=True)
class Following:
    """An earlier run to follow: the operators that must come again, and what decides the path.

    Attributes:
        ops: Operator per node, in order of execution.
        held: Whole numbers, truth values and Python numbers that replace those of this run, so that it takes the
            same path although its weights differ in the last bits, or are fewer.
    """

    ops: Mapping[str, str]
    held: Mapping[str, Any]


@dataclass
class Call:
    """One call of a module: who called it, and the nodes that went in and came out."""

    path: str
    caller: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass
class Record:
    """A run, operator by operator.

    Attributes:
        program: The operators as an fx graph that can be run again; parameters by their path in the model.
        attributes: The tensors that the program reads, by path.
        owners: Path of the module in whose forward pass each node ran; empty for the model itself.
        calls: All module calls.
        decisions: Nodes whose values reach Python: the path may depend on them.
        held: Outputs that are whole numbers, truth values or Python numbers, by node.
        sums: (sum, sum of absolute values) of every floating-point output, by node, of a run that follows another.
        outputs: The floating-point tensors that the model returned.
    """

    program: FxGraph = field(default_factory=FxGraph)
    attributes: dict[str, torch.Tensor] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    outputs: list[torch.Tensor] = field(default_factory=list)


def record(model: torch.nn.Module, arguments: tuple[Any, ...], following: Following | None = None) -> Record:
    """Run the model once, without gradients, and note every operator.

    Args:
        arguments: What the model is called with; tensors anywhere inside lists, tuples, dicts and objects.
        following: The run whose path to take.

    Raises:
        UnsupportedError: The run fails (the message quotes why), gives no tensor, or leaves the path that it should
            follow.
    """
    recorder = _Recorder(model, following)
    for tensor in tensors_in(arguments):
        recorder.name_input(tensor)
    try:
        with torch.no_grad(), contextlib.ExitStack() as stack:
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # a compiled part would be one opaque step
            stack.enter_context(_hooked(model, recorder))
            stack.enter_context(enable_python_dispatcher())  # hands operators to modes above autograd
            stack.enter_context(recorder)
            stack.enter_context(_Reads(recorder))
            result = model(*arguments)
    except UnsupportedError:
        raise
    except Exception as err:
        reason = next((line.strip() for line in str(err).splitlines() if line.strip()), "no message")
        raise UnsupportedError(
            f"the model does not run: {type(err).__name__}: {reason}", where=recorder.last or type(model).__name__
        ) from err
    outputs = list(tensors_in(result))
    if not outputs:
        raise UnsupportedError(f"the model returns no tensor but a {type(result).__name__}", where=type(model).__name__)
    recorder.record.program.output(tuple(recorder.node_of(y) for y in outputs))
    recorder.record.outputs = [y.detach() for y in outputs if y.is_floating_point()]
    return recorder.record


def tensors_in(value: Any, seen: set[int] | None = None) -> Iterator[torch.Tensor]:
    """All tensors inside nested containers and plain objects, in order."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        yield value
        return
    if value is None or isinstance(value, str | bytes | int | float | torch.nn.Module | type) or id(value) in seen:
        return
    seen.add(id(value))
    items: Iterable[Any] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        items = value
    else:
        slots = [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
        items = [*slots, *getattr(value, "__dict__", {}).values()]
    for item in items:
        yield from tensors_in(item, seen)


def sums(tensor: torch.Tensor) -> tuple[float, float]:
    """The sum and the sum of absolute values, in double precision."""
    total = tensor.detach().sum(dtype=torch.float64)
    return float(total), float(tensor.detach().abs().sum(dtype=torch.float64))


def settled(tensor: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """The tensor with the values of an earlier run; the same object where the sizes agree, so that views follow."""
    if tensor.shape != held.shape:
        return held.clone()
    if 0 in tensor.stride() or not tensor.numel():  # a broadcast of something that is settled already
        return tensor
    return tensor.copy_(held)


@contextlib.contextmanager
def _hooked(model: torch.nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Hooks on every module that tell the recorder where it is."""
    handles = []
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # takes no hooks; its operators count as its caller's
        handles.append(module.register_forward_pre_hook(_enter(recorder, path), with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(_leave(recorder), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(recorder: _Recorder, path: str) -> Callable[..., None]:
    def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        recorder.enter(path, (args, kwargs))

    return hook


def _leave(recorder: _Recorder) -> Callable[..., None]:
    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        recorder.leave(output)

    return hook


class _Reads(TorchFunctionMode):
    """Notes the functions that hand a tensor's values to Python without an operator."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READS and args and isinstance(args[0], torch.Tensor):
            self.recorder.note_read(args[0], name)
        return func(*args, **(kwargs or {}))


class _Recorder(SchemaCheckMode):  # type: ignore[no-untyped-call]
    """The mode that sees every operator; of the modes above autograd the only kind that runs on concrete tensors."""

    def __init__(self, model: torch.nn.Module, following: Following | None) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self.record = Record()
        self.following = following
        self.last = ""  # where the last operator ran
        self._nodes: MutableMapping[torch.Tensor, FxNode] = WeakTensorKeyDictionary()
        self._attributes: dict[str, FxNode] = {}
        self._stack: list[Call] = []
        self._constant: set[FxNode] = set()  # steps that depend on neither input nor floating-point weights
        own = [*model.named_parameters(), *model.named_buffers()]
        self._paths = {id(tensor): path for path, tensor in reversed(own)}
        self._places = {_place(tensor): path for path, tensor in reversed(own) if tensor.numel()}

    # Where the run is

    @property
    def scope(self) -> str:
        """Path of the module whose forward pass runs."""
        return self._stack[-1].path if self._stack else ""

    def enter(self, path: str, arguments: Any) -> None:
        """A module is called."""
        call = Call(path, self.scope, inputs=self._known(arguments))
        self.record.calls.append(call)
        self._stack.append(call)

    def leave(self, output: Any) -> None:
        """The innermost module returns."""
        if self._stack:
            self._stack.pop().outputs = self._known(output)

    def _known(self, value: Any) -> tuple[str, ...]:
        return tuple(self._nodes[t].name for t in tensors_in(value) if t in self._nodes)

    # Tensors and the nodes that stand for them

    def name_input(self, tensor: torch.Tensor) -> None:
        """An input of the program."""
        self._bind(self.record.program.placeholder(f"x{len(self._nodes)}"), tensor)

    def node_of(self, tensor: torch.Tensor) -> FxNode:
        """The node that computes a tensor: a step of the program, a parameter or buffer, else a constant."""
        node = self._nodes.get(tensor)
        if node is not None:
            return node
        path = self._paths.get(id(tensor))
        if path is None and tensor.numel():  # the same memory under another Python object, such as `x.data`
            place = _place(tensor)
            path = self._places.get(place)
            node = next((n for t, n in self._nodes.items() if t.numel() and _place(t) == place), None)
        if node is None and path is None:
            node = self._attribute(f"{CONSTANT}{len(self._attributes)}", tensor.detach().clone())
            self._constant.add(node)
        elif node is None:
            node = self._attributes.get(str(path)) or self._attribute(str(path), tensor)
            if not tensor.is_floating_point():
                self._constant.add(node)
        self._nodes[tensor] = node
        return node

    def _attribute(self, path: str, tensor: torch.Tensor) -> FxNode:
        self.record.attributes[path] = tensor
        node = self._attributes[path] = self.record.program.get_attr(path)
        node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return node

    def _bind(self, node: FxNode, tensor: torch.Tensor) -> None:
        node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        self.record.owners[node.name] = self.scope
        self._nodes[tensor] = node

    # Operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with no_python_dispatcher(), torch._C.DisableTorchFunction():
            # Before the run: an operator in place makes its argument stand for the result.
            place, named = self._argument(args), self._argument(kwargs)
            if func is torch.ops.aten.scaled_dot_product_attention.default:
                named.setdefault("scale", args[0].shape[-1] ** -0.5)  # the temperature stays when heads get narrower
            node = self._whole_axis(args, place) if func is torch.ops.aten.index.Tensor else None
            if node is None:
                node = self._call(func, place, named)
            if func._schema.is_mutable and node not in self._constant and args and place[0] in self._constant:
                self._no_constant(args[0])
            result = func(*args, **kwargs)
            self._note_decision(func, args, node, result)
            return self._outputs(node, result)

    def _call(self, func: Any, args: Any, kwargs: Any) -> FxNode:
        name = func._schema.name.rpartition("::")[2]
        node = self.record.program.create_node("call_function", func, tuple(args), kwargs, name)
        self.record.owners[node.name] = self.last = self.scope
        random = torch.Tag.nondeterministic_seeded in func.tags
        if not random and all(n in self._constant for n in node.all_input_nodes):
            self._constant.add(node)
        if self.following is not None and self.following.ops.get(node.name) != str(func):
            raise UnsupportedError(
                f"the smaller model takes another path: it runs {func} as {node.name}", where=self.scope
            )
        return node

    def _no_constant(self, written: torch.Tensor) -> None:
        """Data was written into a constant: whatever shares its memory is none any more."""
        memory = written.untyped_storage().data_ptr()
        for tensor, node in self._nodes.items():
            if tensor.untyped_storage().data_ptr() == memory:
                self._constant.discard(node)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.node_of(value)
        if isinstance(value, list | tuple):
            return [self._argument(v) for v in value]
        if isinstance(value, dict):
            return {key: self._argument(v) for key, v in value.items()}
        return None if isinstance(value, torch.Generator) else value

    def _outputs(self, node: FxNode, result: Any) -> Any:
        """What the model gets; every tensor of it stands for a node."""
        if isinstance(result, torch.Tensor):
            return self._output(node, result)
        if isinstance(result, list | tuple):
            node.meta["val"] = [
                torch.empty(v.shape, dtype=v.dtype, device="meta") for v in result if isinstance(v, torch.Tensor)
            ]
            items = []
            for i, value in enumerate(result):
                if isinstance(value, torch.Tensor):
                    item = self.record.program.call_function(operator.getitem, (node, i))
                    if node in self._constant:
                        self._constant.add(item)
                    value = self._output(item, value)
                items.append(value)
            return items if isinstance(result, list) else tuple(items)
        self.record.held[node.name] = result
        return result if self.following is None else self.following.held.get(node.name, result)

    def _output(self, node: FxNode, tensor: torch.Tensor) -> torch.Tensor:
        if self.following is not None:
            if node.name in self.following.held:
                tensor = settled(tensor, self.following.held[node.name])
            if tensor.is_floating_point():
                self.record.sums[node.name] = sums(tensor)
        elif node not in self._constant and not tensor.is_floating_point() and not tensor.is_complex():
            self.record.held[node.name] = tensor.detach().clone()
        self._bind(node, tensor)
        return tensor

    def _note_decision(self, func: Any, args: Any, node: FxNode, result: Any) -> None:
        given = list(tensors_in(args))
        read = result is not None and bool(given) and not any(True for _ in tensors_in(result))
        if func is torch.ops.aten.index.Tensor:
            sized = any(t.dtype in (torch.bool, torch.uint8) for t in given[1:])
        else:
            sized = torch.Tag.dynamic_output_shape in func.tags or func.namespace != "aten"
        if (read or sized) and node not in self._constant:
            self.record.decisions.append(node.name)

    def note_read(self, tensor: torch.Tensor, how: str) -> None:
        """Python reads the tensor's values."""
        with torch._C.DisableTorchFunction():
            source = self.node_of(tensor)
        node = self.record.program.call_function(read_by_python, (source, how))
        self.record.owners[node.name] = self.scope
        if source not in self._constant:
            self.record.decisions.append(node.name)

    # Indexing with several tensors at once

    def _whole_axis(self, args: Any, place: Any) -> FxNode | None:
        """`x[a, arange(C), b]` as `x[a, :, b]` with the axis moved to its place: its channels pass unchanged.

        None where no index counts through a whole axis alone.
        """
        x, indices = args[0], [*args[1], *[None] * (args[0].dim() - len(args[1]))]
        present = [i for i in indices if i is not None]
        if len(present) < 2 or any(i.dtype in (torch.bool, torch.uint8) for i in present):
            return None
        rank = max(i.dim() for i in present)
        for axis, index in enumerate(indices):
            if index is None or place[1][axis] not in self._constant or index.numel() != x.shape[axis]:
                continue
            own = [d - index.dim() for d, n in enumerate(index.shape) if n > 1]  # counted from the end
            others = [t for i, t in enumerate(indices) if t is not None and i != axis]
            alone = len(own) == 1 and all(t.dim() < -own[0] or t.shape[own[0]] == 1 for t in others)
            if alone and torch.equal(index.flatten(), torch.arange(x.shape[axis], device=index.device)):
                return self._index_beside(x, indices, place, axis, rank + own[0])
        return None

    def _index_beside(self, x: Any, indices: list[Any], place: Any, axis: int, at: int) -> FxNode:
        """The program of an index that leaves `axis` whole; `at` is its place among the axes of the index."""
        rank = max(i.dim() for i in indices if i is not None)
        rest: list[FxNode | None] = [None] * len(place[1])
        shapes = []
        for i, tensor in enumerate(indices):
            if tensor is None or i == axis:
                continue
            node, shape = place[1][i], list(tensor.shape)
            if tensor.dim() >= rank - at:  # the axis is there, with size one
                node = self._call(torch.ops.aten.squeeze.dim, (node, at - rank), {})
                del shape[at - rank]
                node.meta["val"] = torch.empty(shape, dtype=tensor.dtype, device="meta")
            rest[i] = node
            shapes.append(shape)
        sizes = torch.broadcast_shapes(*shapes, (1,) * (rank - 1))  # type: ignore[no-untyped-call]
        before = _layout([i is not None and k != axis for k, i in enumerate(indices)], rank - 1)
        after = _layout([i is not None for i in indices], rank)
        node = self._call(torch.ops.aten.index.Tensor, (place[0], rest), {})
        node.meta["val"] = torch.empty(
            [sizes[d.at] if isinstance(d, _Indexed) else x.shape[d] for d in before], device="meta"
        )
        wanted = [axis if d == _Indexed(at) else _without(d, at) for d in after]
        return self._call(torch.ops.aten.permute.default, (node, [before.index(d) for d in wanted]), {})


@dataclass(frozen=True)
class _Indexed:
    """An axis of the tensors of positions, in the result of an index."""

    at: int


def _layout(indexed: list[bool], rank: int) -> list[int | _Indexed]:
    """The axes of x[indices]: those of the index stand in the place of adjacent indexed axes, else in front."""
    places = [i for i, flag in enumerate(indexed) if flag]
    rest: list[int | _Indexed] = [i for i, flag in enumerate(indexed) if not flag]
    first = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    return [*rest[:first], *map(_Indexed, range(rank)), *rest[first:]]


def _without(axis: int | _Indexed, gone: int) -> int | _Indexed:
    """The name of an axis once axis `gone` of the index is taken out."""
    return _Indexed(axis.at - 1) if isinstance(axis, _Indexed) and axis.at > gone else axis


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
