"""The oracle's rules: what an operator does with the alive and the dead elements of its arguments.

The operators are those below autograd that a CPU runs, such as `convolution`, `addmm` and `native_layer_norm`; all
others are made of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from bench.oracle.alive import Call, Mask, Rule, UnjudgedError, elementwise

RULES: dict[str, Rule] = dict.fromkeys(
    # Element-wise, though torch does not tag them so.
    (
        *("hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "_prelu_kernel", "threshold", "threshold_"),
        *("tril", "triu", "mish", "mish_", "log_sigmoid_forward", "_to_copy", "clone", "lift_fresh_copy"),
    ),
    elementwise,
)


def rule(*names: str) -> Any:
    """Register a function for operators by name without overload."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"{name} has two rules")
            RULES[name] = function
        return function

    return register


@rule("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like")
@rule("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided", "_fused_sdp_choice")
def _shape_only(call: Call) -> Any:
    return call.run()


# Moved -----------------------------------------------------------------------------------------------------------


@rule("unsafe_split", "unsafe_split_with_sizes")
@rule("cat", "stack", "index_select", "gather", "embedding", "roll", "flip", "repeat", "pixel_shuffle")
@rule("pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "_unsafe_view", "reflection_pad1d")
@rule("reflection_pad2d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "index", "reflection_pad3d")
def _moved(call: Call) -> Any:
    """The first argument is moved, the others say where to."""
    data, places = call.args[0], call.args[1:]
    indices = [t for place in places for t in (place if isinstance(place, list | tuple) else [place])]
    call.must_be_alive(indices, "it reads positions from a removed channel")
    moved = call.run(tree_map(lambda part: call.mask(part).float(), data))
    return call.answer(call.run(), *(mask > 0.5 for mask in tree_leaves(moved)))


@rule("constant_pad_nd")
def _padded(call: Call) -> Any:
    """What is put at the ends of a line is alive when something on the line is: not the border of a removed channel."""
    x, widths = call.args[:2]
    mask = call.mask(x)
    for i in range(len(widths) // 2):
        axis, (left, right) = x.ndim - 1 - i, widths[2 * i : 2 * i + 2]
        some = mask.any(axis, keepdim=True)
        before, after = (some.expand(*[max(n, 0) if d == axis else -1 for d in range(x.ndim)]) for n in (left, right))
        inner = mask.narrow(axis, max(-left, 0), mask.shape[axis] - max(-left, 0) - max(-right, 0))
        mask = torch.cat([before, inner, after], axis)
    return call.answer(call.run(), mask)


@rule("copy_")
def _copied(call: Call) -> Any:
    return call.answer(call.run(), call.mask(call.args[1]))


@rule("fill_", "zero_")
def _filled(call: Call) -> Any:
    return call.answer(call.run(), call.mask(call.args[1] if len(call.args) > 1 else None))


@rule("index_put", "index_put_")
def _put(call: Call) -> Any:
    x, indices, values = call.args[:3]
    call.must_be_alive([i for i in indices if i is not None], "it reads positions from a removed channel")
    if call.argument("accumulate"):
        raise UnjudgedError(f"{call.func}: accumulates on removed channels")
    mask = torch.index_put(call.mask(x), indices, call.mask(values))
    return call.answer(call.run(), mask)


@rule("glu")
def _glu(call: Call) -> Any:
    a, b = call.mask(call.args[0]).chunk(2, call.argument("dim"))
    return call.answer(call.run(), a & b)


# Contracted ------------------------------------------------------------------------------------------------------


@rule("mm", "bmm", "mv", "dot")
def _product(call: Call) -> Any:
    a, b = call.args
    return call.answer(call.run(call.zeroed(a), call.zeroed(b)), _terms(call.mask(a), call.mask(b)))


@rule("addmm", "addmv", "baddbmm")
def _added_product(call: Call) -> Any:
    c, a, b = call.args
    result = call.run(call.zeroed(c), call.zeroed(a), call.zeroed(b))
    return call.answer(result, _terms(call.mask(a), call.mask(b)) & call.mask(c))


def _terms(a: Mask, b: Mask) -> Mask:
    """Where a matrix product has a term of two alive elements."""
    return torch.matmul(a.float(), b.float()) > 0.5


@rule("convolution")
def _convolution(call: Call) -> Any:
    x, weight, bias = call.args[:3]
    groups, transposed = call.argument("groups"), call.argument("transposed")
    channels = _whole(call, x, 2)  # (batch, in)
    links = call.mask(weight).flatten(2).any(2)  # (out, in / groups), transposed (in, out / groups)
    links = links.reshape(groups, -1, links.shape[1])
    if transposed:
        links = links.transpose(1, 2)  # (groups, out / groups, in / groups)
    parts = channels.reshape(len(channels), groups, -1, 1)  # (batch, groups, in / groups, 1)
    mask = (links.float() @ parts.float() > 0.5).reshape(len(channels), -1) & call.mask(bias)
    result = call.run(call.zeroed(x), call.zeroed(weight), call.zeroed(bias))
    return call.answer(result, _spread(mask, result))


@rule("_weight_norm_interface")
def _weight_norm(call: Call) -> Any:
    v, g = call.args[:2]
    mask = call.mask(v) & call.mask(g)
    weight, norms = call.run(call.zeroed(v))
    weight = torch.where(mask, weight, 0.0)  # the norm of a removed filter is zero
    return call.answer((weight, norms), mask, call.mask(g))


# Reduced ---------------------------------------------------------------------------------------------------------


def _axes(call: Call, x: torch.Tensor) -> list[int]:
    """The axes that are reduced; all of them when none is given."""
    given = call.argument("dim") if any(a.name == "dim" for a in call.func._schema.arguments) else None
    listed = [given] if isinstance(given, int) else list(given or range(x.ndim))
    return [d % x.ndim for d in listed] if x.ndim else []


def _keeps(call: Call) -> bool:
    return any(a.name == "keepdim" for a in call.func._schema.arguments) and bool(call.argument("keepdim"))


def _any(mask: Mask, axes: Sequence[int], keepdim: bool) -> Mask:
    return mask.sum(list(axes), keepdim=keepdim) > 0 if axes else mask


def _neutral(value: float) -> Rule:
    """A reduction that does not see elements of this value."""

    def reduced(call: Call) -> Any:
        x = call.args[0]
        mask = _any(call.mask(x), _axes(call, x), _keeps(call))
        result = call.run(call.zeroed(x, value))
        return call.answer(torch.where(mask, result, torch.zeros((), dtype=result.dtype)), mask)

    return reduced


rule("sum")(_neutral(0.0))
rule("prod")(_neutral(1.0))
rule("amax", "logsumexp")(_neutral(-inf))
rule("amin")(_neutral(inf))


@rule("linalg_vector_norm", "norm")
def _norm(call: Call) -> Any:
    order = call.args[1] if len(call.args) > 1 else 2
    if order is not None and float(order) <= 0:
        raise UnjudgedError(f"{call.func}: order {order} counts removed channels")
    return _neutral(0.0)(call)


@rule("max", "min")
def _extreme(call: Call) -> Any:
    """With positions, which a pruned model counts differently: whole slices must be alive or dead."""
    x = call.args[0]
    mask = _uniform(call, call.mask(x), _axes(call, x), _keeps(call))
    return call.answer(call.run(), mask)


@rule("mean", "var", "std", "var_mean")
def _moments(call: Call) -> Any:
    x = call.args[0]
    axes, keepdim = _axes(call, x), _keeps(call)
    mean, variance, count = _statistics(x, call.mask(x), axes)
    if call.name == "mean":
        results = [mean]
    else:
        correction = call.argument("correction")
        variance = variance * count / (count - (1 if correction is None else correction)).clamp(min=0)
        results = [variance.sqrt() if call.name == "std" else variance, *([mean] if call.name == "var_mean" else [])]
    mask = _any(call.mask(x), axes, keepdim)
    shaped = [torch.where(mask, r if keepdim else r.squeeze(axes), torch.zeros((), dtype=r.dtype)) for r in results]
    return call.answer(tuple(shaped) if len(shaped) > 1 else shaped[0], mask)


def _statistics(x: torch.Tensor, mask: Mask, axes: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, biased variance and number of the alive elements along the axes, which stay with size one."""
    count = mask.sum(list(axes), keepdim=True).clamp(min=1).to(x.dtype)
    nothing = torch.zeros((), dtype=x.dtype)
    mean = torch.where(mask, x, nothing).sum(list(axes), keepdim=True) / count
    variance = torch.where(mask, x - mean, nothing).square().sum(list(axes), keepdim=True) / count
    return mean, variance, count


@rule("_softmax", "_safe_softmax", "_log_softmax")
def _softmax(call: Call) -> Any:
    x = call.args[0]
    mask = call.mask(x)
    result = call.run(call.zeroed(x, -inf))
    return call.answer(torch.where(mask, result, torch.zeros((), dtype=result.dtype)), mask)


@rule("cumsum")
def _cumsum(call: Call) -> Any:
    return call.answer(call.run(call.zeroed(call.args[0])), call.mask(call.args[0]))


@rule("native_layer_norm")
def _layer_norm(call: Call) -> Any:
    x, shape, weight, bias, eps = call.args
    axes = list(range(x.ndim - len(shape), x.ndim))
    mean, variance, _ = _statistics(x, call.mask(x), axes)
    scale = (variance + eps).rsqrt()
    y = _affine((x - mean) * scale, weight, bias)
    mask = call.mask(x) & call.mask(weight) & call.mask(bias)
    some = _any(call.mask(x), axes, True)
    return call.answer((y, mean, scale), mask, some, some)


@rule("native_group_norm")
def _group_norm(call: Call) -> Any:
    x, weight, bias, batch, channels, _, groups, eps = call.args
    parts, part_mask = x.reshape(batch, groups, -1), call.mask(x).reshape(batch, groups, -1)
    mean, variance, _ = _statistics(parts, part_mask, [2])
    scale = (variance + eps).rsqrt()
    along = [channels, *[1] * (x.ndim - 2)]
    y = ((parts - mean) * scale).reshape(x.shape)
    y = _affine(y, *(t if t is None else t.reshape(along) for t in (weight, bias)))
    mask = call.mask(x) & _along(call.mask(weight), x.ndim) & _along(call.mask(bias), x.ndim)
    some = part_mask.any(2)
    return call.answer((y, mean.squeeze(2), scale.squeeze(2)), mask, some, some)


@rule("native_batch_norm")
def _batch_norm(call: Call) -> Any:
    x, weight, bias, mean, variance, training, _, eps = call.args
    operands = (weight, bias) if training else (weight, bias, mean, variance)
    mask = call.mask(x)
    for operand in operands:
        mask = mask & _along(call.mask(operand), x.ndim)
    if not training:
        y, saved_mean, saved_scale = call.run()
        return call.answer((y, saved_mean, saved_scale), mask, *_whole_results(saved_mean, saved_scale))
    if mean is not None:
        raise UnjudgedError(f"{call.func}: updates running statistics")
    axes = [0, *range(2, x.ndim)]
    mean, variance, _ = _statistics(x, call.mask(x), axes)
    scale = (variance + eps).rsqrt()
    along = [-1, *[1] * (x.ndim - 2)]
    y = _affine((x - mean) * scale, *(t if t is None else t.reshape(along) for t in (weight, bias)))
    some = _any(call.mask(x), axes, False)
    return call.answer((y, mean.flatten(), scale.flatten()), mask, some, some)


def _whole_results(*tensors: torch.Tensor) -> list[Mask]:
    return [torch.ones(tensor.shape, dtype=torch.bool) for tensor in tensors]


def _along(mask: Mask, rank: int) -> Mask:
    """A mask per channel, broadcast over the batch and space of a tensor of that rank."""
    return mask.reshape(-1, *[1] * (rank - 2)) if mask.ndim else mask


def _affine(y: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


# Resampled in space ----------------------------------------------------------------------------------------------


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d")
@rule("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d")
@rule("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d", "grid_sampler_3d")
def _resampled(call: Call) -> Any:
    x, *rest = call.args
    call.must_be_alive(rest, "it samples at places from a removed channel")
    found = re.search(r"([123])d", call.name)
    assert found is not None
    channels = _whole(call, x, x.ndim - int(found[1]))
    result = call.run()
    mask = _spread(channels, result[0] if isinstance(result, tuple) else result)
    return call.answer(result, mask)


@rule("im2col")
def _patches(call: Call) -> Any:
    channels = _whole(call, call.args[0], call.args[0].ndim - 2)
    result = call.run()
    each = result.shape[-2] // channels.shape[-1]  # positions of a patch
    return call.answer(result, _spread(channels.repeat_interleave(each, -1), result))


@rule("col2im")
def _folded(call: Call) -> Any:
    mask = call.mask(call.args[0])
    alive, dead = call.run(mask.float()) > 0.5, call.run((~mask).float()) > 0.5
    return call.answer(call.run(call.zeroed(call.args[0])), alive | ~dead)


def _whole(call: Call, x: torch.Tensor, rank: int) -> Mask:
    """The mask over the first `rank` axes, of a tensor that is alive or dead as a whole along the others."""
    return _uniform(call, call.mask(x), list(range(rank, x.ndim)), False)


def _uniform(call: Call, mask: Mask, axes: Sequence[int], keepdim: bool) -> Mask:
    if not axes:
        return mask
    number = mask.sum(list(axes), keepdim=True)
    size = mask.numel() // max(number.numel(), 1)
    if bool(((number != 0) & (number != size)).any()):
        raise UnjudgedError(f"{call.func}: removes some positions of a channel and keeps others")
    return (number if keepdim else number.squeeze(list(axes))) > 0


def _spread(mask: Mask, like: torch.Tensor) -> Mask:
    """A mask over leading axes, repeated along the remaining ones of a result."""
    return mask.reshape(*mask.shape, *[1] * (like.ndim - mask.ndim)).expand(like.shape)
