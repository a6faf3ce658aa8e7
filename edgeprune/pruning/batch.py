"""Give a program that was captured with two samples a free batch size.

Capturing with a symbolic batch takes two to four times as long as capturing with numbers. So numbers are captured, and
the rules that follow channels follow the two samples instead: they tell which axes hold samples, and the sizes written
in the program are rewritten for any number of them. What the rules cannot follow is left to the symbolic capture, and
whether the result is right is not assumed but run (see `trace`).
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule
from torch.fx.node import Node as FxNode

from edgeprune.graph import Graph, base_name
from edgeprune.pruning.labels import Labels, label

SAMPLES = 2
Multiples = Mapping[str, tuple[tuple[int, ...], ...]]  # per node, output and axis: positions per sample, 0 without

_SIZES = {"view": 1, "reshape": 1, "_unsafe_view": 1, "unflatten": 2}
_FILLED = {"zeros": 0, "ones": 0, "full": 0, "empty": 0, "new_zeros": 1, "new_ones": 1, "new_full": 1, "new_empty": 1}
_COPIES = {"expand": 1, "broadcast_to": 1, "repeat": 1, "tile": 1}


def sample_axes(graph: Graph, inputs: Collection[str]) -> Multiples | None:
    """Which axes hold samples in a program that was captured with `SAMPLES` of them; None where that is not clear.

    Args:
        inputs: Nodes of the inputs whose first axis holds the samples.
    """
    run = label(graph, samples=frozenset(inputs))
    starts = [run.axes[name][0][0] for name in inputs]
    first = starts[0] if starts else None
    if first is None:
        return None
    for other in starts[1:]:
        run.tie(first, other, "samples")
    component = run.components()
    ours = component[first]
    if len(set(ours.tolist())) != SAMPLES:
        return None
    if any(np.isin(component[labels], ours).any() for labels, _ in run.freezes):
        return None
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, outputs in run.axes.items():
        rows = [[_multiple(labels, component, ours) for labels in axes] for axes in outputs]
        if any(multiple is None for row in rows for multiple in row):
            return None
        found[name] = tuple(tuple(multiple or 0 for multiple in row) for row in rows)
    return found


def _multiple(labels: Labels | None, component: Labels, ours: Labels) -> int | None:
    """Positions per sample on an axis; 0 without samples, None where not all samples are there alike and alone."""
    if labels is None:
        return 0
    counts = [int((component[labels] == one).sum()) for one in ours]
    whole = len(set(counts)) == 1 and sum(counts) in (0, len(labels))
    return counts[0] if whole else None


def free_batch(module: GraphModule, multiples: Multiples) -> bool:
    """Rewrite the sizes in the program for any number of samples, in place; whether that was possible."""
    source = next((n for n in module.graph.nodes if n.op == "placeholder" and any(multiples[n.name][0])), None)
    if source is None:
        return False
    last = [n for n in module.graph.nodes if n.op == "placeholder"][-1]
    with module.graph.inserting_after(last):
        count = module.graph.call_function(torch.ops.aten.sym_size.int, (source, 0))
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node is not count and not _freed(module, node, multiples, count):
            return False
    for node in module.graph.nodes:
        if any(map(any, multiples.get(node.name, ()))):
            shapes = _shapes(node.meta.get("val"))
            node.meta["shapes"] = tuple(
                tuple(multiple or size for size, multiple in zip(shape, row))
                for shape, row in zip(shapes, multiples[node.name])
            )
    return True


def _shapes(value: Any) -> list[tuple[int, ...]]:
    leaves = value if isinstance(value, list | tuple) else [value]
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _freed(module: GraphModule, node: FxNode, multiples: Multiples, count: FxNode) -> bool:
    own = multiples.get(node.name, ())
    base = base_name(str(node.target)) if isinstance(node.target, torch._ops.OpOverload) else ""
    if not any(map(any, own)):
        return True
    if base in _SIZES and isinstance(node.args[_SIZES[base]], list | tuple):
        return _with_one_free(node, _SIZES[base], own[0])
    if base in _FILLED or base in _COPIES:
        position = _FILLED.get(base, _COPIES.get(base, 0))
        sizes: list[Any] = list(node.args[position])  # type: ignore[arg-type]
        copied = multiples.get(node.args[0].name, ((),))[0] if isinstance(node.args[0], FxNode) else ()
        offset = len(sizes) - len(copied)
        for i, multiple in enumerate(own[0]):
            if multiple and base in _COPIES and i >= offset and copied[i - offset]:
                sizes[i] = -1 if base in ("expand", "broadcast_to") else sizes[i]
            elif multiple:
                with module.graph.inserting_before(node):
                    times = module.graph.call_function(operator.mul, (count, multiple)) if multiple > 1 else count
                sizes[i] = times
        node.update_arg(position, sizes)
    return True


def _with_one_free(node: FxNode, position: int, own: tuple[int, ...]) -> bool:
    """-1 where the samples are; at most one axis can be left open."""
    sizes: list[Any] = list(node.args[position])  # type: ignore[arg-type]
    shape = list(node.meta["val"].shape)
    first = len(shape) - len(sizes) if position == 1 else int(node.args[1]) % (len(shape) - len(sizes) + 1)  # type: ignore[arg-type]
    free = [i for i, multiple in enumerate(own) if multiple]
    if len(free) > 1:
        return False
    node.update_arg(position, [-1 if i in free else shape[i] for i in range(first, first + len(sizes))])
    return True
