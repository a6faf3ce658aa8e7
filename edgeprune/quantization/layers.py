"""The layers whose weights int8 rounds, as nodes of a captured program, and BatchNorm folded into them.

Everything that is done to a model before it is quantised edits these weights and biases. Runtimes fold BatchNorm at
inference, so the folded program is the one that they round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.fx.node import Node as FxNode

from edgeprune.pruning.trace import Captured, CapturedModule, attribute, copy_module, graph_of

_aten = torch.ops.aten
_CONVOLUTIONS: tuple[Any, ...] = (_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default)
_TRANSPOSED: tuple[Any, ...] = (_aten.conv_transpose1d.default, _aten.conv_transpose2d.input)
_GROUPS = {**dict.fromkeys(_CONVOLUTIONS, 6), **dict.fromkeys(_TRANSPOSED, 6)}  # position of the argument
_OUT_OF_PLACE: dict[Any, Any] = {
    _aten.relu_.default: _aten.relu.default,
    _aten.relu6_.default: _aten.relu6.default,
    _aten.hardtanh_.default: _aten.hardtanh.default,
    _aten.leaky_relu_.default: _aten.leaky_relu.default,
}


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer of a captured program.

    Attributes:
        name: Dotted path of the layer in the user's model; of a weight without a layer its own path.
        node: The node that computes it.
        weight, bias: Dotted paths of its tensors; `bias` is empty without one.
        axis: Axis of the output channels in the weight, along which int8 has one scale each.
        channel_axis: Axis of the output channels in the output.
        groups: Of a convolution; 1 for a linear layer.
    """

    name: str
    node: str
    kind: Literal["conv", "transposed", "dense"]
    weight: str
    bias: str
    axis: int
    channel_axis: int
    groups: int = 1


def layers(module: CapturedModule) -> tuple[Layer, ...]:
    """The layers with weights, in execution order. A weight that is used twice is two layers."""
    return tuple(found for node in module.graph.nodes if (found := _layer(node)) is not None)


def single_use(module: CapturedModule, path: str) -> bool:
    """Whether one node alone reads the tensor at this path."""
    readers = [u for node in module.graph.nodes if node.op == "get_attr" and node.target == path for u in node.users]
    return len(readers) == 1


def with_tensors(captured: Captured, changed: Mapping[str, torch.Tensor]) -> Captured:
    """A copy of the model with other tensors at these paths; a bias that a layer did not have is added."""
    module = copy_module(captured.module)
    for layer in layers(module):
        path = layer.bias or f"{layer.name}.bias"
        if not layer.bias and path in changed:
            _add_bias(module, layer, path, changed[path])
    for path, value in changed.items():
        tensor = attribute(module, path)
        with torch.no_grad():
            tensor.copy_(value)
    module.recompile()
    return Captured(module, graph_of(module))


def folded(captured: Captured) -> Captured:
    """A copy in which every BatchNorm that follows a convolution or linear layer alone is part of it.

    The result computes the same; it is in eval mode for good where a BatchNorm was folded. What stands alone stays.
    """
    module = copy_module(captured.module).eval()
    assert isinstance(module, CapturedModule)
    by_node = {layer.node: layer for layer in layers(module)}
    for node in list(module.graph.nodes):
        if node.target in _OUT_OF_PLACE and len(node.all_input_nodes[0].users) == 1:
            node.target = _OUT_OF_PLACE[node.target]
        if node.target is not _aten.batch_norm.default or node.args[3] is None:
            continue
        source = node.args[0]
        layer = by_node.get(source.name)
        if layer is None or len(source.users) != 1 or layer.kind == "transposed":
            continue
        if all(single_use(module, path) for path in (layer.weight, layer.bias) if path):
            _fold(module, layer, source, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return Captured(module, graph_of(module))


def _layer(node: FxNode) -> Layer | None:
    if node.op != "call_function" or len(node.args) < 2 or not _is_parameter(node.args[1]):
        return None
    weight, bias = str(node.args[1].target), node.args[2] if len(node.args) > 2 else None  # type: ignore[union-attr]
    if bias is not None and not _is_parameter(bias):
        return None
    path = "" if bias is None else str(bias.target)  # type: ignore[union-attr]
    name = weight.removesuffix(".weight")
    if node.target is _aten.linear.default:
        return Layer(name, node.name, "dense", weight, path, axis=0, channel_axis=-1)
    if node.target in _GROUPS:
        at = _GROUPS[node.target]
        groups = int(node.args[at]) if len(node.args) > at else 1  # type: ignore[arg-type]
        turned = node.target in _TRANSPOSED
        return Layer(name, node.name, "transposed" if turned else "conv", weight, path, int(turned), 1, groups)
    return None


def _is_parameter(value: Any) -> bool:
    return isinstance(value, FxNode) and value.op == "get_attr"


@torch.no_grad()
def _fold(module: CapturedModule, layer: Layer, source: FxNode, norm: FxNode) -> None:
    scale, shift, mean, variance = (
        None if arg is None else attribute(module, str(arg.target))  # type: ignore[union-attr]
        for arg in norm.args[1:5]
    )
    assert mean is not None and variance is not None
    epsilon = norm.args[7]
    assert isinstance(epsilon, float)
    gain = torch.rsqrt(variance + epsilon) * (1 if scale is None else scale)
    weight = attribute(module, layer.weight)
    before = attribute(module, layer.bias) if layer.bias else torch.zeros_like(mean)
    bias = (before - mean) * gain + (0 if shift is None else shift)
    weight.mul_(gain.view(-1, *[1] * (weight.ndim - 1)))
    if layer.bias:
        attribute(module, layer.bias).copy_(bias)
    else:
        _add_bias(module, layer, f"{layer.name}.bias", bias)
    norm.replace_all_uses_with(source)
    module.graph.erase_node(norm)


def _add_bias(module: CapturedModule, layer: Layer, path: str, value: torch.Tensor) -> None:
    owner, _, name = path.rpartition(".")
    module.get_submodule(owner).register_parameter(name, torch.nn.Parameter(value.detach().clone()))
    node = next(node for node in module.graph.nodes if node.name == layer.node)
    with module.graph.inserting_before(node):
        bias = module.graph.get_attr(path)
    bias.meta["val"] = value.detach()
    node.args = (*node.args[:2], bias, *node.args[3:])
