"""Which layers int8 hurts: each one alone on the grid, everything else in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.trace import Captured
from edgeprune.quantization.fake import quantised
from edgeprune.quantization.layers import layers
from edgeprune.quantization.ranges import Range

Damage = Callable[[torch.Tensor, torch.Tensor], float]


@torch.no_grad()
def sensitivity(
    captured: Captured,
    ranges: Mapping[str, Range],
    samples: torch.Tensor,
    weight_limit: int,
    damage: Damage,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """What rounding one layer (its weight, input and result) does to the output, by the path of its weight.

    Args:
        captured: With BatchNorm folded (`layers.folded`).
        ranges: Of the nodes of `fake.quantised_nodes`.
        samples: Inputs (n, ...) that no test set holds.
        damage: Of (float outputs, rounded outputs); larger is worse.

    Returns:
        The worst layer first.
    """
    reference = captured.module(samples)
    found: dict[str, float] = {}
    for layer in progress.track(layers(captured.module), "each layer alone in int8"):
        one = quantised(captured, ranges, weight_limit, [layer])
        found[layer.weight] = max(damage(reference, one.module(samples)), found.get(layer.weight, 0.0))
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))
