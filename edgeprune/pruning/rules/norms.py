"""Normalisation layers. Statistics over an axis are those of the channels that are left."""

from __future__ import annotations

from edgeprune.graph import Node, Ref
from edgeprune.pruning.labels import Axes, Labelling, rule
from edgeprune.pruning.rewrites import Shrinking, rewrite, with_arg


@rule("batch_norm", "instance_norm")
def _batch_norm(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    for arg in node.args[1:5]:
        if isinstance(arg, Ref):
            run.tie(run.of(arg)[0], x[1], "model input")
    return (x,)


@rule("layer_norm", "rms_norm")
def _layer_norm(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, sizes = list(run.of(node.args[0])), node.args[1]
    assert isinstance(sizes, tuple)
    first = len(x) - len(sizes)
    for arg in node.args[2:4]:
        if isinstance(arg, Ref):
            for i, labels in enumerate(run.of(arg), first):
                x[i] = run.tie(x[i], labels, "model input")
    return (tuple(x),)


@rewrite("layer_norm", "rms_norm")
def _normalized_shape(new: Node, old: Node, shrinking: Shrinking) -> Node:
    sizes = old.args[1]
    assert isinstance(sizes, tuple)
    return with_arg(new, 1, new.shape[len(new.shape) - len(sizes) :])


@rule("group_norm")
def _group_norm(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Whole groups go where there are many; else every group keeps the same pattern, so that they stay equal."""
    x, groups = list(run.of(node.args[0])), node.args[1]
    assert isinstance(groups, int)
    run.freeze_all(x[2:], f"normalised over in {node.name}")
    for arg in node.args[2:4]:
        if isinstance(arg, Ref):
            x[1] = run.tie(x[1], run.of(arg)[0], "model input")
    if x[1] is not None:
        grid = x[1].reshape(groups, -1)
        run.tie_rows(grid.T if _whole_groups(node, run.by_head) else grid)
    return ((*x[:2], *(None,) * (len(x) - 2)),)


def _whole_groups(node: Node, by_head: bool) -> bool:
    groups = node.args[1]
    assert isinstance(groups, int)
    return 1 < groups and (by_head or groups * groups > node.shape[1])


@rewrite("group_norm")
def _num_groups(new: Node, old: Node, shrinking: Shrinking) -> Node:
    if not _whole_groups(old, shrinking.groups.by_head):
        return new
    groups = old.args[1]
    assert isinstance(groups, int)
    return with_arg(new, 1, new.shape[1] // (old.shape[1] // groups))


@rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """g * v / |v|, the norm over all axes but one."""
    v, g = run.of(node.args[0]), run.of(node.args[1])
    dim = node.args[2] if len(node.args) > 2 else 0
    assert isinstance(dim, int)
    run.tie(v[dim], g[dim], "model input")
    run.freeze_all([labels for i, labels in enumerate(g) if i != dim % len(g)], "single channel")
    return (v, g)[: len(node.shapes)]
