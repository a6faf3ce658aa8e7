"""Where tensors come from and where they leave: inputs, parameters, constants made in the program, outputs, numbers."""

from __future__ import annotations

from edgeprune.graph import Node
from edgeprune.pruning.labels import Axes, Labelling, frozen_by, rule, unlabelled
from edgeprune.pruning.rewrites import rewrite, sizes_at


@rule("input")
def _input(run: Labelling, node: Node) -> tuple[Axes, ...]:
    if run.samples is not None and node.name in run.samples:
        return ((run.fresh(node.shape[0]), *(None,) * (len(node.shape) - 1)),)
    return unlabelled(node)


@rule("parameter")
def _parameter(run: Labelling, node: Node) -> tuple[Axes, ...]:
    if run.samples is not None:
        return unlabelled(node)
    return (tuple(run.fresh(size) for size in node.shape),)


@rule("output")
def _output(run: Labelling, node: Node) -> tuple[Axes, ...]:
    if run.samples is not None:
        return ()
    return frozen_by(run, node, "model output")


@rule("sym_size")
def _size(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, dim = run.of(node.args[0]), node.args[1]
    assert isinstance(dim, int)
    run.freeze(x[dim], f"size read at run time in {node.name}")
    return ()


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
def _filled(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Every position holds the same, so any of them may go; the sizes are in the arguments."""
    sizes = node.args[1 if node.op.startswith("aten.new_") else 0]
    if not isinstance(sizes, tuple) or len(sizes) != len(node.shape):
        return unlabelled(node)
    return (tuple(run.fresh(n) if isinstance(given, int) and n > 1 else None for given, n in zip(sizes, node.shape)),)


rewrite("zeros", "ones", "full", "empty")(sizes_at(0))
rewrite("new_zeros", "new_ones", "new_full", "new_empty")(sizes_at(1))
