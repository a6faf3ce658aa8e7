"""Importance: one number per channel and group, larger stays.

A criterion is a function registered under its own name. The default ranks channels by what they do to the model's
outputs rather than to its loss, whose gradient vanishes at convergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode
from torch.utils import _pytree as pytree

from edgeprune.errors import QualityError, UsageError, did_you_mean
from edgeprune.graph import Node, Ref
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.labels import base_op
from edgeprune.pruning.trace import Captured, attribute

Scores = dict[str, "np.ndarray[Any, np.dtype[np.float64]]"]
Batches = Sequence[torch.Tensor]
Criterion = Callable[[Captured, ChannelGroups, Batches, int], Scores]

CRITERIA: dict[str, Criterion] = {}


def criterion(function: Criterion) -> Criterion:
    """Register a criterion under the function's name."""
    if function.__name__ in CRITERIA:
        raise ValueError(f"criterion {function.__name__!r} is registered twice")
    CRITERIA[function.__name__] = function
    return function


def importance(name: str, captured: Captured, groups: ChannelGroups, batches: Batches, seed: int) -> Scores:
    """Scores (channels,) per group by the named criterion.

    Args:
        batches: Inputs (n, ...) on the model's device; targets are not needed.

    Raises:
        UsageError: Unknown criterion.
        QualityError: Non-finite scores; the layer is named.
    """
    if name not in CRITERIA:
        raise UsageError(f"unknown criterion {name!r}", hint=did_you_mean(name, CRITERIA))
    scores = CRITERIA[name](captured, groups, batches, seed)
    for group, score in scores.items():
        if not np.isfinite(score).all():
            raise QualityError(f"criterion {name!r} gives non-finite scores", where=group, hint="check the weights")
    return scores


@dataclass(frozen=True)
class Site:
    """A place where a layer's channels enter the network: its BatchNorm output, else its own.

    `group` and `channel` hold, per position on the channel axis, the group index (-1: stays) and channel index.
    """

    node: str
    axis: int
    group: np.ndarray[Any, np.dtype[np.int64]]
    channel: np.ndarray[Any, np.dtype[np.int64]]


def sites(groups: ChannelGroups) -> tuple[Site, ...]:
    """All sites of all groups. A depthwise layer is no site: it continues its input's channels."""
    owner = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    index = np.zeros(len(owner), np.int64)
    for g, group in enumerate(groups.groups):
        owner[group.channels] = g
        index[group.channels] = np.arange(group.width)
    found = []
    for node in groups.graph.nodes:
        axis = _channel_axis(groups, node)
        components = None if axis is None else groups.components_at(node.name, axis)
        if axis is None or components is None or (owner[components] < 0).all():
            continue
        users = groups.graph.users[node.name]
        normed = len(users) == 1 and base_op(users[0].op) == "batch_norm"
        found.append(Site(users[0].name if normed else node.name, axis, owner[components], index[components]))
    return tuple(found)


def _channel_axis(groups: ChannelGroups, node: Node) -> int | None:
    op = base_op(node.op)
    if op == "linear":
        return len(node.shape) - 1
    if not op.startswith("conv"):
        return None
    weight = node.args[1]
    depthwise = op in ("conv1d", "conv2d", "conv3d") and len(node.args) > 6 and node.args[6] != 1
    if depthwise and isinstance(weight, Ref) and groups.graph.by_name[weight.name].shape[1] == 1:
        return None
    return 1


class _Recorder(Interpreter):
    """Runs a captured program and keeps the tensors at the named nodes, safe from in-place operators after them."""

    def __init__(self, captured: Captured, names: Iterable[str]) -> None:
        super().__init__(captured.module)
        self.names = frozenset(names)
        self.kept: dict[str, torch.Tensor] = {}

    def run_node(self, n: FxNode) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.kept[n.name] = value
            return value.clone()
        return value


@criterion
def logit_taylor(captured: Captured, groups: ChannelGroups, batches: Batches, seed: int) -> Scores:
    """First-order effect of each channel on random projections of the outputs.

    For a site with output z and L = r·y with r random ±1 (centred), the effect of closing a channel's gate on one
    sample is G = sum over positions of z * dL/dz. The score is the mean over samples of |G|, summed over the sites of
    a channel: per sample and per site, so nothing cancels. One backward pass per batch, BatchNorm in eval mode.

    Source: gates after Molchanov et al. 2019 (arXiv 1906.10771), in the absolute form and on outputs, not on the loss.
    """
    places = sites(groups)
    scores = {group.name: np.zeros(group.width) for group in groups.groups}
    samples = 0
    generator = torch.Generator().manual_seed(seed)
    captured.module.eval()
    for batch in batches:
        recorder = _Recorder(captured, (site.node for site in places))
        outputs = recorder.run(batch)
        kept = [recorder.kept[site.node] for site in places]
        gradients = torch.autograd.grad(
            _projection(outputs, generator), kept, allow_unused=True, materialize_grads=True
        )
        samples += len(batch)
        for site, z, gradient in zip(places, kept, gradients, strict=True):
            product = (z * gradient).detach()
            others = [d for d in range(1, product.ndim) if d != site.axis]
            effect = product.sum(others) if others else product  # (n, positions)
            total = effect.abs().sum(0).double().cpu().numpy()
            for g in np.unique(site.group[site.group >= 0]).tolist():
                mine = site.group == g
                np.add.at(scores[groups.groups[g].name], site.channel[mine], total[mine])
    return {name: score / max(samples, 1) for name, score in scores.items()}


def _projection(outputs: Any, generator: torch.Generator) -> torch.Tensor:
    total: torch.Tensor | None = None
    for y in pytree.tree_leaves(outputs):
        if not isinstance(y, torch.Tensor) or not y.is_floating_point():
            continue
        sign = torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1
        if y.shape[-1] > 1:
            sign = sign - sign.mean(-1, keepdim=True)
        term = (sign * y).sum()
        total = term if total is None else total + term
    if total is None:
        raise QualityError("the model returns no floating-point tensor")
    return total


@criterion
def l1(captured: Captured, groups: ChannelGroups, batches: Batches, seed: int) -> Scores:
    """Mean absolute weight of the filters that produce a channel (Li et al. 2017, arXiv 1608.08710).

    Averaged within each layer's own mean, so that layers of different scale compare.
    """
    scores = {group.name: np.zeros(group.width) for group in groups.groups}
    for site, node in _weighted_sites(groups):
        axis = 1 if base_op(node.op).startswith("conv_transpose") else 0
        weight_ref = node.args[1]
        assert isinstance(weight_ref, Ref)
        weight = attribute(captured.module, groups.graph.by_name[weight_ref.name].target).detach()
        norms = weight.abs().transpose(0, axis).flatten(1).mean(1).double().cpu().numpy()
        norms = norms / max(norms.mean(), 1e-12)
        for g in np.unique(site.group[site.group >= 0]).tolist():
            mine = site.group == g
            np.add.at(scores[groups.groups[g].name], site.channel[mine], norms[mine])
    return scores


def _weighted_sites(groups: ChannelGroups) -> list[tuple[Site, Node]]:
    layers = [node for node in groups.graph.nodes if _channel_axis(groups, node) is not None]
    by_site: Mapping[str, Site] = {site.node: site for site in sites(groups)}
    pairs = []
    for node in layers:
        users = groups.graph.users[node.name]
        site = by_site.get(node.name) or (by_site.get(users[0].name) if len(users) == 1 else None)
        if site is not None:
            pairs.append((site, node))
    return pairs


@criterion
def random(captured: Captured, groups: ChannelGroups, batches: Batches, seed: int) -> Scores:
    """Uniform random scores: the control every other criterion must beat."""
    generator = np.random.default_rng(seed)
    return {group.name: generator.random(group.width) for group in groups.groups}
