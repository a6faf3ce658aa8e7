"""Operators that work position by position, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.graph import Node, Ref, Shape
from edgeprune.pruning.labels import Axes, Labelling, Labels, rule, unlabelled

UNARY = (
    *"relu relu6 hardtanh silu hardswish hardsigmoid sigmoid tanh gelu elu selu celu leaky_relu mish softplus".split(),
    *"softsign hardshrink softshrink tanhshrink threshold logit log_sigmoid exp expm1 exp2 log log1p log2 sin".split(),
    *"cos tan atan asin acos sinh cosh erf neg abs sqrt rsqrt square sign reciprocal round floor ceil trunc".split(),
    *"frac isnan isinf isfinite nan_to_num logical_not bitwise_not dropout feature_dropout alpha_dropout".split(),
    *"native_dropout clone contiguous detach alias to lift_fresh_copy _to_copy type_as".split(),
    *"fill zero zeros_like ones_like full_like empty_like rand_like randn_like bernoulli".split(),
)
ELEMENTWISE = (
    *"add sub mul div rsub maximum minimum pow fmod remainder floor_divide atan2 copysign hypot xlogy".split(),
    *"eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor".split(),
    *"where masked_fill addcmul addcdiv lerp clamp clamp_min clamp_max heaviside true_divide".split(),
)


def broadcast(run: Labelling, operands: Sequence[tuple[Axes, Shape]], shape: Shape, where: str) -> Axes:
    """The axes of an element-wise result: operands of full size on an axis are the same channels there."""
    out: list[Labels | None] = [None] * len(shape)
    seen = [False] * len(shape)  # an operand of full size was met on this axis
    for axes, own in operands:
        offset = len(shape) - len(own)
        for i, (labels, size) in enumerate(zip(axes, own), offset):
            if size == 1:
                run.freeze(labels, f"broadcast in {where}" if shape[i] > 1 else "single channel")
            elif seen[i]:
                if out[i] is not None or labels is not None:
                    out[i] = run.tie(out[i], labels, f"meets an axis that cannot shrink in {where}")
            else:
                out[i], seen[i] = labels, True
    return tuple(out)


def operand(run: Labelling, ref: object) -> tuple[Axes, Shape]:
    """Axes and shape of an argument, as `broadcast` takes them."""
    return run.of(ref), run.shape(ref)


@rule(*UNARY)
def _unary(run: Labelling, node: Node) -> tuple[Axes, ...]:
    return (run.of(node.args[0]),) * len(node.shapes)


@rule(*ELEMENTWISE)
def _elementwise(run: Labelling, node: Node) -> tuple[Axes, ...]:
    operands = [operand(run, arg) for arg in (*node.args, *node.kwargs.values()) if isinstance(arg, Ref)]
    if not node.shapes:
        return unlabelled(node)
    return (broadcast(run, [o for o in operands if o[1]], node.shape, node.name),)


@rule("copy")
def _copy(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Writes a tensor into another, or into a view of it, whose labels it shares."""
    return (broadcast(run, [operand(run, node.args[0]), operand(run, node.args[1])], node.shape, node.name),)


@rule("prelu")
def _prelu(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x, slope = run.of(node.args[0]), run.of(node.args[1])
    if slope and slope[0] is not None and len(slope[0]) > 1:
        run.tie(slope[0], x[1], "model input")
    else:
        run.freeze_all(slope, "shared slope")
    return (x,)


@rule("glu")
def _glu(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """Two halves of an axis, one the gate of the other."""
    dim = node.args[1] if len(node.args) > 1 else -1
    assert isinstance(dim, int)
    x = list(run.of(node.args[0]))
    labels = x[dim]
    x[dim] = None if labels is None else run.tie_rows(labels.reshape(2, -1))
    return (tuple(x),)
