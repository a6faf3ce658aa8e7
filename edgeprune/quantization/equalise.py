"""Cross-layer equalisation: channels between two layers are brought to like ranges, and the function stays the same.

One int8 range serves all channels of an activation, so a channel with small values gets few of its 256 steps. Where
only positively homogeneous operators (ReLU, pooling, zero padding) stand between two layers, a channel can be divided
by any s > 0 behind the first layer and multiplied by it before the second (Nagel et al. 2019, arXiv 1906.04721).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.fx.node import Node as FxNode

from edgeprune.pruning.trace import Captured, CapturedModule, attribute
from edgeprune.quantization.layers import Layer, layers, single_use, with_tensors
from edgeprune.quantization.observed import observed_channels

Criterion = Literal["weights", "activations"]

_aten = torch.ops.aten
# f(s·x) = s·f(x) for s > 0, channel by channel; position of the value that must be 0 for that, if any.
_HOMOGENEOUS: dict[Any, int | None] = {
    _aten.relu.default: None,
    _aten.leaky_relu.default: None,
    _aten.max_pool1d.default: None,
    _aten.max_pool2d.default: None,
    _aten.avg_pool1d.default: None,
    _aten.avg_pool2d.default: None,
    _aten.adaptive_avg_pool1d.default: None,
    _aten.adaptive_avg_pool2d.default: None,
    _aten.dropout.default: None,
    _aten.constant_pad_nd.default: 2,
    _aten.pad.default: 3,
}
_RESHAPES = (_aten.flatten.using_ints, _aten.view.default, _aten.reshape.default)
_FUSED = (_aten.relu.default, _aten.relu6.default, _aten.hardtanh.default)
_CAPPED = (_aten.relu6.default, _aten.hardtanh.default)
_ROUNDS = 30
_CONVERGED = 1e-4
_WIDEST = 1e4  # a channel that never speaks would ask for any factor


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing between them that tells scaled channels apart.

    Attributes:
        held: The node that int8 gives a range: the first layer with its ReLU.
        between: The node that the second layer reads.
        capped: The nodes between them that cap every channel at one value (ReLU6): only without these it is a pair.
        repeat: Inputs of the second layer per channel of the first (more than one behind a flattened map).
    """

    first: Layer
    second: Layer
    held: str
    between: str
    capped: tuple[str, ...]
    repeat: int


def pairs(module: CapturedModule) -> tuple[Pair, ...]:
    """The pairs of layers, those with a cap between them among them, in execution order."""
    known = {layer.node: layer for layer in layers(module)}
    by_name = {node.name: node for node in module.graph.nodes}
    found = (_pair(module, layer, by_name[layer.node], known) for layer in known.values())
    return tuple(pair for pair in found if pair is not None)


def uncapped(captured: Captured, nodes: frozenset[str]) -> Captured:
    """A copy with ReLU in place of these ReLU6: the same function only where no value reaches the cap."""
    copied = with_tensors(captured, {})
    for node in copied.module.graph.nodes:
        if node.name in nodes:
            assert node.target in _CAPPED
            node.target, node.args, node.kwargs = _aten.relu.default, node.args[:1], {}
    return with_tensors(copied, {})  # its picture says so too


def equalised(captured: Captured, by: Criterion = "weights", samples: torch.Tensor | None = None) -> Captured:
    """A copy that computes the same, with like ranges in the channels between layers.

    Args:
        captured: With BatchNorm folded (`layers.folded`).
        by: `weights` makes each channel's largest weight of the first layer that of the second. `activations` weighs
            the values that channels really take against the second layer's weights on its per-channel grid, where
            rows have scales of their own; a depthwise layer's weights then ask for nothing.
        samples: Inputs (n, ...), needed for `activations`.
    """
    found = [pair for pair in pairs(captured.module) if not pair.capped]
    module = captured.module
    tensors = {path: attribute(module, path).detach().clone() for pair in found for path in _paths(pair)}
    peaks: dict[str, torch.Tensor] = {}
    if by == "activations":
        assert samples is not None
        peaks = {
            name: torch.maximum(-low, high)
            for name, (low, high) in observed_channels(module, {p.held: 1 for p in found}, samples).items()
        }
    for _ in range(_ROUNDS):
        most = 1.0
        for pair in found:
            scale = _scale(pair, tensors, peaks)
            _rescale(pair, tensors, scale)
            if pair.held in peaks:
                peaks[pair.held] = peaks[pair.held] / scale
            most = max(most, float(torch.maximum(scale, 1 / scale).max()))
        if most < 1 + _CONVERGED:
            break
    return with_tensors(captured, tensors)


def _pair(module: CapturedModule, first: Layer, node: FxNode, known: Mapping[str, Layer]) -> Pair | None:
    """Follow the only reader until a layer comes."""
    if first.kind == "transposed":
        return None
    capped: list[str] = []
    at = held = node
    while len(at.users) == 1:
        (reader,) = at.users
        second = known.get(reader.name)
        if second is not None:
            pair = Pair(first, second, held.name, at.name, tuple(capped), 1)
            return _checked(module, pair, node, at) if reader.args[0] is at else None
        if reader.op != "call_function" or reader.args[0] is not at:
            return None
        if reader.target in _CAPPED:
            if reader.target is _aten.hardtanh.default and (len(reader.args) < 3 or reader.args[1] != 0):
                return None
            capped.append(reader.name)
        elif not _is_homogeneous(reader):
            return None
        held = reader if at is node and reader.target in _FUSED else held
        at = reader
    return None


def _is_homogeneous(node: FxNode) -> bool:
    if node.target in _RESHAPES:
        return True  # what it does to the channels is checked at the second layer
    if node.target is _aten.mean.dim:
        return sorted(axis % 4 for axis in node.args[1]) == [2, 3]  # type: ignore[union-attr, operator]
    if node.target not in _HOMOGENEOUS:
        return False
    at = _HOMOGENEOUS[node.target]
    if node.target is _aten.pad.default and (node.args[2:3] or ("constant",))[0] != "constant":
        return False
    return at is None or len(node.args) <= at or not node.args[at]


def _checked(module: CapturedModule, pair: Pair, source: FxNode, between: FxNode) -> Pair | None:
    """The pair, if its tensors are its own and the second layer's inputs are the first one's channels in order."""
    first, second = pair.first, pair.second
    own = [first.weight, second.weight, *([first.bias] if first.bias else [])]
    if second.kind == "transposed" or not all(single_use(module, path) for path in own):
        return None
    channels = len(attribute(module, first.weight))
    inputs = attribute(module, second.weight).shape[1] * second.groups
    before, after = source.meta.get("val"), between.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return None
    if first.kind == second.kind:
        axis = first.channel_axis
        same = inputs == channels and before.shape[0] == after.shape[0] and before.shape[axis] == after.shape[axis]
        return pair if same else None
    flattened = first.kind == "conv" and after.ndim == 2 and before.shape[0] == after.shape[0]
    return replace(pair, repeat=inputs // channels) if flattened and inputs % channels == 0 else None


def _paths(pair: Pair) -> tuple[str, ...]:
    return tuple(path for path in (pair.first.weight, pair.first.bias, pair.second.weight) if path)


def _scale(pair: Pair, tensors: Mapping[str, torch.Tensor], peaks: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What each channel of the first layer is divided by: sqrt(left / right), 1 where either says nothing."""
    first, second = tensors[pair.first.weight], _by_input(pair, tensors[pair.second.weight])
    if pair.held in peaks:
        left = peaks[pair.held]
        if second.shape[2] == 1 and pair.second.groups > 1:  # depthwise: every channel has a scale of its own
            right = 1 / left.clamp_min(torch.finfo(left.dtype).tiny)
        else:
            rows = second.abs().amax(dim=(2, 3, 4), keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)
            right = (second / rows).abs().amax(dim=(1, 3, 4)).reshape(-1)
    else:
        left = first.abs().flatten(1).amax(1)
        right = second.abs().amax(dim=(1, 3, 4)).reshape(-1)
    scale = torch.sqrt(left / right)
    usable = torch.isfinite(scale) & (scale > 0)
    if not usable.any():
        return torch.ones_like(scale)
    # Only ratios between channels matter: the middle one keeps its range.
    middle = scale[usable].log().mean().exp() if pair.held in peaks else torch.ones(())
    scale = torch.where(usable, scale / middle.to(scale), torch.ones_like(scale))
    return scale.clamp(1 / _WIDEST, _WIDEST)


def _rescale(pair: Pair, tensors: dict[str, torch.Tensor], scale: torch.Tensor) -> None:
    weight = tensors[pair.first.weight]
    tensors[pair.first.weight] = weight / scale.view(-1, *[1] * (weight.ndim - 1))
    if pair.first.bias:
        tensors[pair.first.bias] = tensors[pair.first.bias] / scale
    after = tensors[pair.second.weight]
    grouped = _by_input(pair, after)
    tensors[pair.second.weight] = (grouped * scale.view(len(grouped), 1, -1, 1, 1)).reshape(after.shape)


def _by_input(pair: Pair, weight: torch.Tensor) -> torch.Tensor:
    """The second layer's weight as (groups, outputs, channels of the first layer in the group, repeat, kernel)."""
    groups, repeat = pair.second.groups, pair.repeat
    kernel = math.prod(weight.shape[2:])
    return weight.reshape(groups, len(weight) // groups, weight.shape[1] // repeat, repeat, kernel)
