"""Importance: one number per channel and group, larger stays.

A criterion is a function registered under its own name. The default ranks channels by what they do to the model's
outputs rather than to its loss, whose gradient vanishes at convergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter
from torch.fx.node import Node as FxNode
from torch.utils import _pytree as pytree

from edgeprune.errors import QualityError, UsageError, did_you_mean
from edgeprune.pruning.groups import ChannelGroups, channel_axis
from edgeprune.pruning.trace import Captured, attribute

Scores = dict[str, "np.ndarray[Any, np.dtype[np.float64]]"]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Batches = Sequence[torch.Tensor | tuple[Any, ...]]  # a model's inputs in order where there are several
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
    group: Indices
    channel: Indices


def sites(groups: ChannelGroups) -> tuple[Site, ...]:
    """All sites of all groups. A depthwise layer is no site: it continues its input's channels."""
    owner, index = owners(groups)
    found = []
    for node in groups.graph.nodes:
        axis = channel_axis(groups.graph, node)
        components = None if axis is None else groups.components_at(node.name, axis)
        if axis is None or components is None or (owner[components] < 0).all():
            continue
        users = groups.graph.users[node.name]
        name = node.name
        if len(node.shapes) > 1:  # a recurrent layer: the first of its outputs
            name = next((user.name for user in users if user.args[1] == 0), "")
        elif len(users) == 1 and users[0].base == "batch_norm":
            name = users[0].name
        if name:
            found.append(Site(name, axis, owner[components], index[components]))
    return tuple(found)


def owners(groups: ChannelGroups) -> tuple[Indices, Indices]:
    """Per component: the index of its group (-1: stays) and of its channel in the group."""
    owner = np.full(int(groups.component.max(initial=-1)) + 1, -1)
    index = np.zeros(len(owner), np.int64)
    for g, group in enumerate(groups.groups):
        owner[group.channels] = g
        index[group.channels] = np.arange(group.width)
    return owner, index


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
        inputs = batch if isinstance(batch, tuple) else (batch,)
        outputs = recorder.run(*inputs)
        kept = [recorder.kept[site.node] for site in places]
        gradients = torch.autograd.grad(
            _projection(outputs, generator), kept, allow_unused=True, materialize_grads=True
        )
        samples += len(pytree.tree_leaves(inputs)[0])
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
    owner, index = owners(groups)
    scores = {group.name: np.zeros(group.width) for group in groups.groups}
    for path, axis in producing_weights(groups):
        components = groups.components_at(groups.graph.parameters[path].name, axis)
        assert components is not None
        weight = attribute(captured.module, path).detach()
        norms = weight.abs().transpose(0, axis).flatten(1).mean(1).double().cpu().numpy()
        norms = norms / max(norms.mean(), 1e-12)
        for g in np.unique(owner[components]).tolist():
            mine = components[owner[components] == g]
            if g >= 0:
                np.add.at(scores[groups.groups[g].name], index[mine], norms[owner[components] == g])
    return scores


def producing_weights(groups: ChannelGroups) -> list[tuple[str, int]]:
    """(path, axis) of every weight that computes the channels of some layer along that axis."""
    found: dict[tuple[str, int], None] = {}
    for node in groups.graph.nodes:
        axis = channel_axis(groups.graph, node)
        out = None if axis is None else groups.components_at(node.name, axis)
        if out is None or not len(out):
            continue
        wanted = frozenset(out.tolist())
        for name in node.refs:
            weight = groups.graph.by_name[name]
            if weight.op == "parameter" and len(weight.shape) > 1:
                for i in range(len(weight.shape)):
                    own = groups.components_at(name, i)
                    if own is not None and wanted >= frozenset(own.tolist()):
                        found.setdefault((weight.target, i))
                        break
    return list(found)


@criterion
def random(captured: Captured, groups: ChannelGroups, batches: Batches, seed: int) -> Scores:
    """Uniform random scores: the control every other criterion must beat."""
    generator = np.random.default_rng(seed)
    return {group.name: generator.random(group.width) for group in groups.groups}
