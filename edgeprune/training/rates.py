"""The learning rate over the steps of a training, as a share of the highest one."""

from __future__ import annotations

import math

from edgeprune.recipe import TrainSpec

_RISING = 0.3  # share of the steps in which one cycle's rate rises, unless the recipe says another
_FIRST = 1 / 25  # one cycle's rate at its beginning
_LAST = _FIRST / 1e4  # and at its end


def rate_share(recipe: TrainSpec, step: int, total: int) -> float:
    """The share, 0 to 1, of the full rate that step `step` (0, 1, …) of `total` is made with.

    Source: cosine is Loshchilov & Hutter 2017 (arXiv 1608.03983), equation 5, without restarts; the rise from zero
    Goyal et al. 2017 (arXiv 1706.02677), section 2.2; one cycle Smith & Topin 2018 (arXiv 1708.07120) with cosines for
    lines and without a cycle of the momentum.
    """
    one_cycle = recipe.schedule == "one-cycle"
    rising = round((recipe.warmup or _RISING * one_cycle) * total)
    if step < rising:
        return _between(_FIRST, 1.0, step / rising) if one_cycle else (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "linear":
        return max(0.0, 1 - done)
    if recipe.schedule == "step":
        return recipe.step_factor ** sum(done >= at for at in recipe.step_at)
    return _between(1.0, _LAST, done) if one_cycle else 1.0


def _between(start: float, end: float, done: float) -> float:
    """From one value to another along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
