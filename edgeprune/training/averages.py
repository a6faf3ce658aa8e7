"""An exponential moving average of the weights and statistics (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Mapping

import torch


@torch.no_grad()
def update_average(average: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], decay: float) -> None:
    """Move the average towards the weights, by 1 − decay of the way; whole numbers are taken as they are."""
    for name, value in weights.items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def decay_at(decay: float, step: int) -> float:
    """The decay after `step` steps: less at first, so that the average leaves its beginning behind."""
    return min(decay, (1 + step) / (10 + step))
