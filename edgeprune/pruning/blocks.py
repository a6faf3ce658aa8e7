"""Removing whole groups: what is left of a graph in which some tensors have no channels any more.

A layer whose channels are all gone is *dead*. What its readers compute is a *constant*: their bias, carried through
norms and activations. The model goes on without the block if every constant meets the rest in an element-wise
operator, as on a skip path; there it becomes a parameter. Where a constant does not vary over an axis, the parameter
has size one there, which needs no values to know: a bias is the same everywhere until a convolution pads it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Literal

from edgeprune.graph import Arg, Graph, Node, Ref, Shape
from edgeprune.pruning.rules.pointwise import ELEMENTWISE, UNARY
from edgeprune.pruning.rules.shapes import matching_axes

Varies = tuple[bool, ...]  # per axis of a constant, whether its values differ along it

_MEETING = frozenset("add sub rsub mul maximum minimum".split())
_POINTWISE = frozenset((*ELEMENTWISE, *UNARY))
_CONCAT = frozenset("cat concat concatenate".split())
_CONVOLUTIONS = frozenset("conv1d conv2d conv3d".split())
_TRANSPOSED = frozenset("conv_transpose1d conv_transpose2d conv_transpose3d".split())
# What gives a value from a tensor without elements: a sum of nothing is zero.
_ABSORBING = (
    _CONCAT
    | _CONVOLUTIONS
    | _TRANSPOSED
    | frozenset("linear bilinear matmul mm bmm mv addmm baddbmm einsum sum pad constant_pad_nd".split())
)
_RANDOM = frozenset("rand_like randn_like bernoulli empty_like".split())
_READ = frozenset("read_by_python kept_whole".split())
_RESHAPES = frozenset("view reshape _unsafe_view flatten unflatten squeeze unsqueeze".split())
# Spatial operators that give the same everywhere when they are given the same everywhere.
_EVEN = frozenset(
    "max_pool1d max_pool2d max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d".split()
    + "adaptive_max_pool2d upsample_nearest1d upsample_nearest2d upsample_nearest3d roll flip slice narrow".split()
)
_VIEWS = _RESHAPES | frozenset(
    "permute transpose t mT swapaxes movedim slice narrow select split split_with_sizes chunk unbind getitem".split()
    + "expand expand_as detach alias contiguous to _to_copy type_as dropout view_as reshape_as".split()
)


@dataclass(frozen=True)
class Fate:
    """What becomes of a node: it stays, it has no channels, it is a constant, or it cannot be either."""

    kind: Literal["live", "dead", "constant", "blocked"]
    varies: Varies = ()  # of a constant with one output
    reason: str = ""


_LIVE, _DEAD = Fate("live"), Fate("dead")


@dataclass(frozen=True)
class Remains:
    """What is left of a graph.

    Attributes:
        fates: Of the nodes that are dead or constant.
        reason: Why the graph does not work without them; empty where it does.
    """

    fates: Mapping[str, Fate]
    reason: str = ""


@dataclass(frozen=True)
class Anatomy:
    """A graph with what the search for constants needs to know of it."""

    graph: Graph

    def remains(self, empty: Collection[str]) -> Remains:
        """What is left when the named nodes have no channels any more. Linear in nodes."""
        fates: dict[str, Fate] = {}
        for node in self.graph.nodes:
            fate = self._fate(node, fates, empty)
            if fate.kind == "blocked":
                return Remains(fates, fate.reason)
            if fate.kind != "live":
                fates[node.name] = fate
        return Remains(fates)

    def removable(self, empties: Sequence[Collection[str]]) -> tuple[bool, ...]:
        """Whether the graph works without each of several sets of channels, given the nodes that each leaves empty.

        Follows what is left of each set alone, and only until it meets the rest. Wherever all of it has come down to
        one tensor, the answer depends on that tensor alone and is remembered, so that a chain of layers is followed
        once: linear in nodes and branches together.
        """
        known: dict[tuple[str, Varies], bool] = {}
        return tuple(self._survives(empty, known) for empty in empties)

    def _survives(self, empty: Collection[str], known: dict[tuple[str, Varies], bool]) -> bool:
        fates: dict[str, Fate] = {}
        queue = [self._order[name] for name in empty]
        heapify(queue)
        seen = set(queue)
        passed = []
        result = True
        while queue:
            node = self.graph.nodes[heappop(queue)]
            fate = self._fate(node, fates, empty)
            if fate.kind == "live":
                continue
            if fate.kind == "blocked":
                result = False
                break
            fates[node.name] = fate
            if not queue and fate.kind == "constant":  # all that is left is this one value
                key = (node.name, fate.varies)
                if key in known:
                    result = known[key]
                    break
                passed.append(key)
            for user in self.graph.users[node.name]:
                if (place := self._order[user.name]) not in seen:
                    seen.add(place)
                    heappush(queue, place)
        known.update(dict.fromkeys(passed, result))
        return result

    @cached_property
    def _order(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self.graph.nodes)}

    @cached_property
    def root(self) -> Mapping[str, str]:
        """The node whose memory each node's value may share."""
        root: dict[str, str] = {}
        for node in self.graph.nodes:
            shares = (in_place(node) or node.base in _VIEWS) and node.refs
            root[node.name] = root[node.refs[0]] if shares else node.name
        return root

    @cached_property
    def _static(self) -> frozenset[str]:
        """Nodes that do not depend on the values of the input: parameters, sizes and what is made of them alone."""
        written = {self.root[node.name] for node in self.graph.nodes if in_place(node)}
        static: set[str] = set()
        for node in self.graph.nodes:
            number = not node.shapes and node.op != "output"
            if number or (node.op not in ("input", "output") and all(r in static for r in node.refs)):
                if self.root[node.name] not in written:
                    static.add(node.name)
        return frozenset(static)

    def _fate(self, node: Node, fates: Mapping[str, Fate], empty: Collection[str]) -> Fate:
        if node.name in empty:
            return _DEAD
        gone = [fates[ref].kind for ref in node.refs if ref in fates]
        if not gone:
            return _LIVE
        if node.op == "output":
            return Fate("blocked", reason="an output of the model would be a constant")
        if node.base in _READ:
            return Fate("blocked", reason=f"{node.name} is used by Python")
        if any(ref not in fates and ref not in self._static for ref in node.refs):
            return self._meeting(node, fates)
        if node.base in _RANDOM:
            return Fate("blocked", reason=f"{node.name} ({node.op}) is random")
        if node.name not in self._static and "dead" in gone and node.base not in _ABSORBING:
            return Fate("blocked", reason=f"{node.name} ({node.op}) needs at least one channel")
        return Fate("constant", self._varies(node, fates))

    def _meeting(self, node: Node, fates: Mapping[str, Fate]) -> Fate:
        """A node that reads something live beside something dead or constant."""
        gone = [ref for ref in node.refs if ref in fates]
        blocked = Fate("blocked", reason=f"a constant would meet {node.name} ({node.op})")
        if node.base in _CONCAT and all(fates[ref].kind == "dead" for ref in gone):
            return _LIVE
        if node.base not in _MEETING or not all(fates[ref].kind == "constant" and self._is_tensor(ref) for ref in gone):
            return blocked
        if in_place(node) and node.refs[0] in fates and not self._sole_reader(node):
            return blocked
        for ref in gone:
            sizes = self._kept_sizes(ref, node, fates)
            if len(sizes) > len(node.shape) or (len(sizes) and sizes[0] > 1):  # batch and something else on one axis
                return blocked
        return _LIVE

    def _sole_reader(self, node: Node) -> bool:
        """Whether nobody else sees what a node writes into."""
        name = node.refs[0]
        while len(self.graph.users[name]) == 1:
            source = self.graph.by_name[name]
            if not source.refs or self.root[name] == name:
                return True
            name = source.refs[0]
        return False

    def _kept_sizes(self, name: str, user: Node, fates: Mapping[str, Fate]) -> Shape:
        """The sizes with which a constant must enter an element-wise operator: one where it is even, if the operator's
        result takes its size there from something else."""
        shape, varies = self.graph.by_name[name].shape, fates[name].varies
        others = [self.graph.by_name[ref].shape for ref in user.refs if ref not in fates and self._is_tensor(ref)]
        sizes = []
        for back, (size, own) in enumerate(zip(shape[::-1], varies[::-1], strict=True), 1):
            given = any(len(other) >= back and other[-back] == size for other in others)
            sizes.append(size if own or not given else 1)
        return tuple(sizes[::-1])

    def _is_tensor(self, name: str) -> bool:
        return len(self.graph.by_name[name].shapes) == 1

    def frontier(self, fates: Mapping[str, Fate]) -> dict[str, Varies]:
        """Constants that what stays reads, in order, with the axes on which they need their full size."""
        found: dict[str, Varies] = {}
        for node in self.graph.nodes:
            for ref in node.refs if node.name not in fates else ():
                if ref in fates and fates[ref].kind == "constant":
                    full = tuple(size > 1 for size in self._kept_sizes(ref, node, fates))
                    found[ref] = tuple(a or b for a, b in zip(found.get(ref, full), full, strict=True))
        return found

    def _of(self, ref: object, fates: Mapping[str, Fate]) -> Varies:
        """Along which axes an operand differs; a dead one counts as zeros."""
        if not isinstance(ref, Ref) or not self._is_tensor(ref.name):
            return ()
        shape, fate = self.graph.by_name[ref.name].shape, fates.get(ref.name)
        if fate is None or (fate.kind == "constant" and len(fate.varies) != len(shape)):
            return tuple(size > 1 for size in shape)
        return fate.varies if fate.kind == "constant" else (False,) * len(shape)

    def _varies(self, node: Node, fates: Mapping[str, Fate]) -> Varies:
        """Along which axes a constant differs; every axis where nothing better is known."""
        if len(node.shapes) != 1:
            return ()
        full = tuple(size > 1 for size in node.shape)
        base, x = node.base, self._of(node.args[0] if node.args else None, fates)
        result = full
        if base in _POINTWISE or base in _MEETING:
            operands = [self._of(arg, fates) for arg in (*node.args, *node.kwargs.values())]
            result = tuple(any(len(o) >= i and o[-i] for o in operands) for i in range(len(full), 0, -1))
        elif base in ("batch_norm", "prelu"):
            result = (x[0], True, *x[2:])
        elif base in _EVEN and len(x) == len(full):
            result = x
        elif base in _CONVOLUTIONS | _TRANSPOSED:
            spatial = len(self.graph.by_name[node.refs[1]].shape) - 2
            even = fates.get(node.refs[0], _LIVE).kind == "dead" or (base in _CONVOLUTIONS and _unpadded(node))
            over = x[len(x) - spatial :] if even else (True,) * spatial
            result = (*x[: len(x) - spatial - 1], True, *over)
        elif base == "linear" and len(full) == len(x):
            result = (*x[:-1], True)
        elif base == "layer_norm" and isinstance(node.args[1], tuple):
            result = (*x[: len(x) - len(node.args[1])], *(True,) * len(node.args[1]))
        elif base == "permute" and isinstance(node.args[1], tuple):
            result = tuple(x[int(d)] for d in node.args[1])  # type: ignore[arg-type]
        elif base == "transpose":
            order = list(range(len(x)))
            i, j = int(node.args[1]), int(node.args[2])  # type: ignore[arg-type]
            order[i], order[j] = order[j], order[i]
            result = tuple(x[d] for d in order)
        elif base in _RESHAPES and x:
            result = _reshaped(x, self.graph.by_name[node.refs[0]].shape, node.shape)
        return tuple(own and size for own, size in zip(result, full, strict=True))


def _unpadded(node: Node) -> bool:
    padding = node.args[4] if len(node.args) > 4 else 0
    return padding == "valid" or padding == 0 or (isinstance(padding, tuple) and not any(padding))


def _reshaped(x: Varies, old: Shape, new: Shape) -> Varies:
    varies = [False] * len(new)
    for old_axes, new_axes in matching_axes(old, new):
        for i in new_axes:
            varies[i] = any(x[j] for j in old_axes)
    return tuple(varies)


def in_place(node: Node) -> bool:
    """Whether an operator writes into its first argument."""
    parts = node.op.split(".")
    return len(parts) > 1 and parts[1].endswith("_") and not parts[1].endswith("__")


def without(graph: Graph, anatomy: Anatomy, fates: Mapping[str, Fate]) -> tuple[Graph, dict[str, str]]:
    """A graph of which only the live part is left, and the new parameters with the constants that they hold.

    Args:
        graph: With the shapes after the plan, node for node that of `anatomy`.

    Returns:
        The graph, its new parameters first, and the replaced node by the new parameter's path.
    """
    made: dict[str, Node] = {}
    for name, full in anatomy.frontier(fates).items():
        path = f"{name}_constant"
        while path in graph.by_name or path in graph.parameters:
            path += "_"
        shape = tuple(size if own else 1 for size, own in zip(graph.by_name[name].shape, full, strict=True))
        made[name] = Node(path, "parameter", shapes=(shape,), target=path)
    rewired = [_rewired(node, fates, made) for node in graph.nodes if node.name not in fates]
    kept = _needed(graph, anatomy, {node.name for node in rewired})
    left = [node for node in rewired if node.name in kept]
    read = {ref for node in left for ref in node.refs}
    made = {name: node for name, node in made.items() if node.name in read}
    return Graph((*made.values(), *left)), {node.target: name for name, node in made.items()}


def _rewired(node: Node, fates: Mapping[str, Fate], made: Mapping[str, Node]) -> Node:
    if not any(ref in fates for ref in node.refs):
        return node
    if in_place(node) and node.refs[0] in made:  # nothing is written into a parameter
        namespace, packet, overload = node.op.split(".", 2)
        node = replace(node, op=f"{namespace}.{packet.rstrip('_')}.{overload}")
    kwargs = {key: _replaced(arg, fates, made) for key, arg in node.kwargs.items()}
    return replace(node, args=tuple(_replaced(arg, fates, made) for arg in node.args), kwargs=kwargs)


def _replaced(arg: Arg, fates: Mapping[str, Fate], made: Mapping[str, Node]) -> Arg:
    """An argument with constants replaced by their parameters; dead pieces of a list leave it."""
    if isinstance(arg, Ref):
        return Ref(made[arg.name].name) if arg.name in made else arg
    if isinstance(arg, tuple):
        left = [a for a in arg if not (isinstance(a, Ref) and a.name in fates and a.name not in made)]
        return tuple(_replaced(a, fates, made) for a in left)
    return arg


def _needed(graph: Graph, anatomy: Anatomy, live: set[str]) -> set[str]:
    """Of the live nodes, those that something still reads; inputs and what nothing ever read stay.

    What writes in place is needed while anything that stays reads the memory that it writes into.
    """
    kept: set[str] = set()
    memory: set[str] = set()
    for node in reversed(graph.nodes):
        if node.name not in live:
            continue
        users = graph.users[node.name]
        read = any(user.name in kept for user in users)
        if in_place(node):
            root = graph.by_name[anatomy.root[node.name]]
            read = read or root.name in memory or root.op in ("input", "parameter")
        elif not users:
            read = True
        if read or node.op == "input":
            kept.add(node.name)
            memory.update(anatomy.root[ref] for ref in node.refs)
    return kept
