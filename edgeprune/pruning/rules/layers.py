"""Layers with weights: convolutions, linear maps, products of activations, embeddings."""

from __future__ import annotations

import numpy as np

from edgeprune.graph import Arg, Node, Ref
from edgeprune.pruning.labels import Axes, Labelling, Labels, frozen_by, rule
from edgeprune.pruning.rewrites import Shrinking, argument, rewrite, with_arg
from edgeprune.pruning.rules.pointwise import broadcast

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def _bias(run: Labelling, node: Node, position: int, out: Labels | None) -> None:
    if len(node.args) > position and isinstance(node.args[position], Ref):
        run.tie(run.of(node.args[position])[0], out, "bias")


@rule(*_CONVOLUTIONS)
def _conv(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, weight = run.of(node.args[0]), run.of(node.args[1])
    groups = node.args[6] if len(node.args) > 6 else 1
    if not isinstance(groups, int):
        return frozen_by(run, node, f"number of groups computed at run time in {node.name}")
    spatial = len(weight) - 2
    per_group = run.shape(node.args[1])[1]
    out, cin, channels = weight[0], weight[1], x[-1 - spatial]
    run.freeze_all(weight[2:], "kernel")
    space = _untouched(run, node, x[len(x) - spatial :])
    if groups == 1:
        run.tie(cin, channels, "model input")
    elif per_group == 1:  # depthwise: output j reads input j // multiplier
        run.freeze(cin, "kernel")
        run.tie(out, None if channels is None else np.repeat(channels, node_width(run, node) // groups), "model input")
    else:
        _tie_grouped(run, channels, cin, out, groups)
    _bias(run, node, 2, out)
    return ((*x[: len(x) - spatial - 1], out, *space),)


def _untouched(run: Labelling, node: Node, axes: Axes) -> Axes:
    """The labels of the axes that a convolution works over: they pass where it takes one position at a time."""
    kernel = run.shape(node.args[1])[2:]
    stride = _per_axis(argument(node, 3, "stride", 1), len(axes))
    padding = _per_axis(argument(node, 4, "padding", 0), len(axes))
    passed: list[Labels | None] = []
    for i, labels in enumerate(axes):
        if labels is not None and not (kernel[i] == 1 and stride[i] == 1 and padding[i] in (0, "same", "valid")):
            run.freeze(labels, f"convolved over in {node.name}")
            labels = None
        passed.append(labels)
    return tuple(passed)


def _per_axis(value: Arg, rank: int) -> tuple[Arg, ...]:
    listed = value if isinstance(value, tuple) else (value,)
    return listed if len(listed) == rank else listed[:1] * rank


def node_width(run: Labelling, node: Node) -> int:
    """Output channels of a convolution."""
    return run.shape(node.args[1])[0]


def _tie_grouped(run: Labelling, channels: Labels | None, cin: Labels | None, out: Labels | None, groups: int) -> None:
    """Whole groups go where there are many; else every group keeps the same pattern, so that they stay equal."""
    if channels is None or cin is None or out is None:
        run.freeze_all((channels, cin, out), "model input")
        return
    if run.by_head or groups > max(len(cin), len(out) // groups):
        run.freeze(cin, "inside a group")
        ends = run.tie_rows(channels.reshape(groups, -1).T)
        run.tie(ends, run.tie_rows(out.reshape(groups, -1).T), "grouped convolution")
    else:
        run.tie(np.tile(cin, groups), channels, "model input")
        run.tie_rows(out.reshape(groups, -1))


@rewrite(*_CONVOLUTIONS)
def _groups(new: Node, old: Node, shrinking: Shrinking) -> Node:
    """The number of groups follows from the channels that are left and those each group reads."""
    x, weight = old.args[0], old.args[1]
    if len(old.args) <= 6 or old.args[6] == 1 or not isinstance(x, Ref) or not isinstance(weight, Ref):
        return new
    spatial = len(shrinking.graph.by_name[weight.name].shape) - 2
    per_group = shrinking.width(weight, 1)
    channel_axis = len(shrinking.graph.by_name[x.name].shape) - 1 - spatial
    return with_arg(new, 6, shrinking.width(x, channel_axis) // per_group)


@rule(*_TRANSPOSED)
def _conv_transpose(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, weight = run.of(node.args[0]), run.of(node.args[1])
    groups = node.args[6] if len(node.args) > 6 else 1
    if not isinstance(groups, int):
        return frozen_by(run, node, f"number of groups computed at run time in {node.name}")
    spatial = len(weight) - 2
    channels, cin, per_group = x[-1 - spatial], weight[0], weight[1]
    run.freeze_all(weight[2:], "kernel")
    run.freeze_all(x[len(x) - spatial :], f"convolved over in {node.name}")
    run.tie(cin, channels, "model input")
    out = per_group
    if groups > 1 and per_group is not None and len(per_group) == 1 and channels is not None:
        run.freeze(per_group, "kernel")  # depthwise
        out = run.tie_rows(channels.reshape(groups, -1).T)
    elif groups > 1 and per_group is not None:
        out = np.tile(per_group, groups)
        if channels is not None:
            run.tie_rows(channels.reshape(groups, -1))
    _bias(run, node, 2, out)
    return ((*x[: len(x) - spatial - 1], out, *(None,) * spatial),)


@rewrite(*_TRANSPOSED)
def _transposed_groups(new: Node, old: Node, shrinking: Shrinking) -> Node:
    weight = old.args[1]
    if len(old.args) <= 6 or old.args[6] == 1 or not isinstance(weight, Ref):
        return new
    if shrinking.graph.by_name[weight.name].shape[1] == 1:
        return with_arg(new, 6, new.shape[len(new.shape) - len(shrinking.graph.by_name[weight.name].shape) + 1])
    return new


@rule("linear")
def _linear(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, weight = run.of(node.args[0]), run.of(node.args[1])
    run.tie(weight[-1], x[-1], "model input")
    out = weight[0] if len(weight) > 1 else None
    _bias(run, node, 2, out)
    return ((*x[:-1], out),) if len(weight) > 1 else (x[:-1],)


@rule("bilinear")
def _bilinear(run: Labelling, node: Node) -> tuple[Axes, ...]:
    a, b, weight = (run.of(arg) for arg in node.args[:3])
    run.tie(weight[1], a[-1], "model input")
    run.tie(weight[2], b[-1], "model input")
    _bias(run, node, 3, weight[0])
    lead = [(axes[:-1], run.shape(ref)[:-1]) for axes, ref in ((a, node.args[0]), (b, node.args[1]))]
    return ((*broadcast(run, lead, node.shape[:-1], node.name), weight[0]),)


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def _matmul(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return (product(run, node, node.args[0], node.args[1]),)


def product(run: Labelling, node: Node, left: object, right: object) -> Axes:
    """The axes of a matrix product (..., n, k) x (..., k, m); vectors stand for k alone."""
    a, b = run.of(left), run.of(right)
    run.tie(a[-1], b[-2] if len(b) > 1 else b[0], f"meets an axis that cannot shrink in {node.name}")
    rows = a[-2:-1] if len(a) > 1 else ()
    columns = b[-1:] if len(b) > 1 else ()
    batch = node.shape[: len(node.shape) - len(rows) - len(columns)]
    lead = [(a[:-2], run.shape(left)[:-2]), (b[:-2], run.shape(right)[:-2])]
    return (*broadcast(run, lead, batch, node.name), *rows, *columns)


@rule("addmm", "baddbmm", "addbmm", "addmv")
def _add_product(run: Labelling, node: Node) -> tuple[Axes, ...]:
    result = product(run, node, node.args[1], node.args[2])
    operands = [(run.of(node.args[0]), run.shape(node.args[0])), (result, node.shape)]
    return (broadcast(run, operands, node.shape, node.name),)


@rule("einsum")
def _einsum(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """One letter is one set of channels wherever it stands."""
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str) and isinstance(operands, tuple)
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "..." in equation or not arrow:
        terms, output = _explicit(terms, output, arrow, [len(run.shape(ref)) for ref in operands])
    by_letter: dict[str, Labels | None] = {}
    size_of = {c: n for term, ref in zip(terms, operands) for c, n in zip(term, run.shape(ref)) if n > 1}
    for term, ref in zip(terms, operands, strict=True):
        for letter, labels, size in zip(term, run.of(ref), run.shape(ref), strict=True):
            if size != size_of.get(letter, 1) or size == 1:
                run.freeze(labels, f"broadcast in {node.name}")
            elif letter in by_letter:
                if by_letter[letter] is not None or labels is not None:
                    reason = f"meets an axis that cannot shrink in {node.name}"
                    by_letter[letter] = run.tie(by_letter[letter], labels, reason)
            else:
                by_letter[letter] = labels
    return (tuple(by_letter.get(letter) for letter in output),)


def _explicit(terms: list[str], output: str, arrow: str, ranks: list[int]) -> tuple[list[str], str]:
    """An equation with its ellipsis written as capital letters and its output spelled out."""
    letters = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in "".join(terms)]
    wide = max((rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks) if "..." in term), default=0)
    spelled = []
    for term, rank in zip(terms, ranks, strict=True):
        own = rank - len(term.replace("...", ""))
        spelled.append(term.replace("...", "".join(letters[wide - own : wide])))
    if arrow:
        return spelled, output.replace("...", "".join(letters[:wide]))
    flat = "".join(term.replace("...", "") for term in terms)
    return spelled, "".join(letters[:wide]) + "".join(sorted(c for c in set(flat) if flat.count(c) == 1))


@rule("embedding")
def _embedding(run: Labelling, node: Node) -> tuple[Axes, ...]:
    weight, index = run.of(node.args[0]), run.of(node.args[1])
    run.freeze(weight[0], "vocabulary")
    return ((*index, weight[1]),)


@rule("scaled_dot_product_attention")
def _attention(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """softmax(q k' * scale) v: q (..., n, d), k (..., m, d), v (..., m, e). Capture writes the scale out."""
    q, k, v = (run.of(arg) for arg in node.args[:3])
    run.tie(q[-1], k[-1], f"meets an axis that cannot shrink in {node.name}")
    if k[-2] is not None or v[-2] is not None:
        run.tie(k[-2], v[-2], f"meets an axis that cannot shrink in {node.name}")
    run.freeze(k[-2], f"attended over in {node.name}")
    run.freeze(q[-2], f"attends in {node.name}")
    lead = []
    for axes, ref in zip((q, k, v), node.args[:3]):
        own = run.shape(ref)[:-2]
        heads = node.shape[-3] if len(node.shape) > 2 else 1
        if len(own) and own[-1] not in (1, heads):  # grouped queries: fewer heads of keys and values
            run.freeze(axes[-3], f"grouped-query heads in {node.name}")
            axes, own = (*axes[:-3], None, *axes[-2:]), (*own[:-1], 1)
        lead.append((axes[:-2], own))
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if isinstance(mask, Ref):
        own, axes = run.shape(mask), run.of(mask)
        run.freeze_all(axes[-2:], f"attention mask in {node.name}")
        lead.append((axes[:-2], own[:-2]))
    return ((*broadcast(run, lead, node.shape[:-2], node.name), None, v[-1]),)
