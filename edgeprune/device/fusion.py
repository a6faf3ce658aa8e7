"""From the captured graph to the fused operators a runtime executes.

One pass in execution order. Views, dropout and identities vanish; BatchNorm folds into the convolution or linear
layer whose only reader it is; a clipped-linear activation (relu, relu6) folds into its producer, because every
runtime here stores that as an output range. Smooth activations stay operators of their own, as in TFLite. What has no
entry in `operators.py` becomes an op of kind `other`: it costs the bytes it moves and never stops an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from edgeprune.device.operators import (
    FOLDS_BATCH_NORM,
    FUSES_CLIP,
    KINDS,
    Sizes,
    channel_axis,
    clip,
    function,
    is_free,
    measure,
)
from edgeprune.device.ops import Op
from edgeprune.graph import Graph, Node


@dataclass
class _State:
    """What the pass knows after the nodes so far.

    Attributes:
        tensors: Graph node -> name of the op output or graph input that holds its value; constants are absent.
        axes: Graph node -> its channel axis.
        ops: Ops so far, in the order in which they start.
        index: Name of an op's output -> its place in `ops`.
    """

    graph: Graph
    order: dict[str, int]
    tensors: dict[str, str] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)


def fuse(graph: Graph) -> tuple[Op, ...]:
    """The fused operators of a captured model at batch one, in execution order.

    Every name in `Op.inputs` is the output of an earlier op or a graph input.
    """
    state = _State(graph, {node.name: index for index, node in enumerate(graph.nodes)})
    needed = _needed(graph)
    for node in graph.nodes:
        if node.op == "input":
            state.tensors[node.name] = node.name
            state.axes[node.name] = channel_axis(node, "input", None)
        elif node.op not in ("parameter", "output") and node.shapes and node.name in needed:
            _step(state, node)
    return tuple(state.ops)


def absorb_padding(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The ops as a runtime runs them that pads inside its convolutions (XNNPACK does, TFLM does not).

    A spatial pad whose only reader is a convolution vanishes; the convolution reads what the pad read.
    """
    readers: dict[str, list[Op]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    absorbed = {op.output: op for op in ops if _is_spatial_pad(op) and _is_one_convolution(readers.get(op.output, []))}
    kept = []
    for op in ops:
        if op.output in absorbed:
            continue
        if op.inputs and (pad := absorbed.get(op.inputs[0])):
            op = replace(
                op,
                inputs=(*pad.inputs, *op.inputs[1:]),
                in_positions=pad.in_positions,
                nodes=(*pad.nodes, *op.nodes),
            )
        kept.append(op)
    return tuple(kept)


def _is_spatial_pad(op: Op) -> bool:
    return op.kind == "pad" and op.in_channels == op.out_channels and op.out_positions > op.in_positions


def _is_one_convolution(readers: list[Op]) -> bool:
    return len(readers) == 1 and readers[0].kind in ("conv", "depthwise") and not readers[0].transposed


def _needed(graph: Graph) -> set[str]:
    """Nodes the outputs depend on; exporters drop the others. What writes in place counts as needed."""
    needed: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node.name in needed or _in_place(node):
            needed.add(node.name)
            needed.update(node.refs)
    return needed


def _step(state: _State, node: Node) -> None:
    name = node.base
    read = [ref for ref in node.refs if ref in state.tensors]
    if not read:  # computed from parameters and sizes alone: folded into a constant before deployment
        return
    source = state.graph.by_name[read[0]]
    state.axes[node.name] = channel_axis(node, name, (source, state.axes[source.name]))
    kind = KINDS.get(name, "other")
    if is_free(node, name, source):
        state.tensors[node.name] = state.tensors[source.name]
    elif name == "batch_norm" and _foldable(state, node, source, FOLDS_BATCH_NORM):
        _fold(state, node, source, "")
    elif (bounds := clip(node, name)) and _foldable(state, node, source, FUSES_CLIP):
        _fold(state, node, source, bounds)
    else:
        inputs = tuple(dict.fromkeys(state.tensors[ref] for ref in read))
        for op in _ops(state, node, measure(state.graph, node, name, kind, source, state.axes), inputs):
            state.index[op.output] = len(state.ops)
            state.ops.append(op)
        state.tensors[node.name] = node.name
    if _in_place(node):  # later readers of the argument see the new value
        state.tensors[source.name] = state.tensors[node.name]


def _in_place(node: Node) -> bool:
    parts = node.op.split(".")
    return len(parts) > 1 and parts[1].endswith("_") and not parts[1].endswith("__")


def _foldable(state: _State, node: Node, source: Node, kinds: frozenset[str]) -> bool:
    """Whether `node` can be folded into the op that computes `source`: nobody else reads the value in between."""
    if state.tensors[source.name] != source.name or source.name not in state.index:
        return False
    op = state.ops[state.index[source.name]]
    if op.kind not in kinds or op.activation:
        return False
    here = state.order[node.name]
    others = [user for user in state.graph.users[source.name] if user.name != node.name]
    if _in_place(node):
        others = [user for user in others if state.order[user.name] < here]
    return not others


def _fold(state: _State, node: Node, source: Node, activation: str) -> None:
    at = state.index.pop(source.name)
    op = state.ops[at]
    # in_axis of an element-wise op names its own output, so it moves along
    in_axis = (node.name, op.in_axis[1]) if op.in_axis and op.in_axis[0] == op.output else op.in_axis
    out_axis = (node.name, op.out_axis[1]) if op.out_axis else None
    state.index[node.name] = at
    state.ops[at] = replace(
        op,
        name=node.name,
        output=node.name,
        activation=activation,
        nodes=(*op.nodes, node.name),
        in_axis=in_axis,
        out_axis=out_axis,
    )
    state.tensors[node.name] = node.name


def _ops(state: _State, node: Node, sizes: Sizes, inputs: tuple[str, ...]) -> tuple[Op, ...]:
    """The op of a node; a stacked recurrent layer gives one op per layer."""
    op = Op(
        name=node.name,
        kind=sizes.kind,
        inputs=inputs,
        output=node.name,
        in_channels=sizes.in_channels,
        out_channels=sizes.out_channels,
        in_positions=sizes.in_positions,
        out_positions=sizes.out_positions,
        kernel=sizes.kernel,
        groups=sizes.groups,
        stride=sizes.stride,
        nodes=(node.name,),
        in_axis=sizes.in_axis,
        out_axis=sizes.out_axis,
        transposed=sizes.transposed,
        function=function(node, sizes.kind),
        columns=sizes.columns,
        kernel_rows=sizes.kernel_rows,
    )
    if sizes.layers <= 1:
        return (op,)
    names = [f"{node.name}.layer{layer}" for layer in range(sizes.layers - 1)] + [node.name]
    stack = [replace(op, name=names[0], output=names[0])]
    for below, name in pairwise(names):
        stack.append(replace(op, name=name, output=name, inputs=(below,), in_channels=op.out_channels, in_axis=None))
    return tuple(stack)
