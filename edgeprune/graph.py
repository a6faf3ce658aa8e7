"""The torch-free picture of a captured model: nodes, their arguments and shapes.

A `Graph` mirrors the captured program node by node, in execution order, so that a rewritten graph can be put back
onto the program by name. Shapes are those at batch size one; axis 0 of an activation is the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """An argument that is another node's output."""

    name: str


Arg = Ref | None | bool | int | float | str | tuple["Arg", ...]


@dataclass(frozen=True)
class Node:
    """One step of the program.

    Attributes:
        name: Unique in the graph.
        op: `input`, `parameter` (parameters, buffers and constants), `output`, or the operator's full name, such as
            `aten.conv2d.default` or `builtin.getitem`.
        args, kwargs: Arguments as given to the operator; other nodes are `Ref`.
        shapes: Shapes of the outputs at batch one; empty for a node that yields a number.
        target: Dotted path of a parameter or buffer in the model; empty otherwise.
        value: Contents of a constant list of whole numbers, such as the positions of an index; empty otherwise.
    """

    name: str
    op: str
    args: tuple[Arg, ...] = ()
    kwargs: Mapping[str, Arg] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = ()
    target: str = ""
    value: tuple[int, ...] = ()

    @property
    def shape(self) -> Shape:
        """The shape of the only output."""
        if len(self.shapes) != 1:
            raise ValueError(f"{self.name} ({self.op}) has {len(self.shapes)} outputs")
        return self.shapes[0]

    @property
    def base(self) -> str:
        """The operator's bare name: `relu` for `aten.relu_.default`, `getitem` for `builtin.getitem`."""
        return base_name(self.op)

    @property
    def refs(self) -> tuple[str, ...]:
        """Names of the nodes this one reads, in argument order, repeats kept."""
        return tuple(_refs((*self.args, *self.kwargs.values())))


def base_name(op: str) -> str:
    """An operator's name without namespace, overload and in-place mark."""
    parts = op.split(".")
    return (parts[1] if len(parts) > 1 else parts[0]).rstrip("_")


def _refs(args: tuple[Arg, ...]) -> Iterator[str]:
    for arg in args:
        if isinstance(arg, Ref):
            yield arg.name
        elif isinstance(arg, tuple):
            yield from _refs(arg)


@dataclass(frozen=True)
class Graph:
    """A captured program: nodes in execution order."""

    nodes: tuple[Node, ...]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def users(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each node, in execution order, each once."""
        users: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.refs):
                users[name].append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.op == "input")

    @cached_property
    def parameters(self) -> dict[str, Node]:
        """Parameter, buffer and constant nodes by their dotted path."""
        return {node.target: node for node in self.nodes if node.op == "parameter"}

    @cached_property
    def origins(self) -> dict[str, str]:
        """Path of the parameter that each node's first argument goes back to; empty where that is an input."""
        origins: dict[str, str] = {}
        for node in self.nodes:
            refs = node.refs
            inherited = origins[refs[0]] if refs and node.op != "input" else ""
            origins[node.name] = node.target if node.op == "parameter" else inherited
        return origins

    @property
    def parameter_count(self) -> int:
        """Elements of all parameters and buffers that some node reads."""
        return sum(prod(n.shape) for n in self.parameters.values() if self.users[n.name])
