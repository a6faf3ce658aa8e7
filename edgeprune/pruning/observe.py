"""The other door from a model to a `Graph`: run it once and take what ran, for models that cannot be captured.

A detector decides in Python: which boxes survive, how many regions are cut out. Its channels do not depend on that, so
one run on concrete tensors shows them all. What meets such a decision is an operator without a rule and freezes what
reaches it; what lies before (backbone, pyramid, heads up to their outputs) can shrink. The plan covers the path that
the example took, and `notes` say so.

Modules that the example did not reach are never pruned. Where the path depends on data, another input may reach them:
then whatever they could be given there is frozen (see `_out_of_reach`), and so is what the example computed without
using it. An example on which the model finds something shows more.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx.node import Node as FxNode

from edgeprune.errors import UnsupportedError
from edgeprune.graph import Arg, Graph, Node, Ref
from edgeprune.pruning.recording import CONSTANT, Record, record
from edgeprune.pruning.trace import Captured, CapturedModule, graph_of, positional, trace


@dataclass(frozen=True)
class Observed(Captured):
    """A model as it ran on one example.

    Attributes:
        module: The operators that ran, as a program; its sizes are those of the example, its inputs the tensors of
            the example one by one.
        graph: Its torch-free picture, with the shapes that ran.
        notes: What the user must know: decisions on data, parameters that the example did not reach.
        untouched: Paths of the parameters that the run did not read.
        owners: Path of the module that ran each node.
        held: What decides the path, by node: whole numbers, truth values and Python numbers.
    """

    notes: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, Any] = field(default_factory=dict)


def capture(model: torch.nn.Module, example: Any) -> Captured:
    """The model captured where that is possible, else observed; then `notes` begin with why it was not captured.

    Raises:
        UnsupportedError: It can be neither captured nor observed.
    """
    try:
        return trace(model, example)
    except UnsupportedError as err:
        seen = observe(model, example)
        return replace(seen, notes=(f"observed instead of captured: {err.message}", *seen.notes))


def observe(model: torch.nn.Module, example: Any) -> Observed:
    """The model as it runs on the example, in eval mode and without gradients. The model is left unchanged.

    Hooks run and what they do is part of the program. The model runs twice and both runs must take the same path;
    where the first call sets something up, the second and the third count.

    Args:
        model: Any module that runs.
        example: Its input, its inputs in order (a tuple) or by name (a dict): tensors, or lists, dicts and objects
            that hold tensors. Inputs that are all plain tensors are cut to their first sample; a list of images
            should hold one.

    Raises:
        UnsupportedError: The model does not run on the example, or runs other operators the second time; the message
            names the first one that differs.
    """
    arguments = call_arguments(model, example)
    with unchanged(model):
        model.eval()
        run, again = record(model, arguments), record(model, arguments)
        difference = _difference(run, again)
        if difference:  # the first call may set things up, such as a cache of sizes
            run, again = again, record(model, arguments)
            difference = _difference(run, again)
    if difference:
        raise UnsupportedError(
            f"the forward pass changes between calls: {difference}",
            where=type(model).__name__,
            hint="random branches, counters and caches must be off in eval mode",
        )
    module = _program(run)
    graph = Graph(tuple(_without_constants(node) for node in graph_of(module).nodes))
    untouched = tuple(path for path, _ in model.named_parameters() if path not in run.attributes)
    if run.decisions:
        graph = Graph((*graph.nodes, *_out_of_reach(run, graph, untouched), *_dead_ends(run)))
    return Observed(module, graph, _notes(run, untouched), untouched, run.owners, run.held)


def call_arguments(model: torch.nn.Module, example: Any) -> tuple[Any, ...]:
    """What the model is called with; where all inputs are plain tensors, the first sample."""
    given = positional(model, example)
    batch = {x.shape[0] if isinstance(x, torch.Tensor) and x.dim() else 0 for x in given}
    return given if len(batch) != 1 or 0 in batch else tuple(x[:1] for x in given)


@contextlib.contextmanager
def unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Puts back every attribute, mode and buffer of the model at the end, and what its lists and dicts hold."""
    modules = list(model.modules())
    attributes = [(module.__dict__, dict(module.__dict__)) for module in modules]
    held = [value for _, before in attributes for value in before.values() if type(value) in (list, dict, set)]
    contents = [(value, value.copy()) for value in held]
    buffers = [(tensor, tensor.detach().clone()) for tensor in model.buffers()]
    try:
        yield
    finally:
        for own, before in [*attributes, *contents]:
            own.clear()
            own.extend(before) if isinstance(own, list) else own.update(before)
        with torch.no_grad():
            for tensor, value in buffers:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


def _program(run: Record) -> CapturedModule:
    """The run as a program with parameters of its own."""
    own: dict[str, Any] = {}
    for path, tensor in run.attributes.items():
        copy = tensor.detach().clone()
        own[path] = torch.nn.Parameter(copy) if isinstance(tensor, torch.nn.Parameter) else copy
    return CapturedModule(own, run.program).eval()


def _difference(run: Record, again: Record) -> str:
    """The first step that two runs do not share; empty where they are the same."""
    graphs = [graph_of(GraphModule(r.attributes, r.program)) for r in (run, again)]
    for a, b in zip(graphs[0].nodes, graphs[1].nodes):
        if a != b:
            place = f" in {run.owners[a.name]}" if run.owners.get(a.name) else ""
            how = "other sizes or numbers" if a.op == b.op else f"{b.name} ({b.op})"
            return f"{a.name} ({a.op}){place} one time, {how} the next"
    return ""


def _without_constants(node: Node) -> Node:
    """Tensors that the model's Python makes are no parameters: nothing outside that Python can shorten them."""
    return replace(node, op="constant", target="") if node.target.startswith(CONSTANT) else node


def _notes(run: Record, untouched: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if run.decisions:
        notes.append("data-dependent Python: the plan covers the path that the example took")
    if untouched:
        shown = ", ".join(untouched[:5]) + (f" and {len(untouched) - 5} more" if len(untouched) > 5 else "")
        notes.append(f"not reached by the example, not pruned: {shown}")
    return tuple(notes)


def _out_of_reach(run: Record, graph: Graph, untouched: tuple[str, ...]) -> Iterator[Node]:
    """Steps that freeze what a module that was not called might be given on another path.

    Its caller would be the nearest module around it whose forward pass did run, and it could be given any value that
    this forward pass holds: its inputs, the inputs and outputs of the modules it called, and its own steps' results.
    """
    ran = {call.path for call in run.calls}
    known = {node.name for node in graph.nodes}
    for path in dict.fromkeys(path.rpartition(".")[0] for path in untouched):
        caller = path
        while caller not in ran:
            caller = caller.rpartition(".")[0]
        names = [name for name, owner in run.owners.items() if owner == caller]
        for call in run.calls:
            if call.path == caller:
                names += call.inputs
            if call.caller == caller:
                names += [*call.inputs, *call.outputs]
        refs: tuple[Arg, ...] = tuple(Ref(name) for name in dict.fromkeys(names) if name in known)
        reason = f"another path may need it: {path} was not reached"
        yield Node(f"out_of_reach_{path.replace('.', '_')}", "kept_whole", (refs, reason))


def _dead_ends(run: Record) -> Iterator[Node]:
    """A step that freezes what was computed and not used, such as the masks of boxes that were not found."""

    def is_used(node: FxNode) -> bool:
        if node.target is operator.getitem:
            return True  # its source is looked at
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            return True  # it wrote into something
        return any(user.target is not operator.getitem or user.users for user in node.users)

    ends = [node.name for node in run.program.nodes if node.op == "call_function" and not is_used(node)]
    reason = "another path may use it: computed, and not used on the path of the example"
    yield Node("dead_ends", "kept_whole", (tuple(Ref(name) for name in ends), reason))
