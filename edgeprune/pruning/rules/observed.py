"""What only a program that was observed holds: constants made by Python, values read by Python, detection operators."""

from __future__ import annotations

from edgeprune.graph import Node, Ref
from edgeprune.pruning.labels import Axes, Labelling, frozen_by, rule, unlabelled
from edgeprune.pruning.rules.pointwise import broadcast


@rule("constant")
def _constant(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Made by the model's Python, which keeps its size: what meets it stays."""
    return unlabelled(node)


@rule("read_by_python")
def _read(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return frozen_by(run, node, f"values are read by Python ({node.args[1]})")


@rule("kept_whole")
def _kept_whole(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return frozen_by(run, node, str(node.args[1]))


@rule("index_put", "_index_put_impl")
def _index_put(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """x[rows] = values, rows along the first axis: on the others both are the same channels."""
    x, shape, indices = run.of(node.args[0]), run.shape(node.args[0]), node.args[1]
    values, own = run.of(node.args[2]), run.shape(node.args[2])
    rows = indices[0] if isinstance(indices, tuple) and len(indices) == 1 else None
    if not isinstance(rows, Ref) or len(run.shape(rows)) != 1 or len(own) > len(shape):
        return frozen_by(run, node, f"no rule for {node.op} ({node.name})")
    run.freeze_all((x[0], *run.of(rows)), f"index in {node.name}")
    if len(own) == len(shape):
        run.freeze(values[0], f"index in {node.name}")
        values, own = values[1:], own[1:]
    return ((None, *broadcast(run, [(x[1:], shape[1:]), (values, own)], shape[1:], node.name)),)


@rule("roi_align", "roi_pool")
def _regions(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """(n, c, h, w) and regions (k, 5) to (k, c, height, width)."""
    x = run.of(node.args[0])
    run.freeze_all((*x[-2:], *run.of(node.args[1])), f"worked over as space in {node.name}")
    return ((None, x[1], None, None),) * len(node.shapes)
