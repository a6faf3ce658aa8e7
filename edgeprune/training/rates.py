"""The learning rate over the steps of a training, as a share of the highest one."""

from __future__ import annotations

import math

from edgeprune.recipe import TrainSpec


def rate_share(recipe: TrainSpec, step: int, total: int) -> float:
    """The share, 0 to 1, of the full rate that step `step` of `total` is made with.

    Source: cosine is Loshchilov & Hutter 2017 (arXiv 1608.03983), equation 5, without restarts.
    """
    done = step / max(1, total)
    return 0.5 * (1 + math.cos(math.pi * done))
