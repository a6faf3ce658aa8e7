"""Reductions. Over a channel axis they run over the channels that are left."""

from __future__ import annotations

from edgeprune.graph import Node
from edgeprune.pruning.labels import Axes, Labelling, frozen_by, rule
from edgeprune.pruning.rewrites import argument

# Positional place of the axes that are reduced.
_DIMS = {"linalg_vector_norm": 2, "norm": 2}


@rule(
    *"mean sum amax amin max min prod var std var_mean std_mean logsumexp".split(),
    *"linalg_vector_norm norm nansum any all".split(),
)
def _reduction(run: Labelling, node: Node) -> tuple[Axes, ...]:
    name = node.base
    if node.op.endswith((".other", ".names_dim")):
        return frozen_by(run, node, f"no rule for {node.op} ({node.name})")
    x = run.of(node.args[0])
    dims = argument(node, _DIMS.get(name, 1), "dim")
    listed = dims if isinstance(dims, tuple) and dims else range(len(x)) if dims is None or dims == () else (dims,)
    reduced = {int(d) % len(x) for d in listed if isinstance(d, int)} if len(x) else set()
    if name in ("max", "min") and len(node.shapes) > 1:  # the second output holds positions
        run.freeze_all([x[d] for d in reduced], f"positions along it are used in {node.name}")
    if node.shapes and len(node.shapes[0]) == len(x):
        kept: Axes = tuple(None if i in reduced else labels for i, labels in enumerate(x))
    else:
        kept = tuple(labels for i, labels in enumerate(x) if i not in reduced)
    return (kept,) * len(node.shapes)


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "softmin")
def _softmax(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return (run.of(node.args[0]),)


@rule("cumsum", "cumprod", "logcumsumexp", "sort", "argsort", "topk", "argmax", "argmin", "tril", "triu")
def _ordered(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """The order or the place of positions matters along an axis; the other axes pass."""
    name, x = node.base, list(run.of(node.args[0]))
    dim: object = argument(node, 2 if name == "topk" else 1, "dim", -1)
    listed = (-2, -1) if name in ("tril", "triu") else (dim,) if isinstance(dim, int) else range(len(x))
    for d in {d % len(x) for d in listed}:
        run.freeze(x[d], f"positions along it are used in {node.name}")
        x[d] = None
    if node.shapes and len(node.shapes[0]) != len(x):  # without keepdim
        gone = {d % len(x) for d in listed}
        x = [labels for i, labels in enumerate(x) if i not in gone]
    return (tuple(x),) * len(node.shapes)
