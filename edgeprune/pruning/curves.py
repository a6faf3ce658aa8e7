"""Loss curves: what a group's width costs in accuracy, measured.

Summed importance scores are nearly flat over a residual stream and let a solver empty it; a measured curve bends
where the network breaks. Each point is one forward pass of the masked model with batch statistics in BatchNorm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edgeprune.graph import base_name
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.criteria.evidence import Scores
from edgeprune.pruning.groups import ChannelGroup, ChannelGroups
from edgeprune.pruning.plan import best_channels
from edgeprune.pruning.trace import Captured, CapturedModule, attribute, copy_module

Damage = Callable[[torch.Tensor, torch.Tensor], float]
Curve = np.ndarray[Any, np.dtype[np.float64]]

_SHARES = (0.5, 0.25, 0.75)  # of a group's channels, in the order in which they are measured


def kl_divergence(dense: torch.Tensor, pruned: torch.Tensor) -> float:
    """Mean KL divergence of class distributions, in nats; logits (n, classes)."""
    p = torch.log_softmax(dense.float(), -1)
    q = torch.log_softmax(pruned.float(), -1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def relative_error(dense: torch.Tensor, pruned: torch.Tensor) -> float:
    """Squared error over the variance of the dense outputs, any shape."""
    spread = (dense.float() - dense.float().mean(0)).square().sum()
    return float((dense.float() - pruned.float()).square().sum() / spread.clamp_min(1e-12))


def measured_curves(
    captured: Captured,
    groups: ChannelGroups,
    scores: Scores,
    levels: Sequence[Sequence[int]],
    samples: torch.Tensor,
    damage: Damage,
    limit_s: float,
    progress: Progress = SILENT,
) -> dict[str, Curve]:
    """Damage at every allowed width of every group, never rising with the width, zero at full width.

    A few widths per group are measured (one group at a time, the others dense); between them the curve follows the
    share of score that is removed. Groups the time limit leaves out take the median damage per removed score.

    Args:
        levels: Allowed widths per group, ascending.
        samples: Inputs (n, ...).
        limit_s: Wall time after which no further point is measured; at least one point is.

    Returns:
        (levels,) per group name.
    """
    module = _batch_statistics(captured.module)
    reference = _first_output(module, samples)
    points = [
        (g, width)
        for share in _SHARES
        for g in range(len(groups.groups))
        if (width := _at(levels[g], share, groups.groups[g].width)) is not None
    ]
    points += [(g, 0) for g in range(len(groups.groups)) if levels[g][0] == 0]  # a whole block
    measured: dict[int, dict[int, float]] = {g: {} for g in range(len(groups.groups))}
    start = time.monotonic()
    for g, width in progress.track(list(dict.fromkeys(points)), "loss curves"):
        if time.monotonic() - start > limit_s and any(measured.values()):
            continue
        group = groups.groups[g]
        kept = best_channels(width, group.width, scores[group.name])
        with _closed(module, groups, group, kept):
            measured[g][width] = damage(reference, _first_output(module, samples))
    return _interpolated(groups, scores, levels, measured)


def _at(levels: Sequence[int], share: float, full: int) -> int | None:
    """The level nearest to a share of the full width; None when that is the full width."""
    nearest = min(levels, key=lambda width: abs(width - share * full))
    return None if nearest == full else nearest


def _interpolated(
    groups: ChannelGroups, scores: Scores, levels: Sequence[Sequence[int]], measured: Mapping[int, Mapping[int, float]]
) -> dict[str, Curve]:
    lost = {g: _score_lost(scores[group.name], levels[g]) for g, group in enumerate(groups.groups)}
    rates = [
        max(value, 0.0) / lost[g][list(levels[g]).index(width)]
        for g, points in measured.items()
        for width, value in points.items()
        if lost[g][list(levels[g]).index(width)] > 0
    ]
    typical = float(np.median(rates)) if rates else 1.0
    curves = {}
    for g, group in enumerate(groups.groups):
        knots = {0.0: 0.0}
        for width, value in measured[g].items():
            knots[float(lost[g][list(levels[g]).index(width)])] = max(value, 0.0)
        x = np.array(sorted(knots))
        y = np.maximum.accumulate(np.array([knots[k] for k in x]))
        curve = np.interp(lost[g], x, y)
        beyond = lost[g] > x[-1]  # narrower than any measured width: keep the last slope
        slope = typical if len(x) == 1 else (y[-1] - y[-2]) / max(x[-1] - x[-2], 1e-12)
        curve[beyond] = y[-1] + slope * (lost[g][beyond] - x[-1])
        curves[group.name] = curve
    return curves


def _score_lost(score: Curve, levels: Sequence[int]) -> Curve:
    """Sum of the scores removed at each level."""
    total = np.concatenate([[0.0], np.cumsum(np.sort(score)[::-1])])
    return np.array([total[-1] - total[width] for width in levels])


def _batch_statistics(module: CapturedModule) -> CapturedModule:
    """A copy in eval mode whose BatchNorm uses the batch and does not remember it."""
    copied = copy_module(module).eval()
    for node in copied.graph.nodes:
        if node.op == "call_function" and base_name(str(node.target)) == "batch_norm":
            node.update_arg(5, True)
            node.update_arg(6, 0.0)
    copied.recompile()
    return copied


@torch.no_grad()
def _first_output(module: CapturedModule, samples: torch.Tensor) -> torch.Tensor:
    y = pytree.tree_leaves(module(samples))[0]
    assert isinstance(y, torch.Tensor)
    return y


class _closed:
    """The module with all weights of a group's removed channels at zero; restored on leaving."""

    def __init__(
        self, module: CapturedModule, groups: ChannelGroups, group: ChannelGroup, kept: tuple[int, ...]
    ) -> None:
        self.saved: list[tuple[torch.Tensor, torch.Tensor]] = []
        mask = groups.keep_mask({group.name: np.array(kept)})
        with torch.no_grad():
            for path, axis in group.members:
                if path.endswith(("running_mean", "running_var")):
                    continue
                tensor = attribute(module, path)
                components = groups.components_at(groups.graph.parameters[path].name, axis)
                assert components is not None
                removed = torch.from_numpy(np.flatnonzero(~mask[components])).to(tensor.device)
                self.saved.append((tensor, tensor.detach().clone()))
                tensor.index_fill_(axis, removed, 0.0)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for tensor, before in reversed(self.saved):
                tensor.copy_(before)
