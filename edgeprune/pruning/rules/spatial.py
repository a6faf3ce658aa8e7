"""Pooling and resizing: the batch and channel axes pass, the others are worked over."""

from __future__ import annotations

from edgeprune.graph import Node
from edgeprune.pruning.labels import Axes, Labelling, rule

_RANKS = {"1d": 1, "2d": 2, "3d": 3}


@rule(
    *"max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool2d".split(),
    *"adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d".split(),
    *"adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d".split(),
    *"max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices".split(),
    *"_adaptive_avg_pool2d _adaptive_avg_pool3d".split(),
    *"upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d".split(),
    *"upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d".split(),
    *"_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler grid_sampler_2d".split(),
)
def _spatial(run: Labelling, node: Node) -> tuple[Axes, ...]:
    x = run.of(node.args[0])
    name = node.base
    rank = next((n for tag, n in _RANKS.items() if tag in name), len(x) - 2)
    run.freeze_all(x[len(x) - rank :], f"worked over as space in {node.name}")
    for ref in node.args[1:2]:
        run.freeze_all(run.of(ref), f"positions in {node.name}")  # the grid of grid_sampler
    return ((*x[: len(x) - rank], *(None,) * rank),) * len(node.shapes)
